"""pbserv: the preboot and imaging server for LANs."""

__version__ = "0.1.0"
