"""Tests of the proxyDHCP service."""
