"""Tests of pbserv.policy.oracles."""
