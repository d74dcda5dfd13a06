"""Start, second start, stop, stale pid files, reloads: the real program as an administrator uses it."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.support.process import Installed, command, free_port
from tests.web import test_jobs as jobs


def until(condition, seconds: float = 30.0) -> None:  # type: ignore[no-untyped-def]
    """Wait for a condition that another process brings about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.02)


def fetch(address: str, port: int, name: str) -> bytes:
    """The first DATA block of a file over TFTP, or the ERROR packet."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.sendto(b"\0\1" + name.encode() + b"\0octet\0", (address, port))
        data, peer = client.recvfrom(2048)
        client.sendto(b"\0\4\0\1", peer)
        return data[4:]


def test_start_status_and_stop(server: Installed) -> None:
    started = server.call("start")
    assert started.returncode == 0, started.stderr
    assert "administrator's token" in started.stdout
    status = server.call("status")
    assert status.returncode == 0
    for title in ("imaging", "preboot policy", "TFTP", "proxyDHCP"):
        assert f"pbserv {title} service running" in status.stdout
    assert f"udp 127.0.0.1:{server.tftp_port}" in status.stdout
    assert "up " in status.stdout
    pid = server.pid
    assert str(pid) in server.ok("stop")
    assert not Path(f"/proc/{pid}").exists() or _is_zombie(pid)
    stopped = server.call("status")
    assert stopped.returncode == 3
    assert "pbserv TFTP service not running" in stopped.stdout
    assert server.call("showpid").returncode == 3
    assert "not running" in server.ok("stop")


def _is_zombie(pid: int) -> bool:
    return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()


def test_the_token_is_printed_once(server: Installed) -> None:
    assert "administrator's token" in server.ok("start")
    assert "administrator's token" not in server.ok("restart")
    assert (server.state / "admin.token").stat().st_mode & 0o777 == 0o600
    assert server.token.encode() not in (server.state / "registry.db").read_bytes()


def test_a_second_start_says_that_it_runs_already(server: Installed) -> None:
    server.ok("start")
    pid = server.pid
    assert f"running already, process {pid}" in server.ok("start")
    assert server.pid == pid


def test_a_killed_server_leaves_a_pid_file_that_is_not_believed(server: Installed) -> None:
    server.ok("start")
    pid = server.pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: server.call("status").returncode == 1)
    assert "dead" in server.call("status").stderr
    server.ok("start")
    assert server.pid != pid
    assert server.call("status").returncode == 0


def test_one_service_that_cannot_start_does_not_stop_the_others(server: Installed) -> None:
    server.tftp.rmdir()
    started = server.call("start")
    assert started.returncode == 1
    assert f"tftp: not started: TFTPDirectory {server.tftp} does not exist" in started.stdout + started.stderr
    status = server.call("status")
    assert status.returncode == 3
    assert "pbserv TFTP service not running" in status.stdout
    assert "pbserv imaging service running" in status.stdout
    assert server.call("status", "policy").returncode == 0
    server.tftp.mkdir()
    server.ok("start", "tftp")
    assert server.call("status").returncode == 0


def test_an_address_that_is_not_on_the_host_fails_the_start_of_its_service_alone(server: Installed) -> None:
    server.set("tftp.conf", TFTPInterface="192.0.2.1")
    assert server.call("check").returncode == 0
    started = server.call("start")
    assert started.returncode == 1
    assert "192.0.2.1" in started.stdout + started.stderr
    assert server.call("status", "imaging", "policy", "proxydhcp").returncode == 0


def test_services_start_and_stop_one_by_one(server: Installed) -> None:
    server.set("pbserv.conf", Services="imaging tftp policy")
    server.ok("start")
    assert server.call("status").returncode == 0
    assert server.call("status", "proxydhcp").returncode == 3
    server.ok("start", "proxydhcp")
    assert server.call("status", "proxydhcp").returncode == 0
    server.ok("stop", "tftp")
    assert server.call("status").returncode == 3
    assert server.call("status", "imaging").returncode == 0
    server.ok("restart")
    assert server.call("status").returncode == 0
    assert server.call("status", "proxydhcp").returncode == 3, "it was started until the next restart only"


def test_a_process_whose_last_service_stops_ends(server: Installed) -> None:
    server.ok("start", "tftp")
    assert server.call("status", "imaging").returncode == 3
    server.ok("stop", "tftp")
    until(lambda: server.call("status").returncode == 3)
    assert server.call("showpid").returncode == 3


def test_a_bad_reload_names_every_error_and_keeps_serving(server: Installed) -> None:
    (server.tftp / "hello").write_bytes(b"hello")
    server.ok("start")
    pid = server.pid
    server.write("tftp.conf", f"TFTPDirectory = {server.tftp}\nTransferBlockSize = 5000\nTFTPLogLevl = 2\n")
    server.write("preboot-policy.conf", "NewDevices = perhaps\n")
    reload = server.call("force-reload")
    assert reload.returncode == 1
    assert f"{server.conf}/tftp.conf:2: TransferBlockSize: " in reload.stderr
    assert "512" in reload.stderr
    assert "4428" in reload.stderr
    assert f"{server.conf}/tftp.conf:3: TFTPLogLevl: " in reload.stderr
    assert "TFTPLogLevel" in reload.stderr
    assert f"{server.conf}/preboot-policy.conf:1: NewDevices: " in reload.stderr
    assert fetch("127.0.0.1", server.tftp_port, "hello") == b"hello"
    os.kill(pid, signal.SIGHUP)
    until(lambda: "reload refused" in server.log())
    assert fetch("127.0.0.1", server.tftp_port, "hello") == b"hello"


def test_a_reload_that_one_service_cannot_serve_changes_none(server: Installed) -> None:
    (server.tftp / "hello").write_bytes(b"hello")
    server.ok("start")
    port = server.http_port
    server.set("pbserv.conf", HTTPPort=str(port + 1 if port < 65000 else port - 1))
    server.set("tftp.conf", TFTPInterface="192.0.2.1")
    reload = server.call("force-reload")
    assert reload.returncode == 1
    assert "192.0.2.1" in reload.stderr
    assert "nothing was changed" in reload.stderr
    assert fetch("127.0.0.1", server.tftp_port, "hello") == b"hello"
    with socket.create_connection(("127.0.0.1", port), 5):
        pass


def test_a_good_reload_moves_listeners_and_follows_services(server: Installed) -> None:
    (server.tftp / "hello").write_bytes(b"hello")
    server.ok("start")
    pid = server.pid
    old_port = server.http_port
    server.http_port = free_port()
    server.set("pbserv.conf", HTTPPort=str(server.http_port), Services="imaging tftp policy")
    server.set("tftp.conf", TFTPInterface="127.0.0.2")
    server.ok("force-reload")
    assert server.pid == pid
    assert fetch("127.0.0.2", server.tftp_port, "hello") == b"hello"
    assert server.json("device", "list") == []
    assert server.call("status", "proxydhcp").returncode == 3
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", old_port), 5):
        pass


def test_a_reload_may_go_from_every_address_to_one_and_back(server: Installed) -> None:
    (server.tftp / "hello").write_bytes(b"hello")
    for address in ("0.0.0.0", "127.0.0.1", "0.0.0.0"):
        server.set("pbserv.conf", HTTPAddress=address)
        server.set("tftp.conf", TFTPInterface=address)
        server.ok("force-reload" if (server.state / "run" / "pbserv.pid").exists() else "start")
        assert fetch("127.0.0.1", server.tftp_port, "hello") == b"hello"
        assert server.json("device", "list") == []


def test_a_restart_with_a_broken_configuration_leaves_the_old_process_running(server: Installed) -> None:
    server.ok("start")
    pid = server.pid
    good = (server.conf / "tftp.conf").read_text()
    server.write("tftp.conf", "TimeoutInterval = 99\n")
    restart = server.call("restart")
    assert restart.returncode == 1
    assert "TimeoutInterval" in restart.stderr
    server.write("tftp.conf", good)
    assert server.pid == pid


def test_a_start_with_a_broken_configuration_prints_it_all(server: Installed) -> None:
    server.write("proxydhcp.conf", "LocalDHCPFlag = 7\nNBPx68 = a\n")
    started = server.call("start")
    assert started.returncode == 1
    assert "LocalDHCPFlag" in started.stderr
    assert "NBPx86" in started.stderr
    assert "Traceback" not in started.stderr
    check = server.call("check")
    assert check.returncode == 1
    assert "proxydhcp.conf:2" in check.stderr


def test_check_warns_of_what_is_missing_on_this_host(server: Installed) -> None:
    server.set("proxydhcp.conf", NBPx86="nowhere.0")
    check = server.ok("check")
    assert "NBPx86: there is no file nowhere.0 in" in check
    assert "pbserv client build" in check
    assert "is valid" in check


def test_an_unknown_service_name_is_refused(server: Installed) -> None:
    refused = server.call("start", "tftpd")
    assert refused.returncode == 2
    assert server.call("status", "tftpd").returncode == 4
    assert "imaging, policy, tftp, proxydhcp" in refused.stderr


def test_run_stays_in_the_foreground_and_stops_on_interrupt(server: Installed) -> None:
    import subprocess

    process = subprocess.Popen(
        [server.program, "--conf", server.conf, "run"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until(lambda: server.call("status").returncode == 0)
    assert server.pid == process.pid
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert f"console: http://127.0.0.1:{server.http_port}/" in output
    assert "Traceback" not in errors


def test_restarting_the_only_service_keeps_the_process(server: Installed) -> None:
    server.ok("start", "tftp")
    pid = server.pid
    server.ok("restart", "tftp")
    assert server.pid == pid
    assert server.call("status", "tftp").returncode == 0


def test_a_server_with_broken_files_can_be_asked_and_stopped(server: Installed) -> None:
    server.ok("start")
    pid = server.pid
    server.write("tftp.conf", "Nonsense = 1\n")
    assert server.pid == pid
    assert server.call("status").returncode == 0
    assert str(pid) in server.ok("stop")
    server.set("tftp.conf")


def test_a_lost_token_file_is_replaced_at_the_next_start(server: Installed) -> None:
    server.ok("start")
    (server.state / "admin.token").unlink()
    missing = server.call("device", "list")
    assert "restart" in missing.stderr
    assert "administrator's token" in server.ok("restart")
    assert server.json("device", "list") == []


def test_a_service_that_a_reload_adds_must_start_or_nothing_changes(server: Installed) -> None:
    server.set("pbserv.conf", Services="imaging policy tftp")
    server.ok("start")
    server.set("pbserv.conf", Services="imaging policy tftp proxydhcp")
    server.set("proxydhcp.conf", LocalInterface="192.0.2.1")
    server.set("preboot-policy.conf", ZoneDefault="menu")
    refused = server.call("force-reload")
    assert refused.returncode == 1
    assert "192.0.2.1" in refused.stderr
    assert "nothing was changed" in refused.stderr
    assert server.call("status", "proxydhcp").returncode == 3
    assert server.call("status", "imaging", "policy", "tftp").returncode == 0


def test_loaders_that_migrated_files_name_are_served_as_ours(server: Installed) -> None:
    (server.tftp / "undionly.kpxe").write_bytes(b"bios loader")
    (server.tftp / "snponly.efi").write_bytes(b"uefi loader")
    server.set("proxydhcp.conf", NBPx86="nvlnbp.sys", NBPx64="nvlnbpx64.efi")
    assert "NBPx" not in server.ok("check")
    server.ok("start")
    assert fetch("127.0.0.1", server.tftp_port, "nvlnbp.sys") == b"bios loader"
    assert fetch("127.0.0.1", server.tftp_port, "nvlnbpx64.efi") == b"uefi loader"
    (server.tftp / "nvlnbp.sys").write_bytes(b"the real one")
    assert fetch("127.0.0.1", server.tftp_port, "nvlnbp.sys") == b"the real one"
    assert fetch("127.0.0.1", server.tftp_port, "boot.ipxe").startswith(b"#!ipxe")


def test_a_server_is_found_after_its_state_directory_was_changed_in_the_file(server: Installed) -> None:
    if os.geteuid() != 0 and not os.access(f"/run/user/{os.geteuid()}", os.W_OK):
        pytest.skip("no place below /run for a note of where the server is")
    server.ok("start")
    pid = server.pid
    server.set("pbserv.conf", StateDirectory=str(server.place / "elsewhere"))
    assert server.pid == pid
    assert "takes effect at the next restart" in server.ok("force-reload")
    assert str(pid) in server.ok("stop")
    server.ok("start")
    assert (server.place / "elsewhere" / "run" / "pbserv.pid").exists()


def test_names_are_names_whatever_characters_they_have(server: Installed) -> None:
    server.ok("start")
    for name in ("a?b", "../devices/52:54:00:00:00:01", "a/b", "", "a#b"):
        refused = server.call("image", "delete", name, "--now", "--yes")
        assert refused.returncode in (1, 2), name
        assert "gone" not in refused.stdout
    assert "no device's address" in server.call("device", "accept", "ff:ff:ff:ff:ff:ff").stderr
    disk = server.call("work", "restore", "52:54:00:00:00:01", "x", "--disk", "foo bar")
    assert "by-id:NAME" in disk.stderr


def test_an_image_that_is_no_disk_is_not_promised_to_a_device(server: Installed) -> None:
    server.ok("start")
    server.ok("device", "accept", "52:54:00:00:00:01")
    upload = ["curl", "-sf", "-T", "/etc/hostname", "-H", f"Authorization: Bearer {server.token}"]
    command([*upload, f"{server.url}/api/v1/images/notes"])
    refused = server.call("work", "restore", "52:54:00:00:00:01", "notes")
    assert refused.returncode == 1
    assert "opaque file" in refused.stderr


def test_faults_of_this_host_are_named_with_file_line_and_key(server: Installed) -> None:
    server.set("tftp.conf", TFTPInterface="192.0.2.1")
    line = 1 + list(server.files["tftp.conf"]).index("TFTPInterface")
    where = f"{server.conf}/tftp.conf:{line}: TFTPInterface: "
    assert where in server.ok("check")
    server.set("tftp.conf", TFTPInterface="127.0.0.1")
    server.ok("start")
    server.set("tftp.conf", TFTPInterface="192.0.2.1")
    assert where in server.call("force-reload").stderr


def test_devices_at_work_keep_the_address_that_they_know(server: Installed) -> None:
    server.ok("start")
    server.ok("device", "accept", jobs.MAC)
    client = jobs.client_of(server, jobs.queue(server, "capture", "moving"))
    try:
        client.begin()
        old_port = server.http_port
        server.http_port = free_port()
        server.set("pbserv.conf", HTTPPort=str(server.http_port))
        server.ok("force-reload")
        assert server.json("work", "list")[0]["state"] == "running"
        assert client.call("POST", "progress", data={"stage": "capture"}).text == "CONTINUE\n"
        assert client.call("PUT", "items/p1", content=jobs.P1).status_code == 200
        assert client.call("POST", "result", data={"ok": "0", "reason": "enough"}).text == "OK\n"
    finally:
        client.http.close()

    def closed() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", old_port)) != 0

    until(closed, 20)


def test_an_address_of_a_service_that_does_not_run_refuses_no_reload(server: Installed) -> None:
    server.set("pbserv.conf", Services="imaging policy tftp")
    server.set("proxydhcp.conf", LocalInterface="192.0.2.1")
    server.ok("start")
    server.ok("force-reload")
    assert server.call("status").returncode == 0
