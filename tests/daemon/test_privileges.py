"""What a process may do after it has given up its rights, tried out in processes of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pbserv.daemon.privileges import KEPT_CAPABILITIES, can_bind, capabilities, find_account, require_root
from pbserv.errors import PbservError
from tests.daemon.programs import public_directory, report_of, run_python

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root rights to give up")
KEPT_MASK = sum(1 << number for number in KEPT_CAPABILITIES)

TRIES = """
import json, os, socket, subprocess, sys
from pbserv.daemon.privileges import can_bind, drop_privileges

def attempt(action):
    try:
        action()
        return "done"
    except PermissionError as error:
        return "denied"

def bind(port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.77", port))

def raw():
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()

def status(lines):
    fields = dict(line.split(":", 1) for line in lines)
    return {key: fields[key].strip() for key in fields if key.startswith("Cap") or key in ("NoNewPrivs", "Groups")}

account = drop_privileges(sys.argv[1])
child = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True)
print(json.dumps(dict(
    account=[account.name, account.uid, account.gid],
    own=status(open("/proc/self/status")),
    child=status(child.stdout.splitlines()),
    uids=os.getresuid(), gids=os.getresgid(),
    bind=attempt(lambda: bind(69)), rebind=attempt(lambda: bind(68)), can_bind=can_bind(69), raw=attempt(raw),
    read=attempt(lambda: open(sys.argv[2]).close()),
    setuid=attempt(lambda: os.setresuid(0, 0, 0)), setgid=attempt(lambda: os.setresgid(0, 0, 0)),
    setgroups=attempt(lambda: os.setgroups([0])), chown=attempt(lambda: os.chown(sys.argv[2], 12345, 12345)),
    chroot=attempt(lambda: os.chroot("/")), kill=attempt(lambda: os.kill(os.getppid(), 0)),
)))
"""


def tried(user: str, owner: int = 0) -> dict[str, object]:
    with public_directory() as folder:
        secret = folder / "secret"
        secret.write_text("for root only")
        secret.chmod(0o600)
        os.chown(secret, owner, owner)
        return report_of(TRIES, user, secret)


@pytest.mark.root
@needs_root
def test_service_user_keeps_two_rights_and_nothing_else() -> None:
    account = find_account("nobody")
    facts = tried("nobody")
    assert facts["account"] == ["nobody", account.uid, account.gid]
    assert facts["uids"] == [account.uid] * 3
    assert facts["gids"] == [account.gid] * 3
    own = facts["own"]
    assert isinstance(own, dict)
    masks = {key: int(value, 16) for key, value in own.items() if key.startswith("Cap")}
    assert masks == {"CapInh": 0, "CapPrm": KEPT_MASK, "CapEff": KEPT_MASK, "CapBnd": KEPT_MASK, "CapAmb": 0}
    assert own["NoNewPrivs"] == "1"
    assert own["Groups"].split() == [str(account.gid)]
    allowed = {key for key, value in facts.items() if value == "done"}
    assert allowed == {"bind", "rebind", "raw"}
    assert facts["can_bind"] is True


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("user", ["nobody", "root"])
def test_programs_that_it_starts_get_nothing(user: str) -> None:
    child = tried(user)["child"]
    assert isinstance(child, dict)
    assert [int(child[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [0, 0, 0, 0]
    assert int(child["CapBnd"], 16) == KEPT_MASK


@pytest.mark.root
@needs_root
def test_root_as_service_user_loses_the_rights_of_root() -> None:
    facts = tried("root", owner=12)
    assert facts["uids"] == [0, 0, 0]
    own = facts["own"]
    assert isinstance(own, dict)
    assert int(own["CapEff"], 16) == int(own["CapPrm"], 16) == KEPT_MASK
    assert (facts["bind"], facts["raw"]) == ("done", "done")
    assert [facts[key] for key in ("read", "setgroups", "chown", "chroot")] == ["denied"] * 4


@pytest.mark.root
@needs_root
def test_already_unprivileged_keeps_what_systemd_gave() -> None:
    """As systemd starts us: another user, ambient capabilities (here some too many). A second call changes nothing."""
    program = """
        import json, subprocess, sys, textwrap
        inner = '''
        import json, os
        from pbserv.daemon.privileges import capabilities, drop_privileges
        first = drop_privileges("this-user-is-not-asked-for")
        assert drop_privileges("x") == first
        print(json.dumps([first.uid, sorted(capabilities().effective), sorted(capabilities().inheritable)]))
        '''
        # dac_override is a surplus right, and lets that user run an interpreter that lies in root's home.
        caps = "+net_bind_service,+net_raw,+dac_override"
        command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps", caps]
        command += ["--ambient-caps", caps, sys.executable, "-c", textwrap.dedent(inner)]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        print(json.dumps({"result": json.loads(result.stdout)}))
    """
    assert report_of(program)["result"] == [65534, [10, 13], []]


def test_without_root_the_user_stays() -> None:
    program = """
        import json, os, sys
        from pbserv.daemon.privileges import capabilities, drop_privileges
        if os.geteuid() == 0:
            os.setresuid(65534, 65534, 65534)
        account = drop_privileges("root")
        held = sorted(capabilities().permitted)
        print(json.dumps({"uid": account.uid, "same": account.uid == os.getuid(), "held": held}))
    """
    facts = report_of(program)
    assert facts["same"] is True
    assert facts["uid"] != 0
    assert facts["held"] == []


@pytest.mark.root
@needs_root
def test_threads_would_keep_their_rights() -> None:
    program = """
        import threading
        from pbserv.daemon.privileges import drop_privileges
        over = threading.Event()
        threading.Thread(target=over.wait).start()
        try:
            drop_privileges("nobody")
        except RuntimeError as error:
            print(error)
        finally:
            over.set()
    """
    assert "before threads are started" in run_python(program).stdout


@pytest.mark.root
@needs_root
def test_missing_capability_is_not_invented() -> None:
    """A container may not give CAP_NET_RAW; then we keep the other one."""
    program = """
        import json, subprocess, sys
        inner = "from pbserv.daemon.privileges import *; drop_privileges('nobody'); print(capabilities().permitted)"
        command = ["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw", sys.executable, "-c", inner]
        result = subprocess.run(command, capture_output=True, text=True)
        print(json.dumps({"out": result.stdout, "err": result.stderr}))
    """
    assert report_of(program) == {"out": "frozenset({10})\n", "err": ""}


@pytest.mark.parametrize("name", ["pbserv-no-such-user", "", "a\0b"])
def test_unknown_user(name: str) -> None:
    with pytest.raises(PbservError, match="`pbserv install` creates it"):
        find_account(name)


def test_what_the_kernel_says_is_what_we_read() -> None:
    fields = dict(line.split(":", 1) for line in Path("/proc/thread-self/status").read_text().splitlines())
    held = capabilities()
    for key, numbers in (("CapEff", held.effective), ("CapPrm", held.permitted), ("CapInh", held.inheritable)):
        assert sum(1 << number for number in numbers) == int(fields[key], 16)


def test_high_ports_are_free_for_all() -> None:
    assert can_bind(0)
    assert can_bind(8067)


def test_require_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PbservError, match="pbserv install needs root rights: run it as root or with sudo"):
        require_root("pbserv install")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    require_root("pbserv install")
