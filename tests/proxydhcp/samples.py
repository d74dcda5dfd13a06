"""Packets to ask with, recorded and made from a few values; the way from packet to answer; a journal to tell."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from pbserv.journal.steps import DhcpStep, Told, step_of
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.asked import AskedOf
from pbserv.proxydhcp.config import ProxyDhcpConf
from pbserv.proxydhcp.decide import Plan, Query, decide, plan, screen
from pbserv.proxydhcp.facts import Facts
from pbserv.proxydhcp.loaders import Loader, Settings
from pbserv.proxydhcp.outcome import Ignore, Listener, Reason, Reply
from pbserv.proxydhcp.packet import Packet, encode
from pbserv.proxydhcp.settings import ProxyDhcpSettings, read_table, settings_of
from pbserv.proxydhcp.table import parse
from pbserv.types import Verdict

_VECTORS = Path(__file__).parent.parent / "vectors"
RECORDED = {entry["name"]: entry for entry in json.loads((_VECTORS / "pxe-dhcp.json").read_text())}
FIRMWARE = [entry for entry in json.loads((_VECTORS / "firmware-boot.json").read_text()) if entry["proto"] == "dhcp"]

SERVER = "192.168.122.250"
NETWORK = ((0xC0A87A00, 0xFFFFFF00),)
X64 = Loader("NBPx64", "ipxe.efi")
SETTINGS = Settings(
    {
        0: Loader("NBPx86", "undionly.kpxe"), 6: Loader("NBPIA32", ""), 7: X64, 9: X64,
        11: Loader("NBPARM64", ""), 16: Loader("NBPHTTPx64", "http://192.168.122.250:8067/ipxe.efi"),
    },
    read_table(None),
    http_port=8067,
)  # fmt: skip
OWN_TABLE = ("pbserv's strategies.toml", (Path(dhcp.__file__).parent / "strategies.toml").read_text())


def settings(table: str = "", **changes: Any) -> Settings:
    """SETTINGS with changes; ``table`` is an administrator's, in TOML."""
    if table:
        changes["table"] = parse([("site.toml", table), OWN_TABLE])
    return dataclasses.replace(SETTINGS, **changes)


def configured(**conf: Any) -> Settings:
    """The settings of a configuration in which only these keys are set."""
    return settings_of(ProxyDhcpSettings(ProxyDhcpConf(**conf), 8067))


def recorded(name: str) -> bytes:
    return bytes.fromhex(RECORDED[name]["hex"])


def facts_for(name: str, server: str = SERVER) -> Facts:
    """The facts as this host would have had them when the recorded packet arrived."""
    entry = RECORDED[name]
    return Facts(
        Listener.BOOT_SERVER if entry["dport"] == 4011 else Listener.DHCP,
        entry["src"], entry["sport"], server, server, 3, entry["dst"] == server, NETWORK,
    )  # fmt: skip


AT_67 = Facts(Listener.DHCP, "0.0.0.0", 68, SERVER, SERVER, 3, False, NETWORK)
AT_4011 = Facts(Listener.BOOT_SERVER, "192.168.122.63", 4011, SERVER, SERVER, 3, True, NETWORK)


def asks(
    kind: int = dhcp.DISCOVER,
    arch: int = 0,
    *,
    vendor_class: bytes = b"PXEClient:Arch:00000:UNDI:002001",
    xid: int = 0x01020304,
    mac: str = "525400aabbcc",
    extra: dict[int, bytes] | None = None,
    **header: bytes | int,
) -> Packet:
    """A PXE client's message."""
    options = {
        dhcp.MESSAGE_TYPE: bytes((kind,)), dhcp.MAX_SIZE: b"\x05\xc0", dhcp.ARCHITECTURE: arch.to_bytes(2, "big"),
        dhcp.VENDOR_CLASS: vendor_class, dhcp.CLIENT_UUID: b"\0" + bytes(range(16)),
    }  # fmt: skip
    chaddr = bytes.fromhex(mac).ljust(16, b"\0")
    return Packet(1, xid, chaddr, options=options | (extra or {}), **header)  # type: ignore[arg-type]


IPXE_OPTIONS = {dhcp.USER_CLASS: b"iPXE", dhcp.IPXE: bytes.fromhex("130101")}
HTTP = b"HTTPClient:Arch:00016:UNDI:003001"


def question(packet: Packet | bytes, facts: Facts = AT_67, given: Settings = SETTINGS) -> Query | Ignore:
    """The packet as a question; raises WireError."""
    data = packet if isinstance(packet, bytes) else encode(packet)
    return screen(data, dhcp.head_of(data), AskedOf(given.table.vendors).read(data), facts)


def planned(
    packet: Packet | bytes, facts: Facts = AT_67, given: Settings = SETTINGS, verdict: Verdict = Verdict.BOOT,
    **how: Any,
) -> Plan | Ignore:  # fmt: skip
    query = question(packet, facts, given)
    return query if isinstance(query, Ignore) else plan(query, facts, given, verdict, "because", **how)


def answer(
    packet: Packet | bytes, facts: Facts = AT_67, given: Settings = SETTINGS, verdict: Verdict = Verdict.BOOT,
    **how: Any,
) -> Reply | Ignore:  # fmt: skip
    """``how`` as :func:`pbserv.proxydhcp.decide.plan` takes it."""
    query = question(packet, facts, given)
    if isinstance(query, Ignore):
        return query
    chosen = plan(query, facts, given, verdict, "because", **how)
    return chosen if isinstance(chosen, Ignore) else decide(query, facts, given, chosen)


def reply(packet: Packet | bytes, facts: Facts = AT_67, given: Settings = SETTINGS, **how: Any) -> Reply:
    found = answer(packet, facts, given, **how)
    assert isinstance(found, Reply), found
    return found


def sent(packet: Packet | bytes, facts: Facts = AT_67, given: Settings = SETTINGS, **how: Any) -> Packet:
    """The answer, decoded."""
    return dhcp.decode(reply(packet, facts, given, **how).data)


def reason(packet: Packet | bytes, facts: Facts = AT_67, given: Settings = SETTINGS, **how: Any) -> Reason:
    found = answer(packet, facts, given, **how)
    assert isinstance(found, Ignore), found
    return found.reason


class Book:
    """The journal: all that it is told, in its order."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, DhcpStep]] = []
        self.events: list[tuple[str, ...]] = []

    def dhcp(self, mac: bytes, step: DhcpStep) -> None:
        self.steps.append((mac.hex(":"), step))

    def packet(self, mac: bytes, at: float, told: Told, data: bytes) -> None:
        self.dhcp(mac, step_of(at, told, data))

    def add(self, mac: str, what: str, detail: str = "") -> None:
        self.events.append((what, mac, detail))

    def learn(self, address: str, mac: str, *, sure: bool = True) -> None:
        self.events.append(("learn", address, mac))

    def strategy_learned(self, mac: str, name: str) -> None:
        self.events.append(("strategy_learned", mac, name))

    @property
    def words(self) -> list[str]:
        return [step.verdict for _mac, step in self.steps]
