"""How far a boot came and why it stopped, from realistic steps of each kind of client."""

from __future__ import annotations

import re

import pytest

from pbserv.journal.result import REFUSALS, result_of
from pbserv.journal.steps import DhcpStep, Step
from pbserv.proxydhcp.outcome import Reason
from tests.journal.samples import RECORDED, acknowledged, dhcp_request, event, lines, offered, refused

Steps = tuple[DhcpStep | Step, ...]
DECIDED = event("asked by dhcp", "local: nothing assigned; ZoneDefault = local")
LOADER = event("tftp", "snponly.efi: completed, 268288 bytes", 3)
UEFI_TO_LOADER: Steps = (DECIDED, offered(), dhcp_request(1), acknowledged(2), LOADER)
IPXE: Steps = (offered(5, "ipxe", "boot.ipxe", ipxe=True), dhcp_request(5.1, ipxe=True))
SCRIPT = event("tftp", "boot.ipxe: completed, 300 bytes", 6)
WORK: Steps = (*UEFI_TO_LOADER, *IPXE, SCRIPT, event("asked by http", "boot: work 1: restore debian", 6.5))
FETCHED: Steps = (event("http", "vmlinuz: completed, 9000000 bytes", 7), event("http", "initrd.img", 8))
STARTED = event("job", "1: restore debian started", 20)

