"""The judge, rule by rule: one change to a good answer, one finding, and whom it hits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.errors import UsageError, WireError
from pbserv.probe.explain import fields
from pbserv.probe.firmware import FIRMWARE
from pbserv.probe.judge import Severity, judge, usable
from pbserv.probe.offer import Offer, raw_options
from pbserv.proxydhcp.packet import decode
from tests.probe.offers import ADDRESS, JUST_BOOT, MENU, SERVER, dhcp_offer, http, proxy, with_raw
from tests.probe.recordings import recorded

BROKEN, DOUBTFUL, NOTED = Severity.ERROR, Severity.WARNING, Severity.NOTE
PI_MENU = bytes.fromhex("0601030a0400505845") + b"\x09\x17\0\0\x14Raspberry Pi Boot   \xff"
PI_SHORT = bytes.fromhex("0601030a0400505845") + b"\x09\x14\0\0\x11Raspberry Pi Boot\xff"
WFM = b"".join(bytes((tag, 4)) + b"\xe0\0\1\2" for tag in range(1, 6)) + b"\xff"

CASES: list[tuple[str, str, Offer, Severity]] = [
    # kind, words of the finding, answer, severity
    ("bios", "ACK instead of OFFER", proxy({53: b"\5"}), BROKEN),
    ("bios", "BOOTP", dhcp_offer(None, 53), NOTED),
    ("ipxe", "from port 4000, not 67", proxy(source_port=4000), BROKEN),
    ("uefi", "from port 4000, not 67", proxy(source_port=4000), BROKEN),
    ("uboot", "from port 4000, not 67", dhcp_offer(source_port=4000), DOUBTFUL),
    ("ipxe", "from port 67, not 4011: iPXE drops", proxy({53: b"\5"}, asked=4011), BROKEN),
    ("uefi", "from port 67, not 4011", proxy({53: b"\5"}, asked=4011, port=4011), DOUBTFUL),
    ("uefi", "was sent to port 68", proxy({53: b"\5"}, asked=4011, source_port=4011), BROKEN),
    ("bios", "was sent to port 4011", proxy({53: b"\5"}, asked=4011, source_port=4011, port=4011), BROKEN),
    ("uefi", "with OFFER instead of ACK", proxy(asked=4011, source_port=4011), DOUBTFUL),
    ("uefi", "has yiaddr", proxy({53: b"\5"}, yiaddr=ADDRESS, asked=4011, source_port=4011), DOUBTFUL),
    ("uefi", "option 54 (server identifier) is missing", proxy(None, 54), BROKEN),
    ("ipxe", "option 54 (server identifier) is 00000000", proxy({54: bytes(4)}), BROKEN),
    ("bios", "option 60 is missing", proxy(None, 60), BROKEN),
    ("bios", "option 60 is 'MSFT 5.0' and not PXEClient", proxy({60: b"MSFT 5.0"}), BROKEN),
    ("uefi", "of class HTTPClient, the client of class PXEClient", http(), BROKEN),
    ("http", "of class PXEClient, the client of class HTTPClient", proxy(), BROKEN),
    ("http", "takes the address and drops the URI", dhcp_offer({67: b"http://10.0.0.9/a\0"}), BROKEN),
    ("bios", "option 97", proxy(None, 97), NOTED),
    ("bios", "280 bytes", proxy(data=proxy(None, 97).data[:280]), DOUBTFUL),
    ("uefi", "1500 bytes; EDK2 ignores", proxy(data=proxy().data.ljust(1500, b"\0")), BROKEN),
    ("ipxe", "1500 bytes; EDK2 ignores", proxy(data=proxy().data.ljust(1500, b"\0")), DOUBTFUL),
    ("bios", "said that it takes 1260", proxy(data=proxy().data.ljust(1300, b"\0")), BROKEN),
    ("uefi", "option 52", proxy(data=with_raw(proxy(sname=b""), (52, b"\2"))), BROKEN),
    ("bios", "option 52", proxy(data=with_raw(proxy(sname=b""), (52, b"\2"))), DOUBTFUL),
    ("uefi", "option 43 is split", proxy(data=with_raw(proxy(), (43, JUST_BOOT))), BROKEN),
    ("uboot", "option 67 is split", dhcp_offer(data=with_raw(dhcp_offer({67: b"a"}), (67, b"b"))), DOUBTFUL),
    ("uefi", "over the option that follows (12)", proxy(data=with_raw(proxy(), (67, b"a.efi"), (12, b"x"))), BROKEN),
    ("bios", "over the option that follows (12)", proxy(data=with_raw(proxy(), (67, b"a"), (12, b"x"))), DOUBTFUL),
    ("uefi", "no harm at the end", proxy(data=with_raw(proxy(), (67, b"a.efi"))), NOTED),
    ("uefi", "hears only broadcasts", proxy(destination="10.0.0.77"), BROKEN),
    ("ipxe", "came after 2.5 s", proxy(seconds=2.5), BROKEN),
    ("uefi", "came after 4.5 s", proxy(seconds=4.5), DOUBTFUL),
    ("ipxe", "no siaddr", proxy(siaddr=bytes(4)), BROKEN),
    ("uefi", "no siaddr", proxy(siaddr=bytes(4)), DOUBTFUL),
    ("uefi", "in option 67 only", proxy({67: b"boot.efi\0"}, file=b""), DOUBTFUL),
    ("uefi", "names a URL", proxy(file=b"http://10.0.0.9/a.efi"), BROKEN),
    ("bios", "host name boot.example", proxy({66: b"boot.example\0"}), DOUBTFUL),
    ("http", "no URI of HTTP (boot.efi)", http(uri=b"boot.efi"), BROKEN),
    ("http", "no URI of HTTP (no file)", http(None, 67, file=b""), BROKEN),
    ("http", "no URI of HTTP", http(uri=b"http://[broken/x"), BROKEN),
    ("http", "host name boot.example", http(uri=b"http://boot.example/a.efi"), BROKEN),
    ("http", "host name boot.example", http(uri=b"http://boot.example/a.efi", yiaddr=ADDRESS), DOUBTFUL),
    ("bios", "option 43 cannot be read", proxy({43: b"\x06\x09\x08"}), BROKEN),
    ("uefi", "WfM 1.1a", proxy({43: WFM}), BROKEN),
    ("bios", "WfM 1.1a", proxy({43: WFM}), DOUBTFUL),
    ("uefi", "asks 10.0.0.9 on port 4011", proxy(None, 43), NOTED),
    ("uefi", "asks 10.0.0.9 on port 4011", proxy(None, 43, siaddr=bytes(4)), NOTED),
    ("bios", "PXE-E55", proxy(None, 43), NOTED),
    ("pi", "no option 43 with the Raspberry Pi menu", proxy(None, 43), BROKEN),
    ("pi", "no entry 'Raspberry Pi Boot'", proxy(), BROKEN),
    ("pi", "no menu prompt", proxy(), BROKEN),
    ("pi", "lacks three spaces", proxy({43: PI_SHORT}), BROKEN),
    ("bios", "43.6 (discovery control) has 2 bytes", proxy({43: b"\x06\2\x08\0\xff"}), BROKEN),
    ("uefi", "no file is named", proxy(file=b""), BROKEN),
    ("uefi", "there is no menu: EDK2 aborts", proxy({43: b"\x06\1\3\xff"}), BROKEN),
    ("bios", "there is no menu: EDK2 aborts", proxy({43: b"\x06\1\3\xff"}), DOUBTFUL),
    ("uefi", "lacks bit 1", proxy({43: b"\x06\1\1" + MENU[3:]}), BROKEN),
    ("uefi", "lacks bit 1", proxy({43: b"\x06\1\1\x07\4\xe0\0\1\2" + MENU[3:]}), DOUBTFUL),
    ("bios", "43.8 (boot servers) cannot be read", proxy({43: b"\x06\1\3\x08\2\0\1"}), BROKEN),
    ("bios", "43.9 (menu) cannot be read", proxy({43: b"\x06\1\3\x09\4\0\1\x09x"}), BROKEN),
    ("bios", "cut at 70", proxy({43: b"\x06\1\3\x09\x53\x80\0\x50" + b"x" * 80}), NOTED),
    ("bios", "has type 2, for which 43.8 lists no server", proxy({43: MENU[:-1] + b"\x09\4\0\2\1x\xff"}), DOUBTFUL),
    ("uefi", "PXE-E21", proxy({43: b"\x06\1\3\x09\4\0\0\1x\x0a\4\0PXE"}), NOTED),
    ("uboot", "U-Boot takes none", proxy(), BROKEN),
    ("uefi", "an address and PXEClient in one", dhcp_offer({60: b"PXEClient"}), DOUBTFUL),
    ("bios", "through the relay 10.0.0.9", dhcp_offer(giaddr=SERVER), NOTED),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "words", "answer", "severity"), CASES, ids=[f"{c[0]}: {c[1]}" for c in CASES])
def test_a_rule_that_is_broken(kind: str, words: str, answer: Offer, severity: Severity) -> None:
    findings = judge(answer, kind)
    assert [finding.severity for finding in findings if words in finding.what] == [severity], findings
    assert usable(findings) == all(finding.severity is not BROKEN for finding in findings)
    assert all(finding.source for finding in findings)


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("bios", proxy()), ("uefi", proxy()), ("uefi-ia32", proxy()), ("ipxe", proxy()), ("http", http()),
        ("pi", proxy({43: PI_MENU})), ("uefi", proxy({43: MENU}, file=b"")), ("bios", proxy({43: MENU}, file=b"")),
        ("ipxe", proxy({67: b"http://10.0.0.9/boot.ipxe"}, file=b"http://10.0.0.9/boot.ipxe")),
        ("http", http(uri=b"http://10.0.0.9:8067/boot.efi")), ("http", http(uri=b"http://[fe80::1]/boot.efi")),
        *((kind, dhcp_offer()) for kind in FIRMWARE),
        ("uefi", proxy({53: b"\5"}, asked=4011, source_port=4011, port=4011, destination="10.0.0.50", ciaddr=ADDRESS)),
        ("uefi", proxy(seconds=3.5)), ("ipxe", dhcp_offer(seconds=2.5)),
        ("ipxe", dhcp_offer({67: b"undionly.kpxe"}, siaddr=SERVER)),
    ],
)  # fmt: skip
def test_a_good_answer_has_no_findings(kind: str, answer: Offer) -> None:
    assert judge(answer, kind) == ()


def test_the_gravest_comes_first() -> None:
    found = [finding.severity for finding in judge(proxy({66: b"boot.example"}, 54, 43, 97), "uefi")]
    assert found == [BROKEN, DOUBTFUL, NOTED, NOTED]


def test_an_unknown_kind() -> None:
    with pytest.raises(UsageError, match="amiga"):
        judge(proxy(), "amiga")


def test_what_an_answer_is() -> None:
    assert (proxy().is_proxy, proxy().is_dhcp) == (True, False)
    assert (dhcp_offer().is_proxy, dhcp_offer().is_dhcp) == (False, True)
    both = dhcp_offer({60: b"PXEClient\0"})
    assert (both.is_proxy, both.is_dhcp, both.boot_class) == (True, True, b"PXEClient")
    assert (proxy(None, 54).server, proxy({54: SERVER}).server, proxy({67: b"x\0"}).file) == (
        "10.0.0.9",
        "10.0.0.9",
        "x",
    )


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (
            "pixiecore-menu-offer",
            {
                "43.6 discovery control": "03 (no broadcast, no multicast)",
                "43.8 boot servers": "type 32768: 192.168.16.10",
                "43.9 boot menu": "32768 'Pixiecore'", "43.10 menu prompt": "0 (the first item at once) 'Pixiecore'",
                "60 vendor class": "PXEClient", "53 message": "OFFER", "yiaddr": "0.0.0.0",
            },
        ),
        (
            "dhcp-offer-to-ovmf-x64-bz387",
            {"yiaddr": "192.168.122.63", "60 vendor class": "PXEClient", "54 server identifier": "192.168.122.250"},
        ),
        (
            "asrock-bios-intel-discover",
            {"93 architecture": "0 BIOS", "57 largest message": "1260 bytes", "53 message": "DISCOVER"},
        ),
    ],
)  # fmt: skip
def test_recorded_packets_in_words(name: str, shown: dict[str, str]) -> None:
    found = dict(fields(decode(recorded(name))))
    assert {key: found.get(key) for key in shown} == shown


def test_ipxe_options_in_words() -> None:
    found = dict(fields(proxy({175: b"\1\1\5\xb0\1\1"}).packet))
    assert (found["175.1 priority"], found["175.176 no-pxedhcp"]) == ("05", "01")


@given(data=st.binary(max_size=500), kind=st.sampled_from(list(FIRMWARE)), option=st.binary(max_size=60))
def test_any_bytes_are_judged_and_shown(data: bytes, kind: str, option: bytes) -> None:
    answer = proxy({43: option, 67: option, 54: option[:5], 66: option[5:20], 93: option, 175: option})
    assert judge(answer, kind) is not None
    assert list(fields(answer.packet))
    assert raw_options(data) is not None
    try:
        packet = decode(answer.data[:240] + data)
    except WireError:
        return
    odd = Offer(packet, answer.data[:240] + data, "10.0.0.9", answer.source_mac, 67, "255.255.255.255", 68, 0.0)
    assert judge(odd, kind) is not None
    assert list(fields(packet))
