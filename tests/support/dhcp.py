"""A plain DHCP server in a namespace of its own: it gives out addresses and knows nothing of booting."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.netns import Host, stop


@contextlib.contextmanager
def plain_dhcp(host: Host, directory: Path, more: Sequence[str] = ()) -> Iterator[Path]:
    """Run dnsmasq as a DHCP server without any boot option but those in ``more``, and yield its log file."""
    log = directory / "dhcp.log"
    # Routers advertise themselves on nearly every LAN; without one, iPXE waits 16 s for an advertisement.
    host.run("sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/all/disable_ipv6")
    host.run("ip", "addr", "add", "fd00:77::1/64", "dev", "eth0", "nodad")
    net = host.address.rsplit(".", 1)[0]
    process = host.popen(
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--no-hosts", "--no-resolv",
        "--interface=eth0", "--bind-interfaces", "--dhcp-authoritative", "--no-ping", "--user=root", "--log-dhcp",
        f"--dhcp-range={net}.100,{net}.200,255.255.255.0,1h", f"--dhcp-leasefile={directory / 'dhcp.leases'}",
        "--log-facility=-", "--enable-ra", "--dhcp-range=fd00:77::,ra-only,64",
        f"--pid-file={directory / 'dhcp.pid'}", *more,
        log=log,
    )  # fmt: skip
    try:
        yield log
    finally:
        stop(process)


def address_of(directory: Path, mac: str) -> str | None:
    """The address that the DHCP server leased to ``mac``, from its lease file; None when it leased none."""
    leases = directory / "dhcp.leases"
    if not leases.exists():
        return None
    for line in leases.read_text().splitlines():
        words = line.split()
        if len(words) > 2 and words[1].lower() == mac.lower():
            return words[2]
    return None
