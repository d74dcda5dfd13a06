"""The control socket: server and client over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from pbserv.daemon.control import REQUEST_LIMIT_BYTES, ControlServer, Handler, Request, Response, ask
from pbserv.errors import ControlError, PbservError
from tests.daemon.programs import public_directory, run_python

Start = Callable[..., Awaitable[ControlServer]]


async def echo(request: Request) -> Response:
    return Response(True, (request.verb, *request.names), (), {"options": request.options})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


@pytest.fixture
async def start(path: Path) -> AsyncIterator[Start]:
    servers: list[ControlServer] = []

    async def one(handler: Handler = echo, **options: object) -> ControlServer:
        servers.append(ControlServer(path, handler, **options))  # type: ignore[arg-type]
        await servers[-1].start()
        return servers[-1]

    yield one
    for server in servers:
        await server.close()


async def ask_at(path: Path, request: Request, timeout_s: float = 10) -> Response:
    return await asyncio.to_thread(ask, path, request, timeout_s)


async def send(path: Path, data: bytes, *, end: bool = True) -> dict[str, object]:
    answer = json.loads(await asyncio.to_thread(_exchange, path, data, end))
    assert isinstance(answer, dict)
    return answer


def _exchange(path: Path, data: bytes, end: bool) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        with contextlib.suppress(BrokenPipeError):
            connection.sendall(data)
            if end:
                connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as answer:
            return answer.readline()


async def test_request_and_answer(path: Path, start: Start) -> None:
    await start()
    response = await ask_at(path, Request("stop", ("tftp", "policy"), {"grace_s": 3, "why": "ä"}))
    assert response == Response(True, ("stop", "tftp", "policy"), (), {"options": {"grace_s": 3, "why": "ä"}})


async def test_only_the_owner_may_connect(path: Path, start: Start) -> None:
    await start()
    facts = path.lstat()
    assert stat.S_ISSOCK(facts.st_mode)
    assert stat.S_IMODE(facts.st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


async def test_stale_socket_is_replaced_and_ours_removed(path: Path, start: Start) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(ControlError, match="pbserv is not running"):
        ask(path, Request("status"))
    server = await start()
    assert (await ask_at(path, Request("status"))).ok
    await server.close()
    await server.close()
    assert not path.exists()


async def test_close_leaves_the_socket_of_a_successor(path: Path, start: Start) -> None:
    first = await start()
    await start()
    await first.close()
    assert (await ask_at(path, Request("status"))).ok


async def test_other_file_in_the_way_is_kept(path: Path, start: Start) -> None:
    path.write_text("precious")
    with pytest.raises(ControlError, match="it is not a socket"):
        await start()
    assert path.read_text() == "precious"


async def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="cannot be made: No such file"):
        await ControlServer(tmp_path / "missing" / "control.sock", echo).start()


async def test_path_longer_than_a_socket_address(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    server = ControlServer(folder / "control.sock", echo)
    await server.start()
    assert (await ask_at(folder / "control.sock", Request("status"))).lines == ("status",)
    await server.close()
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"rubbish\n", "the request is not JSON"),
        (b"\xff\xfe\n", "the request is not JSON"),
        (b"[" * 60000 + b"\n", "the request is not JSON"),
        (b"[]\n", "the request is not a JSON object"),
        (b"{}\n", "the request has no verb"),
        (b'{"verb": 3}\n', "the request has no verb"),
        (b'{"verb": "stop", "names": "tftp"}\n', "names is not a list of texts"),
        (b'{"verb": "stop", "names": [1]}\n', "names is not a list of texts"),
        (b'{"verb": "stop"', "the request is not complete"),
        (b"", "the request is not complete"),
        (b"x" * (REQUEST_LIMIT_BYTES * 2), f"the request has more than {REQUEST_LIMIT_BYTES} bytes"),
    ],
)
async def test_bad_requests_get_an_answer(path: Path, start: Start, data: bytes, error: str) -> None:
    await start()
    assert await send(path, data) == {"ok": False, "lines": [], "errors": [error], "data": {}}


async def test_slow_request(path: Path, start: Start) -> None:
    await start(transfer_timeout_s=0.1)
    assert (await send(path, b'{"verb"', end=False))["errors"] == ["no complete request within 0.1 s"]


async def test_slow_handler_is_cancelled(path: Path, start: Start) -> None:
    cancelled = asyncio.Event()

    async def never(_: Request) -> Response:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()
        raise AssertionError

    await start(never, handler_timeout_s=0.1)
    assert (await ask_at(path, Request("stop"))).errors == ("stop did not finish within 0.1 s",)
    assert cancelled.is_set()


async def test_faults_and_bugs_of_the_handler(path: Path, start: Start) -> None:
    bugs: list[Exception] = []

    async def fail(request: Request) -> Response:
        raise PbservError("not now") if request.verb == "stop" else TimeoutError("a bug")

    await start(fail, on_bug=bugs.append)
    assert (await ask_at(path, Request("stop"))).errors == ("not now",)
    assert bugs == []
    assert (await ask_at(path, Request("status"))).errors == ("internal error: TimeoutError: a bug",)
    assert [str(bug) for bug in bugs] == ["a bug"]


async def test_too_many_at_once(path: Path, start: Start) -> None:
    gate, full = asyncio.Event(), asyncio.Event()
    waiting = 0

    async def wait(_: Request) -> Response:
        nonlocal waiting
        waiting += 1
        if waiting == 32:
            full.set()
        await gate.wait()
        return Response(True)

    await start(wait)
    async with asyncio.TaskGroup() as group:
        streams = [await asyncio.open_unix_connection(str(path)) for _ in range(32)]
        for _, writer in streams:
            writer.write(b'{"verb":"status"}\n')
        await full.wait()
        refused = await group.create_task(send(path, b'{"verb":"status"}\n'))
        assert refused["errors"] == ["too many requests at once; try again"]
        gate.set()
        for reader, writer in streams:
            assert json.loads(await reader.readline())["ok"]
            writer.close()
            await writer.wait_closed()
    assert waiting == 32


async def test_close_lets_a_running_request_finish(path: Path, start: Start) -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    async def wait(_: Request) -> Response:
        begun.set()
        await gate.wait()
        return Response(True, ("finished",))

    server = await start(wait)
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(ask_at(path, Request("stop")))
        await begun.wait()
        closing = group.create_task(server.close())
        gate.set()
        await closing
    assert asked.result().lines == ("finished",)


async def test_client_that_leaves_disturbs_nobody(path: Path, start: Start) -> None:
    async def large(_: Request) -> Response:
        return Response(True, ("x" * 4_000_000,))

    await start(large)
    with socket.socket(socket.AF_UNIX) as rude:
        rude.setblocking(False)
        await asyncio.get_running_loop().sock_connect(rude, str(path))
        await asyncio.get_running_loop().sock_sendall(rude, b'{"verb":"status"}\n')
        await asyncio.get_running_loop().sock_recv(rude, 10)
    assert len((await ask_at(path, Request("status"))).lines[0]) == 4_000_000


def test_nobody_there(path: Path) -> None:
    with pytest.raises(ControlError, match="pbserv is not running: nobody listens at"):
        ask(path, Request("status"))
    with pytest.raises(ControlError, match="pbserv is not running"):
        ask(path / "below", Request("status"))


def test_server_that_does_not_answer(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        with pytest.raises(ControlError, match=r"pbserv did not answer status within 0\.1 s"):
            ask(path, Request("status"), 0.1)


async def test_server_that_closes_without_an_answer(path: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.close()

    server = await asyncio.start_unix_server(hang_up, path)
    with pytest.raises(ControlError, match="closed the connection without an answer"):
        await ask_at(path, Request("status"))
    server.close()


def test_too_large_request_is_not_sent(path: Path) -> None:
    with pytest.raises(ControlError, match="at most 65536 are allowed"):
        ask(path, Request("status", ("x" * REQUEST_LIMIT_BYTES,)))


@pytest.mark.parametrize("data", [b"rubbish", b"[]", b'{"data": 3}', b'{"lines": [3]}'])
def test_bad_answers(data: bytes) -> None:
    with pytest.raises(ControlError):
        Response.decode(data)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_another_user_is_told_what_to_do() -> None:
    program = """
        import os, socket, sys
        from pathlib import Path
        from pbserv.daemon.control import Request, ask
        from pbserv.errors import ControlError
        path = Path(sys.argv[1]) / "control.sock"
        listener = socket.socket(socket.AF_UNIX); listener.bind(str(path)); path.chmod(0o600); listener.listen()
        os.setresuid(65534, 65534, 65534)
        try:
            ask(path, Request("status"))
        except ControlError as error:
            print(error)
        listener.close()
    """
    with public_directory() as folder:
        result = run_python(program, folder)
    assert "permission denied; run this command as root or as the service user" in result.stdout, result.stderr
