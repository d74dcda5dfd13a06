"""How far a boot came, why it stopped, and what to do: read out of the steps of a session. Pure.

One rule: the first row of the table that fits is the result, so a row may rely on those above it having failed. A
session may hold several attempts (a device that starts again at once); the last one counts.

What clients do next, and the PXE-Exx codes that they show when it does not happen, is from the PXE 2.1 timers and
codes as EDK2, iPXE and vendors' lists have them (Broadcom KB 152549 for the codes).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from pbserv.journal.progress import Progress, last_attempt
from pbserv.journal.steps import Line


class Result(NamedTuple):
    """``word`` says how far it came, ``why`` what is known about the reason, ``todo`` what an administrator can do."""

    word: str
    why: str = ""
    todo: str = ""


Row = tuple[Callable[[Progress], bool], Callable[[Progress], Result]]

_NEXT_STRATEGY: Final = "set another strategy for this device (StrategyTable in proxydhcp.conf)"
_PORTS: Final = {"binl": "UDP 4011", "hybrid": "UDP 4011", "discovery": "UDP 4011", "menu": "UDP 4011",
                 "two-item": "UDP 4011", "http": "the HTTP port", "local": ""}  # fmt: skip

REFUSALS: Final[dict[str, tuple[str, str]]] = {
    "u_boot": (
        "the device's firmware ignores proxies (U-Boot)",
        "set next-server (siaddr) and filename on the DHCP server for it",
    ),
    "not_pxe": ("it is no PXE client: its vendor class is not PXEClient or HTTPClient", ""),
    "no_arch": ("it does not say its architecture (option 93)", "name its boot file on the DHCP server"),
    "arch_not_served": ("no boot file is set for its architecture", "set its NBP key in proxydhcp.conf"),
    "ordinary_request_on_67": ("it only talked to its DHCP server; no DISCOVER of it came here", ""),
    "message_not_for_proxy": ("it only talked to its DHCP server; no DISCOVER of it came here", ""),
    "boot_item_not_ours": ("it asks for a menu entry of another server", "look for another PXE server: pbserv doctor"),
    "boot_item_wants_credentials": ("it asks for signed boot files (BIS)", "turn BIS off in its firmware"),
    "http_needs_no_boot_server": ("an HTTP boot client asked port 4011", ""),
    "wrong_server": ("it has chosen another server", "look for another PXE server: pbserv doctor"),
    "other_interface": ("it was heard on an interface that is not served", "see LocalInterface in proxydhcp.conf"),
    "no_local_address": ("the interface on which it was heard has no address", "give the interface an IPv4 address"),
    "bad_return_address": ("its packets name an address to which no reply can go", "look at the relay agent"),
    "reply_too_long": ("the reply does not fit what the client takes", "use a shorter file name or fewer menu entries"),
    "bad_packet": ("its packets are broken", "pbserv journal MAC --pcap FILE has them"),
    "no_local_boot_answer": ("it is to boot from its local disk, and does so when nobody answers", ""),
    "loop": ("it fetched the same loader again and again", "the loader leads to nothing: try another one"),
    "standby": ("this server is the standby: it answers only clients that nobody else has served (MinimumSecs)", ""),
    "too_many": ("too many requests came", "see RequestsPerDevice and RequestsPerInterface in proxydhcp.conf"),
    "policy_late": (
        "the server that decides about it did not answer in time",
        "see PrebootServer or PolicyHook in preboot-policy.conf, and the log of the policy service",
    ),
    "too_many_wait": ("too many devices wait for the server that decides about them", "look at that server"),
    "repeated": ("it repeated a packet that was answered already", ""),
}  # fmt: skip

"""Why a packet was not answered, by the word of its reason: what it means, and what to do."""


def result_of(lines: Sequence[Line]) -> Result:
    """The result of a session, or of what has happened of it so far."""
    seen = last_attempt(lines)
    return next(tell(seen) for fits, tell in _TABLE if fits(seen))


def _imaging_over(seen: Progress) -> Result:
    why = seen.job
    state = seen.job_state
    if state == "done":
        return Result("imaging done", why)
    return Result(f"imaging {state}", why, "the job's log has the details: pbserv device show MAC --json")


def _left_alone(seen: Progress) -> Result:
    reason = seen.silence
    if "denied" in reason:
        return Result("denied", reason, "pbserv device accept MAC")
    if "pending" in reason:
        return Result("pending", "the device is new and was not accepted yet", "pbserv device accept MAC")
    return Result("left alone", reason, "ZoneDefault in preboot-policy.conf says what known devices get")


_SCRIPTS: Final = {
    "local": Result("booted from its local disk"),
    "loader": Result("booted from its local disk"),
    "menu": Result("boot menu shown"),
}


def _script_asked(seen: Progress) -> Result:
    known = _SCRIPTS.get(seen.script_verdict)
    if known is not None:
        return known._replace(why=seen.script_reason)
    return Result(
        "boot script given", f"{seen.script_reason}; what it is to load was not fetched yet",
        "if it stays so: can the device reach the HTTP port? Its screen shows what iPXE says",
    )  # fmt: skip


def _loops(seen: Progress) -> Result:
    name, times = max(seen.times.items(), key=lambda found: found[1])
    return Result(
        "fetches its loader again and again", f"{name} was sent {times} times and leads nowhere",
        "try another loader for this device: snponly.efi and ipxe.efi each fail on some machines",
    )  # fmt: skip


def _loop_broken(seen: Progress) -> Result:
    return Result("sent to its local disk after a loop", seen.loop, "try another loader for this device, or repair it")


def _script_only(seen: Progress) -> Result:
    return Result(
        "first boot script fetched, its own not asked", f"{seen.first_script} was sent, and nothing came after it",
        "the device must reach the HTTP port; iPXE's screen shows the address that it tries",
    )  # fmt: skip


def _loader_only(seen: Progress) -> Result:
    """ipxe.efi brings its own drivers, snponly.efi uses the firmware's: each fails on machines that the other boots."""
    word = "loader fetched, no boot script asked"
    if seen.ipxe_offers:
        return Result(
            word, f"{seen.sent[0]} runs and was offered {seen.ipxe_file}, but did not ask for it",
            "iPXE's screen shows the error; the device must reach UDP 69 and the HTTP port",
        )  # fmt: skip
    if len(set(seen.sent)) > 1:
        return Result("boot files fetched", f"{len(seen.sent)} files, the last one {seen.sent[-1]}")
    return Result(
        word, f"{seen.sent[0]} was sent, and nothing came after it",
        "Secure Boot refuses unsigned loaders; else the loader has no driver for the network card: try the other one"
        " (snponly.efi, ipxe.efi)",
    )  # fmt: skip


