"""A router between two rooms with ISC's DHCP relay agent, which adds option 82 and wants it back (RFC 3046).

The agent comes from Debian's package, unpacked below the cache and not installed: its service would start here.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.netns import Host, Room, run, stop

_PACKAGE = "isc-dhcp-relay"
_ADVERTISED = "fd00:78::"


def relay_program(directory: Path) -> Path:
    """The relay agent, downloaded to ``directory`` when it is not there yet."""
    program = directory / "usr/sbin/dhcrelay"
    if not program.exists():
        directory.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["apt-get", "download", "-q", _PACKAGE], cwd=directory, check=True, capture_output=True, timeout=300
        )
        run("dpkg", "-x", next(directory.glob("*.deb")), directory)
    return program


@contextlib.contextmanager
def routed(near: Room, far: Room, servers: Sequence[str], program: Path, directory: Path) -> Iterator[Path]:
    """Join both rooms by a router that relays DHCP from ``far`` to ``servers`` in ``near``; yields the agent's log.

    The router is .254 on both sides, where the hosts of a room send what is not for their subnet.
    """
    router = near.host("router", 254)
    far.join(router, 254)
    router.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    # -a adds option 82; -D drops replies whose option 82 is not the agent's own. Nobody else wrote it here.
    words = [program, "-4", "-d", "-a", "-D", "--no-pid", "-id", "eth1", "-iu", "eth0", *servers]
    agent = router.popen(*words, log=directory / "relay.log")
    advertiser = _advertise(router, directory)
    try:
        yield directory / "relay.log"
    finally:
        stop(agent)
        stop(advertiser)


def _advertise(router: Host, directory: Path) -> subprocess.Popen[bytes]:
    """IPv6 router advertisements on the far side; without them iPXE waits 16 s there."""
    router.run("sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/all/disable_ipv6")
    router.run("ip", "addr", "add", f"{_ADVERTISED}1/64", "dev", "eth1", "nodad")
    return router.popen(
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--no-hosts", "--no-resolv",
        "--interface=eth1", "--bind-interfaces", "--user=root", "--log-facility=-", "--enable-ra",
        f"--dhcp-range={_ADVERTISED},ra-only,64", f"--pid-file={directory / 'ra.pid'}",
        log=directory / "ra.log",
    )  # fmt: skip
