"""`pbserv device identity`, `pbserv pool`, `pbserv start setjustimagedflag`: image-safe data, over the HTTP API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final  # Any: JSON values as the API takes and answers them

from pbserv.commands.api import Api, RefusedError, named
from pbserv.commands.tables import Row, clock, plain, print_json, said, show_facts, show_table
from pbserv.errors import PbservError, UsageError
from pbserv.types import MacAddress

_SYS: Final = Path("/sys/class/net")
_ETHERNET: Final = "1"
"""ARPHRD_ETHER (linux/if_arp.h)."""
_FIELDS: Final = ("hostname", "domain", "workgroup", "address", "netmask", "gateway", "dns", "suffixes", "workstation")
_KEPT: Final = ("name", "revision", "given", "names", "hosts")
"""What an answer about a pool has beyond its fields."""
_LISTS: Final = ("dns", "suffixes")


# identities


def change(conf: Path, mac: str, given: Mapping[str, Any], *, clear: bool, fill: bool, as_json: bool) -> None:
    """Show it, or change what is ``given`` (None: not given); an empty text takes a value away."""
    body = {name: value for name, value in given.items() if value is not None}
    if clear and (body or fill):
        raise UsageError("--clear takes all away: give it alone, then say what is to hold")
    api, path = Api(conf), named("devices", mac, "identity")
    if clear:
        api.delete(path)
        return said({"mac": mac, "cleared": True}, f"device {mac}: nothing is said of it any more", as_json)
    found = api.patch(path, _lists(body)) if body else None
    if fill:
        found = api.post(f"{path}/fill")
    found = found or api.get(path)
    return print_json(found) if as_json else _show(found)


def _show(found: Row) -> None:
    sources = found["sources"]
    facts = [("device", found["mac"])]
    for name in _FIELDS:
        value = found[name]
        text = ", ".join(value) if isinstance(value, list) else value
        source = sources.get(name, "")
        facts.append((name, f"{text}  ({source})" if source.startswith("pool") and text else text))
    source = sources.get("dhcp", "")
    facts.insert(4, ("dhcp", (f"yes  ({source})" if source.startswith("pool") else "yes") if found["dhcp"] else ""))
    facts.append(("to come", f"{' and '.join(found['lacking'])} from a pool" if found["lacking"] else ""))
    facts.append(("just imaged", "yes" if found["just_imaged"] else "no"))
    version = f" version {found['version']}" if found["version"] else ""
    facts.append(("imaged with", f"{found['image']}{version}" if found["image"] else ""))
    facts.append(("changed", clock(found["changed"])))
    show_facts(facts)


def _lists(said: Mapping[str, Any]) -> dict[str, Any]:
    """``--dns ''`` means none."""
    return {name: [each for each in value if each] if name in _LISTS else value for name, value in said.items()}


def set_just_imaged(conf: Path, macs: Sequence[str]) -> int:
    """The exit code. Without MACs: of this host's own network cards, those that are registered."""
    api = Api(conf)
    devices = dict.fromkeys(_named(api, mac) for mac in macs) if macs else _own(api)
    for mac in devices:
        api.post(named("devices", mac, "identity", "just-imaged"), {"set": True})
        print(f"device {mac}: the just-imaged flag is set")
    return 0


def _named(api: Api, mac: str) -> str:
    """All are looked for before one is changed."""
    try:
        address = str(MacAddress.parse(mac))
    except ValueError as fault:
        raise UsageError(f"setjustimagedflag: {fault}") from None
    return str(api.get(named("devices", address))["mac"])


def _own(api: Api) -> dict[str, None]:
    cards = own_macs()
    found: dict[str, None] = {}
    for mac in cards:
        try:
            found[str(api.get(named("devices", mac))["mac"])] = None
        except RefusedError as fault:
            if fault.status != 404:
                raise
    if not found:
        these = f" ({', '.join(cards)})" if cards else ""
        raise PbservError(
            f"setjustimagedflag: none of this host's network cards{these} is a registered device; name the devices:"
            " pbserv start setjustimagedflag MAC..., or register this host: pbserv device add MAC"
        )
    return found


def own_macs(place: Path = _SYS) -> list[str]:
    """Addresses of this host's Ethernet interfaces, by their names. Which of them are devices the server knows."""
    found = []
    for path in sorted(place.iterdir()) if place.is_dir() else ():
        if _text(path / "type") != _ETHERNET:
            continue
        try:
            address = MacAddress.parse(_text(path / "address"))
        except ValueError:
            continue
        if any(address.octets) and not address.octets[0] & 1:
            found.append(str(address))
    return list(dict.fromkeys(found))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


# pools


def pools(conf: Path, as_json: bool) -> None:
    found = list(Api(conf).pages("/pools"))
    if as_json:
        return print_json(found)
    rows = (
        (each["name"], _names(each), _addresses(each), each["folder"], each["group"],
         f"{each['given']} of {each['names'] + each['hosts']}")
        for each in found
    )  # fmt: skip
    columns = ("Name", "Names", "Addresses", "Folder", "Group", "Given")
    return show_table(columns, rows, "no pools yet; make one: pbserv pool set --help")


def _names(pool: Row) -> str:
    return f"{pool['pattern']}, {pool['first']} to {pool['last']}" if pool["pattern"] else ""


def _addresses(pool: Row) -> str:
    if pool["dhcp"]:
        return "from DHCP"
    return f"{pool['addresses']} of {pool['network']}" if pool["addresses"] else str(pool["network"])


def pool_show(conf: Path, name: str, as_json: bool) -> None:
    """With what it gave, and to whom."""
    api = Api(conf)
    found = api.get(named("pools", name))
    values = list(api.pages(named("pools", name, "values")))
    if as_json:
        return print_json({**found, "values": values})
    facts = [("pool", found["name"]), ("names", _names(found)), ("addresses", _addresses(found))]
    for key in ("gateway", "domain", "workgroup", "dns", "suffixes", "folder", "group"):
        value = found[key]
        facts.append((key, ", ".join(value) if isinstance(value, list) else value))
    hosts = sum(each["value"].count(".") == 3 for each in values)
    facts.append(("given", f"{len(values) - hosts} of {found['names']} names, {hosts} of {found['hosts']} addresses"))
    show_facts(facts)
    print()
    rows = ((each["value"], each["mac"], clock(each["given"])) for each in values)
    return show_table(("Value", "Device", "Since"), rows, "it gave nothing yet")


def pool_set(conf: Path, name: str, given: Mapping[str, Any], as_json: bool) -> None:
    """Make the pool, or change the fields that are given (None: not given) of the one that is there."""
    api, path = Api(conf), named("pools", name)
    before, etag = api.find(path)
    fields = _lists({key: value for key, value in given.items() if value is not None})
    if not fields:
        raise UsageError("say what the pool gives, or what to change; see: pbserv pool set --help")
    kept = {key: value for key, value in (before or {}).items() if key not in _KEPT}
    stored = api.put(path, {**kept, **fields}, etag)
    said(stored, f"pool {plain(stored['name'])} {'changed' if before else 'made'}", as_json)


def pool_delete(conf: Path, name: str, release: bool, as_json: bool) -> None:
    Api(conf).delete(named("pools", name), release=release or None)
    said({"pool": name, "deleted": True}, f"pool {name} deleted", as_json)
