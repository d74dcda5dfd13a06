"""End to end: real firmware in virtual machines, the real server process, network namespaces."""