def _loader_failed(seen: Progress) -> Result:
    name, outcome = seen.failed_file
    if outcome == "missing":
        return Result(
            "boot file missing", f"{name} is not in TFTPDirectory", "pbserv loaders install, or correct the name"
        )
    if outcome.startswith("refused"):
        return Result("boot file refused", f"{name}: {outcome}", "see TFTPLogFile for the reason")
    return Result(
        "loader not fetched", f"{name}: {outcome}",
        "TFTP answers from another port: a firewall must let it pass (PXE-E32); a small block size helps lossy links",
    )  # fmt: skip


def _acknowledged(seen: Progress) -> Result:
    return Result(
        "stopped after the acknowledgement",
        f"{seen.file or 'its boot file'} was named on port 4011, but no request for it came",
        "UDP 69 must reach this host (PXE-E32: TFTP open timeout)",
    )  # fmt: skip


def _boot_server_silent(seen: Progress) -> Result:
    said = _in_words(seen.refusal_4011)
    return Result("not answered on port 4011", f"{said[0]} (PXE-E18, PXE-E55)", said[1])


def _not_sent(seen: Progress) -> Result:
    return Result("reply not sent", seen.send_fault, "see routes and firewall of this host: pbserv doctor")


def _no_address(seen: Progress) -> Result:
    shown = "PXE-E52" if seen.client == "bios" else "PXE-E16"
    return Result(
        "proxy answered, but no DHCP address",
        f"it was offered a boot file and went on asking: no DHCP server gave it an address ({shown})",
        "look at the DHCP server: its range, its relay, the port's VLAN; a switch port may take 30 s to open (STP)",
    )


