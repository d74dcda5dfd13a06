"""Tests of pbserv/net."""
