"""The proxyDHCP service: names a boot file to PXE clients beside a DHCP server that knows nothing of booting."""
