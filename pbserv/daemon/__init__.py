"""Process control: pid lock, detaching, control socket, readiness for systemd, privileges and installation."""
