"""The pid file and the signals that rely on it, against real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from pbserv.daemon.pidfile import AlreadyRunningError, PidFile, ServerState, ServerStatus, read_state
from pbserv.daemon.process import signal_server, stop_server
from pbserv.errors import ControlError, PbservError
from tests.daemon.programs import public_directory, python_process, run_python

SERVER = """
    import signal, sys
    from pathlib import Path
    from pbserv.daemon.pidfile import PidFile
    signals = {signal.SIGTERM, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    with PidFile.acquire(Path(sys.argv[1])):
        print("ready", flush=True)
        while (got := signal.sigwait(signals)) == signal.SIGHUP:
            print("reloaded", flush=True)
"""
STUBBORN = """
    import signal, sys
    from pathlib import Path
    from pbserv.daemon.pidfile import PidFile
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with PidFile.acquire(Path(sys.argv[1])):
        print("ready", flush=True)
        while True:
            signal.pause()
"""
ACQUIRE = """
    import sys
    from pathlib import Path
    from pbserv.daemon.pidfile import AlreadyRunningError, PidFile
    try:
        held = PidFile.acquire(Path(sys.argv[1]))
    except AlreadyRunningError as error:
        print(error, error.pid, sep="|")
        raise SystemExit(3)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pbserv.pid"


def test_states_through_a_life(path: Path) -> None:
    assert read_state(path) == ServerState(ServerStatus.STOPPED)
    with python_process(SERVER, path) as server:
        assert read_state(path) == ServerState(ServerStatus.RUNNING, server.pid)
        assert path.stat().st_mode & 0o777 == 0o644
        assert stop_server(path) == server.pid
        assert not path.exists()
    assert read_state(path) == ServerState(ServerStatus.STOPPED)
    assert stop_server(path) is None


def test_second_server_is_told_who_runs(path: Path) -> None:
    with python_process(SERVER, path) as server:
        second = run_python(ACQUIRE, path)
        assert second.returncode == 3
        assert f"process {server.pid} holds {path}" in second.stdout
        assert second.stdout.rstrip().endswith(f"|{server.pid}")


def test_killed_server_leaves_a_file_that_nobody_believes(path: Path) -> None:
    with python_process(SERVER, path) as server:
        server.kill()
        server.wait()
        assert read_state(path) == ServerState(ServerStatus.DEAD, server.pid)
        assert stop_server(path) is None
    with python_process(SERVER, path) as server:
        assert read_state(path) == ServerState(ServerStatus.RUNNING, server.pid)


def test_file_with_the_id_of_a_living_stranger_is_dead(path: Path) -> None:
    path.write_text(f"{os.getppid()}\n")
    assert read_state(path) == ServerState(ServerStatus.DEAD, os.getppid())
    with PidFile.acquire(path):
        assert read_state(path).pid == os.getpid()


def test_longer_old_content_does_not_show_through(path: Path) -> None:
    path.write_text("4194304999999\nrubbish\n")
    with PidFile.acquire(path):
        assert path.read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("content", ["", "rubbish\n", "-4\n", "0\n", "\udcff"])
def test_unreadable_stale_content(path: Path, content: str) -> None:
    path.write_text(content, errors="surrogateescape")
    assert read_state(path) == ServerState(ServerStatus.DEAD)
    PidFile.acquire(path).release()
    assert not path.exists()


def test_named_process_must_be_the_one_that_holds_the_lock(path: Path) -> None:
    """The service user can write into the run directory; root must not be led to signal another process."""
    with python_process(SERVER, path):
        path.write_text(f"{os.getppid()}\n")
        state = read_state(path)
        assert state.status is ServerStatus.UNKNOWN
        with pytest.raises(ControlError, match="not by the process"):
            stop_server(path)


def test_links_and_other_things_are_refused(path: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path.symlink_to(victim)
    assert read_state(path).status is ServerStatus.UNKNOWN
    with pytest.raises(PbservError, match="pid file cannot be written"):
        PidFile.acquire(path)
    path.unlink()
    os.link(victim, path)
    PidFile.acquire(path).release()
    assert victim.read_text() == "precious"
    path.mkdir()
    assert read_state(path).status is ServerStatus.UNKNOWN
    with pytest.raises(PbservError):
        PidFile.acquire(path)


def test_missing_directory(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "pbserv.pid"
    assert read_state(path).status is ServerStatus.STOPPED
    with pytest.raises(PbservError, match="No such file"):
        PidFile.acquire(path)


def test_release_twice_and_after_removal(path: Path) -> None:
    held = PidFile.acquire(path)
    path.unlink()
    path.write_text("not ours")
    held.release()
    held.release()
    assert path.read_text() == "not ours"


def test_forked_child_does_not_remove_the_file(path: Path) -> None:
    with PidFile.acquire(path) as held:
        child = os.fork()
        if child == 0:
            held.release()
            os._exit(0)
        os.waitpid(child, 0)
        assert read_state(path).pid == os.getpid()


def test_readers_never_stop_a_server_from_starting(path: Path) -> None:
    over = threading.Event()

    def read_all_the_time() -> None:
        while not over.is_set():
            read_state(path)

    readers = [threading.Thread(target=read_all_the_time) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(100):
            with PidFile.acquire(path):
                assert read_state(path).running
    finally:
        over.set()
        for reader in readers:
            reader.join()


def test_only_one_of_many_gets_it(path: Path) -> None:
    program = """
        import sys
        from pathlib import Path
        from pbserv.daemon.pidfile import AlreadyRunningError, PidFile
        won = 0
        for _ in range(200):
            try:
                with PidFile.acquire(Path(sys.argv[1])):
                    marker = open(sys.argv[1] + ".inside", "x")
                    marker.close()
                    Path(marker.name).unlink()
                    won += 1
            except AlreadyRunningError:
                pass
        print(won)
    """
    threads = []
    results: list[subprocess.CompletedProcess[str]] = []
    for _ in range(3):
        threads.append(threading.Thread(target=lambda: results.append(run_python(program, path))))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert [result.returncode for result in results] == [0, 0, 0], results
    assert all(int(result.stdout) > 0 for result in results)
    assert not path.exists()


def test_reload_signal_arrives(path: Path) -> None:
    with python_process(SERVER, path) as server:
        assert signal_server(path, signal.SIGHUP) == server.pid
        assert server.stdout is not None
        assert server.stdout.readline() == "reloaded\n"
        stop_server(path)
    with pytest.raises(ControlError, match="pbserv is not running"):
        signal_server(path, signal.SIGHUP)


def test_server_that_does_not_end(path: Path) -> None:
    with python_process(STUBBORN, path) as server:
        with pytest.raises(ControlError, match=r"did not end within 0\.1 s"):
            stop_server(path, 0.1)
        assert stop_server(path, 0.1, kill=True) == server.pid
        assert server.wait() == -signal.SIGKILL
    assert read_state(path).status is ServerStatus.DEAD


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_other_users_file_and_process() -> None:
    program = """
        import os, pwd, sys
        from pathlib import Path
        from pbserv.daemon.pidfile import PidFile, read_state
        from pbserv.daemon.process import stop_server
        from pbserv.errors import ControlError
        folder = Path(sys.argv[1]); nobody = pwd.getpwnam("nobody")
        stale = folder / "own" / "pbserv.pid"; stale.parent.mkdir(); stale.write_text("1\\n")
        os.chown(stale.parent, nobody.pw_uid, nobody.pw_gid)
        closed = folder / "closed"; closed.mkdir(mode=0o700)
        held = PidFile.acquire(folder / "held.pid")
        child = os.fork()
        if child:
            raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        os.setresuid(nobody.pw_uid, nobody.pw_uid, nobody.pw_uid)
        with PidFile.acquire(stale):
            assert read_state(stale).pid == os.getpid()
        state = read_state(closed / "pbserv.pid")
        assert state.status == 4 and "Permission denied" in state.reason, state
        try:
            stop_server(folder / "held.pid")
        except ControlError as error:
            assert "run this command as root or as the service user" in str(error), error
            os._exit(0)
        os._exit(1)
    """
    with public_directory() as folder:
        result = run_python(program, folder)
    assert result.returncode == 0, result.stderr


def test_already_running_is_a_start_error() -> None:
    assert issubclass(AlreadyRunningError, PbservError)