CASES: dict[str, tuple[Steps, str, str, str]] = {
    "uefi never asks 4011": (
        (DECIDED, offered(), dhcp_request(4)), "stopped after the offer", "hybrid .*PXE-E16", "UDP 4011",
    ),
    "bios never asks tftp": (
        (DECIDED, offered(strategy="direct", file="undionly.kpxe", arch=0), dhcp_request(4, arch=0)),
        "stopped after the offer", "bios client got the strategy direct .*PXE-E53", "UDP 69 .*StrategyTable",
    ),
    "http boot never fetches": (
        (offered(strategy="http", file="http://10.0.0.1:8067/files/x.efi", arch=16), dhcp_request(1, arch=16)),
        "stopped after the offer", "http client", "the HTTP port",
    ),
    "only our offer": (
        (offered(strategy="direct", arch=0), *(offered(at, "direct", arch=0, secs=at) for at in (4, 12))),
        "proxy answered, but no DHCP address", "PXE-E52", "DHCP server",
    ),
    "only our offer, uefi": ((offered(), offered(4, secs=4)), "proxy answered, but no DHCP address", "PXE-E16", "DHCP"),
    "nobody answers": (
        (refused("standby", "secs 0 is below MinimumSecs = 8"), refused("standby", "", 4, secs=4)),
        "no DHCP server answered", "PXE-E51", "DHCP server",
    ),
    "no boot file for it": (
        (refused("arch_not_served", "no boot file for UEFI ARM64"),),
        "not answered: arch not served", "no boot file for UEFI ARM64", "NBP",
    ),
    "no boot file and no DHCP": (
        (refused("arch_not_served", "x"), refused("arch_not_served", "x", 4, secs=4)),
        "not answered: arch not served", "nor did a DHCP server", "NBP",
    ),
    "u-boot": ((refused("u_boot", "U-Boot.armv8"),), "not answered: u boot", "ignores proxies", "DHCP server"),
    "a reason that has no words yet": ((refused("too_hot", "it burns"),), "not answered: too hot", "it burns", "^$"),
    "pending": (
        (event("registered", "pending by dhcp"), event("asked by dhcp", "silent: device is pending; accept it with: x"),
         refused("policy_silent", "device is pending; accept it with: x")),
        "pending", "not accepted yet", "pbserv device accept MAC",
    ),
    "denied": (
        (event("asked by dhcp", "silent: device is denied"), refused("policy_silent", "device is denied")),
        "denied", "denied", "pbserv device accept MAC",
    ),
    "denied over tftp only": ((event("tftp", "snponly.efi: refused, device is denied"),), "denied", "denied", "accept"),
    "left to other servers": (
        (event("asked by dhcp", "silent: nothing assigned; ZoneDefault = silent"),),
        "left alone", "ZoneDefault = silent", "ZoneDefault",
    ),
    "4011 is not answered": (
        (offered(), dhcp_request(1), refused("boot_item_not_ours", "type 9 layer 0", 2, port=4011)),
        "not answered on port 4011", "menu entry of another server .*PXE-E55", "doctor",
    ),
    "ack, and no tftp": (UEFI_TO_LOADER[:4], "stopped after the acknowledgement", "snponly.efi was named", "PXE-E32"),
    "the kernel does not send": (
        (refused("not sent", "the kernel refused"),), "reply not sent", "the kernel refused", "firewall",
    ),
    "file missing": (
        (offered(), acknowledged(1), event("tftp", "snponly.efi: missing, 0 bytes", 2)),
        "boot file missing", "snponly.efi is not in", "pbserv loaders install",
    ),
    "transfer breaks off": (
        (offered(), acknowledged(1), event("tftp", "snponly.efi: no answer, 268288 bytes", 2)),
        "loader not fetched", "no answer", "firewall",
    ),
    "a size probe is nothing": (
        (offered(), acknowledged(1), event("tftp", "snponly.efi: size probe, 268288 bytes", 2)),
        "stopped after the acknowledgement", "no request for it came", "",
    ),
    "loader runs and stops": (
        UEFI_TO_LOADER, "loader fetched, no boot script asked", "nothing came after", "Secure Boot",
    ),
    "iPXE runs and does not ask": (
        (*UEFI_TO_LOADER, *IPXE), "loader fetched, no boot script asked", "offered boot.ipxe, but did not", "HTTP port",
    ),
    "its own script is not asked": (
        (*UEFI_TO_LOADER, *IPXE, SCRIPT), "first boot script fetched", "boot.ipxe was sent", "HTTP port",
    ),
    "an iPXE ROM that fetched the first script": (
        (*IPXE, SCRIPT), "first boot script fetched", "boot.ipxe was sent", "HTTP port",
    ),
    "an iPXE ROM that starts again": ((*IPXE, SCRIPT, *IPXE), "first boot script fetched", "", ""),
    "an iPXE ROM boots its disk and starts again": (
        (*IPXE, SCRIPT, event("asked by http", "local: x", 7), *IPXE), "stopped after the offer", "ipxe client", "",
    ),
    "a loop that was broken": (
        (*UEFI_TO_LOADER, *UEFI_TO_LOADER, event("loop", "snponly.efi was fetched 2 times"), DECIDED,
         offered(60, "local", "")),
        "sent to its local disk after a loop", "snponly.efi was fetched 2 times", "another loader",
    ),
    "another strategy is tried": (
        (offered(), dhcp_request(1), event("next strategy", "binl: it stopped", 30)),
        "stopped after the offer", "; binl has its turn now", "",
    ),
    "pxelinux": (
        (offered(arch=0, strategy="direct", file="pxelinux.0"), event("tftp", "pxelinux.0: completed, 42000 bytes"),
         event("tftp", "ldlinux.c32: completed, 120000 bytes"), event("tftp", "pxelinux.cfg/01-x: missing, 0 bytes")),
        "boot files fetched", "2 files, the last one ldlinux.c32", "",
    ),
    "local disk by script": (
        (*UEFI_TO_LOADER, *IPXE, SCRIPT, event("asked by http", "local: nothing assigned; ZoneDefault = local", 7)),
        "booted from its local disk", "nothing assigned", "^$",
    ),
    "local disk by menu": (
        (DECIDED, offered(strategy="local", file="")), "sent to its local disk", "nothing assigned", "^$",
    ),
    "local disk by silence": (
        (DECIDED, refused("no_local_boot_answer", "a raspberrypi boots by itself when nobody answers")),
        "sent to its local disk", "by itself", "^$",
    ),
    "local disk by an absent file": (
        (DECIDED, offered(strategy="direct", file="local-disk"), event("tftp", "local-disk: missing, 0 bytes", 1)),
        "sent to its local disk", "", "^$",
    ),
    "menu": (
        (*UEFI_TO_LOADER, *IPXE, event("asked by http", "menu: ZoneDefault = menu", 7)), "boot menu shown", "menu", "",
    ),
    "work given": (WORK, "boot script given", "work 1: restore debian", "HTTP port"),
    "imaging client fetched": ((*WORK, *FETCHED), "imaging client fetched", "", ""),
    "imaging client started": ((*WORK, *FETCHED, STARTED), "imaging client started", "1: restore debian", "^$"),
    "imaging done": (
        (*WORK, *FETCHED, STARTED, event("job", "1: restore debian done: ok", 900)), "imaging done", "debian", "^$",
    ),
    "imaging failed": (
        (*WORK, *FETCHED, STARTED, event("job", "1: restore debian failed: disk too small", 60)),
        "imaging failed", "disk too small", "device show",
    ),
    "after imaging it boots its disk": (
        (*WORK, *FETCHED, STARTED, event("job", "1: restore debian done: ok", 90),
         event("asked by dhcp", "local: nothing assigned", 120), offered(120, "local", "")),
        "sent to its local disk", "nothing assigned", "^$",
    ),
    "the second attempt counts": (
        (*UEFI_TO_LOADER, DECIDED, offered(60), dhcp_request(61)), "stopped after the offer", "", "",
    ),
    "the same loader again and again": (
        (*UEFI_TO_LOADER, *UEFI_TO_LOADER, *UEFI_TO_LOADER),
        "fetches its loader again and again", "snponly.efi was sent 3 times", "ipxe.efi",
    ),
    "a retry after an answer is no refusal": ((offered(), refused("repeated", "")), "stopped after the offer", "", ""),
    "accepted": ((event("registered", "known by http"),), "seen", "registered known by http", "^$"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_result(name: str) -> None:
    steps, word, why, todo = CASES[name]
    result = result_of(lines(*steps))
    assert result.word.startswith(word), result
    for pattern, text in ((why, result.why), (todo, result.todo)):
        assert re.search(pattern, text), result


def test_a_recorded_boot_that_nobody_answered_on_4011() -> None:
    """BZ-387: OVMF takes the DHCP server's offer with option 60 for a boot server's and asks 4011 four times."""
    data = [data for name, data in RECORDED.items() if name.endswith("bz387") and "4011" in name]
    assert data
    silent = [
        refused("wrong_server", "asked 192.168.122.1", 5 + n, port=4011)._replace(data=d) for n, d in enumerate(data)
    ]
    discover = offered()._replace(data=RECORDED[next(n for n in RECORDED if n.endswith("discover-bz387"))])
    result = result_of(lines(discover, *silent))
    assert result.word == "not answered on port 4011"
    assert "has chosen another server" in result.why


def test_no_steps_are_no_fault() -> None:
    assert result_of([]).word == "seen"


def test_bytes_that_are_not_kept_change_no_result() -> None:
    for steps, word, *_ in CASES.values():
        assert result_of(lines(*steps, packets=0)).word.startswith(word)


def test_every_reason_not_to_answer_has_words() -> None:
    reasons = {reason.value for reason in Reason}
    assert set(REFUSALS) <= reasons, "words for reasons that do not exist"
    for reason in reasons:
        result = result_of(lines(refused(reason, "so it says")))
        assert "so it says" in result.why or result.word in ("pending", "denied"), (reason, result)
