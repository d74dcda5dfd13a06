"""The strategy table: the administrator's comes first, rules fit whom they say, and mistakes name entry and values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.proxydhcp.outcome import ClientKind, Ignore, Reason
from pbserv.proxydhcp.table import Rule, Table, TableError, parse
from pbserv.types import Verdict
from tests.proxydhcp.samples import (
    AT_67,
    IPXE_OPTIONS,
    OWN_TABLE,
    SETTINGS,
    answer,
    asks,
    planned,
    reason,
    reply,
    sent,
    settings,
)

S = SOURCE = 'source = "the lab"\n'


def table(text: str) -> Table:
    return parse([("site.toml", text), OWN_TABLE])


def rule_for(found: Table, kind: ClientKind = ClientKind.BIOS, arch: int = 0, text: bytes = b"PXEClient",
             mac: bytes = b"RT\0\1\2\3", network: str = "10.0.0.1") -> Rule | None:  # fmt: skip
    return found.rule(kind, arch, text, mac, network)


def test_the_packages_own_table() -> None:
    own = SETTINGS.table
    usual = {kind: rule_for(own, kind) for kind in ClientKind}
    assert {kind.value: rule.strategy for kind, rule in usual.items() if rule is not None} == {
        "bios": "direct", "uefi": "hybrid", "ipxe": "ipxe", "http": "http", "raspberrypi": "raspberrypi",
    }  # fmt: skip
    assert usual[ClientKind.UNSUPPORTED] is None
    assert not own.personal
    assert all(rule.source for rule in own.rules)
    assert [(vendor.prefix, vendor.vendor_class) for vendor in own.vendors] == [(b"HW-Client", b"PXEClient")]


@pytest.mark.parametrize(
    ("condition", "fits", "not_fits"),
    [
        ('kind = "bios"', {}, {"kind": ClientKind.UEFI}),
        ('kind = ["uefi", "bios"]', {}, {"kind": ClientKind.IPXE}),
        ("arch = 0", {}, {"arch": 7}),
        ("arch = [7, 9]", {"arch": 9}, {"arch": 0}),
        ('mac = "52:54:00"', {}, {"mac": b"RT\1\1\2\3"}),
        ('mac = "5254.0001.0203"', {}, {"mac": b"RT\0\1\2\4"}),
        ('mac = ["00-50-56", "525400010203"]', {"mac": b"\0PV\1\2\3"}, {"mac": b"\0PW\1\2\3"}),
        ('subnet = "10.0.0.0/24"', {}, {"network": "10.0.1.1"}),
        ('subnet = ["192.0.2.0/24", "10.0.0.1"]', {}, {"network": "10.0.0.2"}),
        ('vendor_class = "PXEC"', {}, {"text": b"HW-Client"}),
        ('vendor_class = ["U-Boot", "HW"]', {"text": b"HW-Client"}, {}),
        ('kind = "bios"\narch = 0\nmac = "52"\nsubnet = "10.0.0.0/8"', {}, {"arch": 1}),
    ],
)
def test_conditions(condition: str, fits: dict[str, object], not_fits: dict[str, object]) -> None:
    found = parse([("site.toml", f'[[rule]]\n{condition}\nignore = "x"\n{SOURCE}')])
    assert rule_for(found, **fits) is found.rules[0]  # type: ignore[arg-type]
    assert rule_for(found, **not_fits) is None  # type: ignore[arg-type]


def test_rules_of_devices_and_subnets_are_personal() -> None:
    for condition, personal in (
        ('mac = "52"', True), ('subnet = "10.0.0.0/8"', True), ('kind = "bios"', False), ("arch = 0", False),
        ('vendor_class = "x"', False),
    ):  # fmt: skip
        assert table(f'[[rule]]\n{condition}\nstrategy = "binl"\n{SOURCE}').personal is personal


def test_the_administrators_rules_are_looked_at_first() -> None:
    given = settings(f"""
        [[rule]]
        mac = "52:54:00:aa"
        strategy = "discovery"
        {SOURCE}
        [[rule]]
        kind = "bios"
        subnet = "192.168.122.0/24"
        strategy = "binl"
        loader = "lab.kpxe"
        {SOURCE}
        [[rule]]
        vendor_class = "PXEClient:Arch:00007"
        strategy = "direct"
        {SOURCE}
        [[rule]]
        arch = 9
        ignore = "this board hangs"
        {SOURCE}""")
    assert reply(asks(), given=given).summary.strategy == "discovery"
    near = reply(asks(mac="0c0000000001"), given=given).summary
    assert (near.strategy, near.file) == ("binl", "lab.kpxe")
    far = AT_67._replace(local="10.0.0.1")
    assert reply(asks(mac="0c0000000001"), far, given).summary.strategy == "direct"
    relayed = reply(asks(mac="0c0000000001", giaddr=bytes((192, 168, 122, 9))), far, given).summary
    assert relayed.strategy == "binl"
    named = asks(arch=7, mac="0c0000000001", vendor_class=b"PXEClient:Arch:00007:UNDI")
    assert reply(named, given=given).summary.strategy == "direct"
    assert reply(asks(arch=7, mac="0c0000000001"), given=given).summary.strategy == "hybrid"
    found = answer(asks(arch=9, mac="0c0000000001"), given=given)
    assert found == Ignore(Reason.QUIRK, "this board hangs")
    assert reply(asks(mac="0c0000000001", extra=IPXE_OPTIONS), given=given).summary.strategy == "ipxe"


def test_a_strategy_of_the_same_name_takes_the_place_of_ours() -> None:
    given = settings(f"[strategies.direct]\ncontrol = 11\npriority = 5\n{SOURCE}")
    found = sent(asks(), given=given)
    assert (found.options[43], found.options[175]) == (b"\x06\1\x0b\xff", b"\1\1\5")


def test_a_loader_of_a_rule_is_for_ipxe_that_wants_the_loader_too() -> None:
    given = settings(f'[[rule]]\nkind = "ipxe"\nstrategy = "ipxe"\nloader = "own.kpxe"\n{SOURCE}')
    rom = asks(extra=IPXE_OPTIONS)
    assert reply(rom, given=given, verdict=Verdict.LOADER).summary.file == "own.kpxe"
    assert reply(rom, given=given).summary.file == "boot.ipxe"


@pytest.mark.parametrize(
    ("local", "expected"),
    [
        ("", ("direct", "undionly.kpxe")),  # not said: the loader, whose script says it
        ('local = "loader"', ("direct", "undionly.kpxe")),
        ('local = "local"', ("local", "")),
        ('local = "absent"', ("direct", "local-disk")),
        ('local = "silence"', Reason.NO_LOCAL_BOOT_ANSWER),
        ('local = "two-item"', ("two-item", "")),
    ],
)
def test_what_a_rule_says_of_the_local_disk(local: str, expected: tuple[str, str] | Reason) -> None:
    given = settings(f'[[rule]]\nkind = "bios"\nstrategy = "direct"\n{local}\n{SOURCE}')
    if isinstance(expected, Reason):
        assert reason(asks(), given=given, verdict=Verdict.LOCAL) is expected
        return
    found = reply(asks(), given=given, verdict=Verdict.LOCAL).summary
    assert (found.strategy, found.file) == expected


def test_a_vendor_of_the_administrator() -> None:
    given = settings(f'[[vendor]]\nprefix = "ACME"\nclass = "PXEClient"\n{SOURCE}')
    for vendor_class in (b"ACME-9", b"HW-Client"):
        assert sent(asks(vendor_class=vendor_class), given=given).options[60] == b"PXEClient"
    assert reason(asks(vendor_class=b"ACM"), given=given) is Reason.NOT_PXE


def test_without_a_rule_nobody_is_answered() -> None:
    found = planned(asks(arch=12))
    assert isinstance(found, Ignore)
    assert found.reason is Reason.ARCH_NOT_SERVED
    assert "unsupported" in found.detail


RULE, OURS = "site.toml: rule 1", "site.toml: [strategies.x]"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rule = [", "site.toml: not TOML: "),
        ("x = 1", "site.toml: 'x' is not known; there are: rule, strategies, vendor"),
        ("strategies = 3", "site.toml: a table is wanted"),
        ("[strategies]\nx = 3", f"{OURS}: a table is wanted"),
        ("[strategies.x]\ncontrol = 8", f"{OURS}: source: a text is wanted"),
        ("[strategies.x]\nsource = 3", f"{OURS}: source: a text is wanted"),
        (f'[strategies.x]\ncolour = "red"\n{S}', f"{OURS}: 'colour' is not known; there are: control, file, items,"),
        (f'[strategies.x]\nitems = ["self", "floppy"]\n{S}', f"{OURS}: items: 'floppy' is not one of self, entries,"),
        (f"[strategies.x]\nitems = [3]\n{S}", f"{OURS}: items: a text or a list of texts is wanted"),
        (f"[strategies.x]\ntimeout = 256\n{S}", f'{OURS}: timeout: 256 is not 0 to 255 or "MenuTimeout"'),
        (f'[strategies.x]\ntimeout = "long"\n{S}', f"{OURS}: timeout: 'long' is not 0 to 255 or \"MenuTimeout\""),
        (f"[strategies.x]\ntimeout = true\n{S}", f"{OURS}: timeout: True is not 0 to 255"),
        (f"[strategies.x]\ncontrol = 256\n{S}", f"{OURS}: control: 256 is not 0 to 255"),
        (f"[strategies.x]\npriority = 128\n{S}", f"{OURS}: priority: 128 is not -128 to 127"),
        (f'[strategies.x]\nfile = "no"\n{S}', f"{OURS}: file: 'no' is not true or false"),
        (f'[strategies.x]\noption43 = "6"\n{S}', f"{OURS}: option43: not hexadecimal bytes, at most 254"),
        (f"[strategies.x]\noption43 = 6\n{S}", f"{OURS}: option43: not hexadecimal bytes, at most 254"),
        (f'[strategies.x]\noption43 = "{"00" * 255}"\n{S}', f"{OURS}: option43: not hexadecimal bytes, at most 254"),
        (f'[rule]\nstrategy = "direct"\n{S}', "site.toml: write [[rule]] and [[vendor]] with two brackets"),
        ("rule = [3]", f"{RULE}: a table is wanted"),
        (f'[[rule]]\nkind = "bios"\n{S}', f"{RULE}: names neither a strategy nor ignore"),
        (f'[[rule]]\nstrategy = ""\n{S}', f"{RULE}: names neither a strategy nor ignore"),
        (f'[[rule]]\nignore = ""\n{S}', f"{RULE}: names neither a strategy nor ignore"),
        (f'[[rule]]\nstrategy = "fast"\n{S}', f"{RULE}: there is no strategy 'fast'; there are: binl, direct, disc"),
        (f'[[rule]]\nstrategy = "binl"\nwith_menu = "fast"\n{S}', f"{RULE}: there is no strategy 'fast'"),
        (f'[[rule]]\nstrategy = "binl"\nescalate = ["fast"]\n{S}', f"{RULE}: there is no strategy 'fast'"),
        (f'[[rule]]\nstrategy = "binl"\nlocal = "fast"\n{S}', f"{RULE}: there is no strategy 'fast'"),
        (f'[[rule]]\nkind = "mac"\nignore = "x"\n{S}', f"{RULE}: kind: 'mac' is not one of bios, uefi, ipxe, http,"),
        (f'[[rule]]\narch = 65536\nignore = "x"\n{S}', f"{RULE}: arch: a number from 0 to 65535 or a list of such"),
        (f'[[rule]]\narch = "7"\nignore = "x"\n{S}', f"{RULE}: arch: a number from 0 to 65535 or a list of such"),
        (f'[[rule]]\nmac = "b8:27:e"\nignore = "x"\n{S}', f"{RULE}: mac: 'b8:27:e' is not the beginning of a MAC"),
        (f'[[rule]]\nmac = "01:02:03:04:05:06:07"\nignore = "x"\n{S}', f"{RULE}: mac: '01:02:03:04:05:06:07' is not"),
        (f'[[rule]]\nmac = "::"\nignore = "x"\n{S}', f"{RULE}: mac: '::' is not the beginning of a MAC address"),
        (f'[[rule]]\nmac = ""\nignore = "x"\n{S}', f"{RULE}: mac: a text or a list of texts is wanted"),
        (f'[[rule]]\nsubnet = "10.0.0.1/8"\nignore = "x"\n{S}', f"{RULE}: subnet: 10.0.0.1/8 has host bits set"),
        (f'[[rule]]\nsubnet = "lab"\nignore = "x"\n{S}', f"{RULE}: subnet: "),
        (f'[[rule]]\nuuid = "x"\nignore = "x"\n{S}', f"{RULE}: 'uuid' is not known; there are: arch, escalate, ignore"),
        ('[[rule]]\nignore = "x"', f"{RULE}: source: a text is wanted"),
        (f'[[rule]]\nloader = 3\nstrategy = "binl"\n{S}', f"{RULE}: loader: a text is wanted"),
        (f'[[vendor]]\nprefix = "x"\nclass = "TFTP"\n{S}', "site.toml: vendor 1: class: 'TFTP' is not one of PXECli"),
        (f'[[vendor]]\nclass = "PXEClient"\n{S}', "site.toml: vendor 1: prefix: a text is wanted"),
        ('[[vendor]]\nprefix = "x"\nclass = "PXEClient"', "site.toml: vendor 1: source: a text is wanted"),
        (f'[[vendor]]\nprefix = "x"\nclass = "PXEClient"\nkind = "x"\n{S}', "site.toml: vendor 1: 'kind' is not known"),
    ],
)  # fmt: skip
def test_mistakes_say_which_entry_and_what_is_valid(text: str, said: str) -> None:
    with pytest.raises(TableError) as caught:
        table(text)
    assert str(caught.value).startswith(said)


def test_each_wrong_entry_is_named() -> None:
    rules = f'[[rule]]\nstrategy = "turbo"\n{S}[[rule]]\nkind = "uefy"\nstrategy = "binl"\n{S}'
    with pytest.raises(TableError) as caught:
        table(f'{rules}[[vendor]]\nprefix = "X"\n')
    said = str(caught.value)
    assert all(f"site.toml: {entry}: " in said for entry in ("rule 1", "rule 2", "vendor 1")), said
    with pytest.raises(TableError, match=r"; and 3 more$"):
        table(f'[[rule]]\nstrategy = "turbo"\n{S}' * 8)


def test_the_second_rule_is_called_the_second() -> None:
    with pytest.raises(TableError, match="rule 2: there is no strategy"):
        table(f'[[rule]]\nstrategy = "binl"\n{SOURCE}[[rule]]\nstrategy = "x"\n{SOURCE}')


def test_rules_may_name_strategies_of_either_table() -> None:
    own = table(f'[strategies.lab]\ncontrol = 8\n{SOURCE}[[rule]]\nstrategy = "lab"\nescalate = "direct"\n{SOURCE}')
    assert own.rules[0].escalate == ("direct",)
    assert "lab" in own.strategies


values = st.recursive(
    st.one_of(
        st.integers(-300, 300), st.booleans(), st.sampled_from(["", "x", "bios", "direct", "10.0.0.0/8", "0601"])
    ),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
entries = st.dictionaries(
    st.sampled_from(["strategy", "local", "escalate", "mac", "subnet", "arch", "kind", "ignore", "source", "control",
                     "items", "timeout", "option43", "priority", "file", "prefix", "class"]),
    values, max_size=6,
)  # fmt: skip


def toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str([toml(one) for one in value]).replace("'", "") if isinstance(
        value, list
    ) else str(value)  # fmt: skip


@given(st.sampled_from(["[[rule]]", "[[vendor]]", "[strategies.x]", "[rule]"]), entries)
def test_any_entry_is_taken_or_refused_with_its_name(header: str, entry: dict[str, object]) -> None:
    text = header + "\n" + "".join(f"{key} = {toml(value)}\n" for key, value in entry.items())
    try:
        found = table(text)
    except TableError as fault:
        said = str(fault)
    else:
        for rule in found.rules:  # whatever is taken can be followed
            assert rule.ignore or rule.strategy in found.strategies
        return
    assert said.startswith("site.toml")
