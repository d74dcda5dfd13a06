"""`pbserv probe`, as a program: what it says when it cannot, and that it needs no more than one capability."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.support.process import PBSERV


def probe(*words: str, prefix: tuple[str, ...] = ()) -> tuple[int, str]:
    done = subprocess.run([*prefix, str(PBSERV), "probe", *words], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("eth0", "--as", "amiga"), 2, "uefi-arm64"),
        (("eth0", "--mac", "12"), 2, "--mac '12' is not a MAC address; write it as aa:bb:cc:dd:ee:ff"),
        (("eth0", "--mac", "ff:ff:ff:ff:ff:ff"), 2, "names no single machine"),
        (("eth0", "--as", "all", "--mac", "02:00:00:00:00:01"), 2, "cannot be several machines"),
        (("eth0", "--wait", "0"), 2, "more than 0 and at most 120"),
        (("nosuch0",), 1, "nosuch0: no such interface; this host has: "),
        (("lo",), 1, "lo: the loopback interface leads to no wire"),
    ],
)
def test_what_it_says_when_it_cannot(words: tuple[str, ...], code: int, message: str) -> None:
    found, said = probe(*words)
    assert (found, message in " ".join(said.split())) == (code, True), said


@pytest.mark.root
def test_it_says_what_right_is_missing() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root rights to give rights up")
    assert shutil.which("setpriv")
    alone = (
        "unshare",
        "--net",
        "sh",
        "-c",
        'ip link add e0 type veth peer name e1 && ip link set e0 up && ip link set e1 up && exec "$@"',
        "sh",
    )
    code, said = probe("e0", prefix=(*alone, "setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"))
    assert (code, "e0: to hear and send whole frames needs root or CAP_NET_RAW" in said) == (1, True), said
    code, said = probe(prefix=(*alone,))
    assert (code, "no interface is up and has an IPv4 address" in said) == (1, True), said