def _offered(seen: Progress) -> Result:
    shown = {"bios": "PXE-E53", "uefi": "PXE-E16", "http": "no boot file"}.get(seen.client, "")
    why = f"this {seen.client or 'PXE'} client got the strategy {seen.strategy} and asked for nothing"
    why += f" ({shown})" if shown and seen.requests else ""
    why += f"; {seen.tried} has its turn now" if seen.tried and seen.tried != seen.strategy else ""
    expected = _PORTS.get(seen.strategy, "UDP 69")
    todo = f"{expected} must reach this host; another server may have won (pbserv doctor); else {_NEXT_STRATEGY}"
    return Result("stopped after the offer", why, todo)


def _told_to_boot_local(seen: Progress) -> Result:
    return Result("sent to its local disk", seen.reason or seen.refusal[1])


def _not_answered(seen: Progress) -> Result:
    why, todo = _in_words(seen.refusal)
    if seen.repeats and not seen.requests and seen.discovers:
        why += "; nor did a DHCP server answer it (PXE-E51, on UEFI PXE-E16)"
    return Result(f"not answered: {seen.refusal[0].replace('_', ' ')}", why, todo)


def _in_words(refusal: tuple[str, str]) -> tuple[str, str]:
    word, said = refusal
    text, todo = REFUSALS.get(word, ("", ""))
    return (f"{text} ({said})" if text and said else text or said or word.replace("_", " ")), todo


def _no_dhcp(_seen: Progress) -> Result:
    return Result(
        "no DHCP server answered", "it asked again and again and never took an address (PXE-E51, on UEFI PXE-E16)",
        "look at the DHCP server: its range, its relay, the port's VLAN",
    )  # fmt: skip


_LOOP: Final = 3  # a loader that was sent so often and led to no boot script
_NO_ANSWER_OF_OURS: Final = ("", "standby", "repeated")

_TABLE: Final[Sequence[Row]] = (
    (lambda seen: bool(seen.job_state) and seen.job_state != "started", _imaging_over),
    (lambda seen: seen.job_state == "started", lambda seen: Result("imaging client started", seen.job)),
    (lambda seen: bool(seen.silence), _left_alone),
    (lambda seen: seen.client_files > 0, lambda seen: Result(
        "imaging client fetched", "it has not asked for its work yet", "its screen says what it waits for",
    )),
    (lambda seen: bool(seen.script_verdict), _script_asked),
    (lambda seen: bool(seen.first_script), _script_only),
    (lambda seen: bool(seen.loop) and not seen.sent, _loop_broken),
    (lambda seen: max(seen.times.values(), default=0) >= _LOOP and seen.strategy != "local", _loops),
    (lambda seen: seen.sent_to_disk, _told_to_boot_local),
    (lambda seen: bool(seen.sent), _loader_only),
    (lambda seen: bool(seen.failed_file[0]), _loader_failed),
    (lambda seen: seen.acknowledged, _acknowledged),
    (lambda seen: bool(seen.refusal_4011[0]), _boot_server_silent),
    (lambda seen: bool(seen.send_fault), _not_sent),
    (lambda seen: seen.offers > 0 and seen.repeats and not seen.requests, _no_address),
    (lambda seen: seen.offers > 0, _offered),
    (lambda seen: seen.repeats and not seen.requests and seen.refusal[0] in _NO_ANSWER_OF_OURS, _no_dhcp),
    (lambda seen: bool(seen.refusal[0]), _not_answered),
    (lambda seen: True, lambda seen: Result("seen", seen.other)),
)  # fmt: skip
