"""Limits of the kernel that a room full of machines runs into. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pbserv.doctor.facts import Facts
from pbserv.doctor.finding import Finding, note

WANTED_BUFFER_BYTES: Final = 4 << 20  # what the sockets ask for
# The kernel doubles what a socket asks for (socket(7)) and counts whole buffers: a DHCP packet of 300 to 590 bytes
# takes about 2304 bytes on most network cards.
_PACKET_BYTES: Final = 2304
MACHINES: Final = 1000


def receive_buffer(facts: Facts) -> Iterator[Finding]:
    """The server takes what it wants before it gives its rights up; without them net.core.rmem_max is the bound."""
    most, held = facts.capacity.rmem_max, facts.capacity.receive_buffer
    bounded = facts.rights.uid != 0 and most is not None and most < WANTED_BUFFER_BYTES
    if held is None and not facts.server.running and bounded:
        held = 2 * (most or 0)
    if facts.wants("proxydhcp") and held is not None and held < 2 * WANTED_BUFFER_BYTES:
        yield note(
            f"when more than about {held // _PACKET_BYTES} machines are switched on at once, the kernel drops some of"
            " their requests before the server sees them (they ask again after seconds)",
            f"receive buffer {held} bytes, net.core.rmem_max = {most}",
            f"sysctl -w net.core.rmem_max={WANTED_BUFFER_BYTES}, and the same in /etc/sysctl.d/pbserv.conf",
            "or start the server as root: it takes the room before it becomes its user; then: pbserv restart",
        )


def neighbour_table(facts: Facts) -> Iterator[Finding]:
    """gc_thresh3 is where the kernel refuses further neighbours (arp(7)): a machine too many gets no packet."""
    most, now = facts.capacity.neighbours_most, facts.capacity.neighbours_now
    if most is not None and most < MACHINES + now:
        yield note(
            f"the neighbour table is too small for {MACHINES} machines beside those that are in it",
            f"net.ipv4.neigh.default.gc_thresh3 = {most}; {now} neighbours now",
            f"sysctl -w net.ipv4.neigh.default.gc_thresh3={4 * most}, and the same in /etc/sysctl.d/pbserv.conf",
        )


def open_files(facts: Facts) -> Iterator[Finding]:
    """Transfers share sockets, but files and HTTP connections take a descriptor each."""
    most, wanted = facts.capacity.open_files, facts.settings.tftp.max_transfers + 256
    if most is not None and most < wanted:
        yield note(
            f"the server may open {most} files; TFTPMaxTransfers = {facts.settings.tftp.max_transfers} may need"
            f" {wanted}",
            f"RLIMIT_NOFILE (hard) = {most}",
            "LimitNOFILE=65536 in the unit (systemctl edit pbserv), or ulimit -Hn, then: pbserv restart",
        )
