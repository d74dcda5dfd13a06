"""Tests of pbserv.conf and of the four models."""

from pbserv.imaging.config import FILE as PBSERV
from pbserv.policy.config import FILE as POLICY
from pbserv.proxydhcp.config import FILE as PROXYDHCP
from pbserv.tftp.config import FILE as TFTP

__all__ = ("FILES", "PBSERV", "POLICY", "PROXYDHCP", "TFTP")
FILES = (PBSERV, PROXYDHCP, TFTP, POLICY)
