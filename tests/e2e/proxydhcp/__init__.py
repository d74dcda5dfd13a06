"""Real firmware asks proxyDHCP through every kind of network; a machine that runs its boot script has passed."""
