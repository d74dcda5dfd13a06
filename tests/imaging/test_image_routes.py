import asyncio
import os
import random
import signal
import sys
from pathlib import Path

import httpx
import pytest

from pbserv.imaging.faults import UnknownImage
from tests.imaging.image_server import ADMIN, TOKENS, bearer_of, files_below, serving, sha256, until

BODY = random.Random(1).randbytes(5 * 1024 * 1024 + 321)


@pytest.fixture
async def server(tmp_path):
    async with serving(tmp_path / "images") as server:
        yield server


@pytest.fixture
async def client():
    async with httpx.AsyncClient(timeout=60, headers=ADMIN) as client:
        yield client


async def curl(*arguments: str) -> tuple[int, str]:
    """Exit code and the text that curl printed."""
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-H", f"Authorization: {ADMIN['Authorization']}", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def put(client: httpx.AsyncClient, url: str, body: bytes = BODY, **options) -> httpx.Response:
    return await client.put(url, content=body, **options)


async def purge(client: httpx.AsyncClient, url: str) -> httpx.Response:
    """Both steps."""
    for version in (await client.get(url)).json()["versions"]:
        assert (await client.post(f"{url}/versions/{version}/retire")).status_code == 200
    return await client.delete(url)


async def test_upload_list_download_purge(server, client):
    stored = await put(client, f"{server.url}/tools", headers={"X-Checksum-SHA256": sha256(BODY).upper()})
    assert stored.status_code == 201
    image = stored.json()
    assert (image["name"], image["version"], image["versions"], image["stored_bytes"]) == ("tools", 1, [1], len(BODY))
    assert image["items"] == [
        {"name": "file", "kind": "file", "partition": 0, "stored_bytes": len(BODY), "sha256": sha256(BODY),
         "uncompressed_bytes": len(BODY)}
    ]  # fmt: skip
    assert (await client.get(server.url)).json() == {"images": [image]}
    told = (await client.get(f"{server.url}/tools")).json()
    assert {key: told[key] for key in image} == image
    got = await client.get(f"{server.url}/tools/items/file")
    assert got.content == BODY
    assert got.headers["etag"] == f'"{sha256(BODY)}"'
    assert got.headers["accept-ranges"] == "bytes"
    assert (await purge(client, f"{server.url}/tools")).status_code == 204
    assert (await client.get(f"{server.url}/tools")).status_code == 404
    assert [(line.type, line.result) for line in server.requests] == [
        ("upload", "ok"), ("download", "ok"), ("retire", "ok"), ("purge", "ok")
    ]  # fmt: skip
    assert all((line.source, line.image) == ("127.0.0.1", "tools") for line in server.requests)
    assert server.figures == (4, 1, 1)


async def test_head_ranges_and_listings_are_no_requests_and_complete_an_image_once(server, client):
    await put(client, f"{server.url}/tools")
    url = f"{server.url}/tools/items/file"
    head = await client.head(url)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(BODY)), b"")
    await client.get(server.url)
    middle = 2 * 1024 * 1024
    first = await client.get(url, headers={"Range": f"bytes=0-{middle - 1}"})
    assert (first.status_code, first.headers["content-range"]) == (206, f"bytes 0-{middle - 1}/{len(BODY)}")
    assert server.figures == (1, 0, 1)
    rest = await client.get(url, headers={"Range": f"bytes={middle}-", "If-Range": head.headers["etag"]})
    assert first.content + rest.content == BODY
    await until(lambda: server.figures == (1, 1, 1))
    beyond = await client.get(url, headers={"Range": f"bytes={len(BODY)}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(BODY)}")
    several = await client.get(url, headers={"Range": "bytes=0-1,4-5"})
    assert (several.status_code, several.content) == (200, BODY)
    stale = await client.get(url, headers={"Range": "bytes=5-", "If-Range": '"other"'})
    assert (stale.status_code, stale.content) == (200, BODY)
    assert (await client.get(url, headers={"If-None-Match": head.headers["etag"]})).status_code == 304


async def test_without_a_token_nothing_works_and_denials_are_counted(server):
    async with httpx.AsyncClient(timeout=60) as nobody:
        for method, path in (("GET", ""), ("GET", "/x"), ("HEAD", "/x/items/file")):
            answer = await nobody.request(method, server.url + path)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert server.figures == (0, 0, 0)
        for method, path in (("PUT", "/x"), ("DELETE", "/x"), ("GET", "/x/items/file")):
            answer = await nobody.request(method, server.url + path, content=b"abc" if method == "PUT" else None)
            assert answer.status_code == 401
            assert "images need a token" in answer.json()["error"]
        job = {"Authorization": f"Bearer {TOKENS.issue(3)}"}
        answer = await nobody.put(f"{server.url}/x", content=b"abc", headers=job)
        assert answer.status_code == 403
        wrong = {"Authorization": "Bearer wrong"}
        assert "not valid" in (await nobody.get(server.url, headers=wrong)).json()["error"]
    assert [(line.type, line.result) for line in server.requests] == [
        ("upload", "denied"), ("purge", "denied"), ("download", "denied"), ("upload", "denied")
    ]  # fmt: skip
    assert server.figures == (4, 0, 0)
    assert server.store.list() == ()


async def test_viewers_look_operators_download_administrators_change(server):
    async with httpx.AsyncClient(timeout=60, headers=ADMIN) as admin:
        assert (await admin.put(f"{server.url}/x", content=BODY)).status_code == 201
    may: dict[str, set[str]] = {"site": set(), "images": set(), "viewer": {"look"}, "operator": {"look", "fetch"}}
    may["admin"] = {"look", "fetch", "change"}
    requests = [
        ("look", "GET", "", {}, 200), ("look", "GET", "/x", {}, 200), ("look", "HEAD", "/x/items/file", {}, 200),
        ("fetch", "GET", "/x/items/file", {}, 200), ("fetch", "GET", "/x/items/file", {"Range": "bytes=0-3"}, 206),
        ("look", "GET", "/x/versions/1", {}, 200), ("change", "PUT", "/y-{role}", {}, 201),
        ("change", "POST", "/y-{role}/versions/1/retire", {}, 200), ("change", "DELETE", "/y-{role}", {}, 204),
    ]  # fmt: skip
    for role, open_to_it in may.items():
        async with httpx.AsyncClient(timeout=60, headers=bearer_of(role)) as client:
            for right, method, path, headers, good in requests:
                url = server.url + path.format(role=role)
                answer = await client.request(method, url, headers=headers, content=b"y" if method == "PUT" else None)
                assert answer.status_code == (good if right in open_to_it else 403), (role, method, path)
                if answer.status_code == 403 and method != "HEAD":
                    assert f"is of role {role}" in answer.json()["error"]
    assert [image.name for image in server.store.list()] == ["x"]


async def test_a_wrong_token_learns_nothing_of_images(server):
    async with httpx.AsyncClient(timeout=60, headers=ADMIN) as admin:
        assert (await admin.put(f"{server.url}/x", content=BODY)).status_code == 201
    async with httpx.AsyncClient(timeout=60, headers={"Authorization": "Bearer wrong"}) as client:
        for method, path in (("GET", "/{}"), ("GET", "/{}/items/file"), ("HEAD", "/{}/items/file"), ("DELETE", "/{}")):
            there, missing = [await client.request(method, server.url + path.format(name)) for name in ("x", "none")]
            assert there.status_code == missing.status_code == 401
            assert there.content == missing.content
            assert set(there.headers) == set(missing.headers)


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/..%2Fx", 404, ""),
        ("/.hidden", 400, "cannot be the name of an image"),
        ("/a%00b", 400, "cannot be the name of an image"),
        ("/" + "a" * 65, 400, "cannot be the name of an image"),
        ("/x?overwrite=maybe", 400, "write 0 or 1"),
        ("/x?overwrite=1", 403, "AllowImageOverwrite"),
    ],
)
async def test_refused_uploads(server, client, tmp_path, path, status, says):
    answer = await put(client, server.url + path, b"abc")
    assert answer.status_code == status
    assert says in answer.text
    assert files_below(tmp_path) == []


async def test_wrong_checksums(server, client, tmp_path):
    answer = await put(client, f"{server.url}/x", headers={"X-Checksum-SHA256": "0" * 64})
    assert answer.status_code == 422
    assert sha256(BODY) in answer.json()["error"]
    answer = await put(client, f"{server.url}/x", headers={"X-Checksum-SHA256": "abc"})
    assert (answer.status_code, "64 hexadecimal digits" in answer.json()["error"]) == (400, True)
    assert files_below(tmp_path) == []
    assert server.figures == (2, 0, 0)
    assert [line.result for line in server.requests] == ["failed", "failed"]
    assert (await put(client, f"{server.url}/x")).status_code == 201


async def test_overwriting(tmp_path, client):
    async with serving(tmp_path) as server:
        await put(client, f"{server.url}/x", b"one")
        answer = await put(client, f"{server.url}/x", b"two")
        assert (answer.status_code, "exists" in answer.json()["error"]) == (409, True)
    async with serving(tmp_path, allow_overwrite=True) as server:
        assert (await put(client, f"{server.url}/x", b"two")).status_code == 409
        answer = await put(client, f"{server.url}/x?overwrite=1", b"two")
        assert (answer.status_code, answer.json()["versions"]) == (201, [1, 2])
        assert (await client.get(f"{server.url}/x/items/file")).content == b"two"
        assert [line.result for line in server.requests] == ["denied", "ok", "ok"]


async def test_a_full_store_refuses_before_the_body_is_sent(tmp_path):
    async with serving(tmp_path / "images", free_floor_bytes=1 << 60) as server:
        (tmp_path / "body").write_bytes(BODY)
        code, text = await curl("-w", "%{http_code}", "-T", str(tmp_path / "body"), f"{server.url}/x")
        assert code == 0
        assert text.endswith("507")
        assert "make room" in text
        assert server.requests[0].result == "failed"


async def test_curl_uploads_and_resumes(server, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(BODY)
    assert (await curl("-f", "-T", str(source), f"{server.url}/tools"))[0] == 0
    url = f"{server.url}/tools/items/file"
    assert (await curl("-f", "-r", "0-1234567", "-o", str(target), url))[0] == 0
    assert target.stat().st_size == 1234568
    assert (await curl("-f", "-C", "-", "-o", str(target), url))[0] == 0
    assert target.read_bytes() == BODY
    await until(lambda: server.figures == (1, 1, 1))
    chunked = f"cat {source} | curl -sS -f -T - -H 'Authorization: {ADMIN['Authorization']}' {server.url}/chunked"
    process = await asyncio.create_subprocess_shell(chunked, stdout=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0
    assert server.store.info("chunked").manifest.items[0].sha256 == sha256(BODY)


async def test_a_refused_upload_tells_curl_why(server, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(BODY)
    assert (await curl("-T", str(source), f"{server.url}/tools"))[0] == 0
    for expect in ("Expect: 100-continue", "Expect:"):
        code, text = await curl("-H", expect, "-T", str(source), f"{server.url}/tools")
        assert (code, "exists" in text) == (0, True), text


async def test_an_upload_that_breaks_off_leaves_nothing_and_frees_the_name(server, client, tmp_path):
    host, port = server.url.split("/")[2].split(":")
    for framing in ("Content-Length: 9000000", "Transfer-Encoding: chunked"):
        reader, writer = await asyncio.open_connection(host, int(port))
        head = (
            f"PUT /api/v1/images/x HTTP/1.1\r\nHost: x\r\nAuthorization: {ADMIN['Authorization']}\r\n{framing}\r\n\r\n"
        )
        block = b"x" * 3_000_000
        writer.write(head.encode() + (block if "Length" in framing else b"%x\r\n%s\r\n" % (len(block), block)))
        await writer.drain()
        await until(lambda: files_below(tmp_path) != [])
        writer.close()
        await writer.wait_closed()
        await until(lambda: not os.listdir(tmp_path / "images/.incoming"))
        assert reader.at_eof() or await reader.read() == b""
    await until(lambda: [line.result for line in server.requests] == ["aborted", "aborted"])
    assert files_below(tmp_path) == []
    with pytest.raises(UnknownImage):
        server.store.info("x")
    assert (await put(client, f"{server.url}/x", b"abc")).status_code == 201


async def test_two_uploads_of_one_name_at_once(server, client):
    go = asyncio.Event()

    async def slow():
        yield b"first"
        await go.wait()

    async with asyncio.TaskGroup() as group:
        first = group.create_task(client.put(f"{server.url}/x", content=slow()))
        await until(lambda: [draft.image for draft in server.store.sessions()] == ["x"])
        second = await put(client, f"{server.url}/x", b"second")
        assert (second.status_code, "being uploaded" in second.json()["error"]) == (409, True)
        go.set()
    assert first.result().status_code == 201
    assert (await client.get(f"{server.url}/x/items/file")).content == b"first"


async def test_a_download_that_breaks_off_is_not_an_image_sent(server, client):
    body = bytes(64 * 1024 * 1024)
    await put(client, f"{server.url}/x", body)
    async with client.stream("GET", f"{server.url}/x/items/file") as answer:
        async for _ in answer.aiter_raw(65536):
            break
    await until(lambda: len(server.requests) == 2)
    assert (server.requests[1].type, server.requests[1].result) == ("download", "aborted")
    assert server.figures == (2, 0, 1)
    assert (await client.get(f"{server.url}/x/items/file")).status_code == 200
    await until(lambda: server.figures == (3, 1, 1))


async def test_a_deleted_image_is_delivered_to_the_end_to_who_reads_it(server, client):
    body = random.Random(2).randbytes(16 * 1024 * 1024)
    await put(client, f"{server.url}/x", body)
    got = bytearray()
    async with client.stream("GET", f"{server.url}/x/items/file") as answer:
        async for chunk in answer.aiter_raw():
            if not got:
                assert (await purge(client, f"{server.url}/x")).status_code == 204
            got += chunk
    assert got == body


async def test_an_empty_image(server, client):
    assert (await put(client, f"{server.url}/empty", b"")).status_code == 201
    answer = await client.get(f"{server.url}/empty/items/file")
    assert (answer.status_code, answer.content) == (200, b"")
    await until(lambda: server.figures == (2, 1, 1))


async def test_unknown_items_and_damage(server, client, tmp_path):
    await put(client, f"{server.url}/x", b"abc")
    assert (await client.get(f"{server.url}/x/items/other")).status_code == 404
    assert (await client.get(f"{server.url}/y/items/file")).status_code == 404
    (tmp_path / "images/x/1/file").write_bytes(b"ab")
    answer = await client.get(f"{server.url}/x/items/file")
    assert (answer.status_code, "not a file of 3 bytes" in answer.json()["error"]) == (500, True)
    assert [line.result for line in server.requests] == ["ok", "failed", "failed", "failed"]


async def test_a_file_that_shrinks_under_a_reader_ends_the_connection(server, client, tmp_path):
    await put(client, f"{server.url}/x", bytes(64 * 1024 * 1024))

    async def read() -> None:
        async with client.stream("GET", f"{server.url}/x/items/file") as answer:
            async for _ in answer.aiter_raw():
                os.truncate(tmp_path / "images/x/1/file", 1024)

    with pytest.raises(httpx.RemoteProtocolError):
        await read()
    await until(lambda: len(server.requests) == 2)
    assert server.requests[1].result == "failed"
    assert server.events.lines[-1][0] == "image unreadable"


async def test_a_store_that_is_stopped_ends_its_downloads(server, client):
    await put(client, f"{server.url}/x", bytes(64 * 1024 * 1024))

    async def read() -> None:
        async with client.stream("GET", f"{server.url}/x/items/file") as answer:
            async for _ in answer.aiter_raw():
                await server.store.close()

    with pytest.raises(httpx.RemoteProtocolError):
        await read()
    assert (await put(client, f"{server.url}/y")).status_code == 503
    assert [line.result for line in server.requests] == ["ok", "failed", "failed"]


async def test_a_server_that_is_killed_in_the_middle_of_an_upload_leaves_nothing(tmp_path):
    root = tmp_path / "images"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.imaging.image_server", str(root),
        cwd=Path(__file__).parents[2], stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().strip()

    async def endless():
        while True:
            yield b"x" * 65536
            await asyncio.sleep(0)

    async def upload() -> None:
        async with httpx.AsyncClient(timeout=60, headers=ADMIN) as client:
            assert (await client.put(f"{url}/whole", content=BODY)).status_code == 201
            with pytest.raises(httpx.TransportError):
                await client.put(f"{url}/half", content=endless())

    async with asyncio.TaskGroup() as group:
        group.create_task(upload())
        await until(lambda: any(path.stat().st_size > 1 << 20 for path in (root / ".incoming").glob("half.*/.part.*")))
        process.send_signal(signal.SIGKILL)
        await process.wait()
    assert os.listdir(root / ".incoming") != []
    async with serving(root) as server, httpx.AsyncClient(timeout=60, headers=ADMIN) as client:
        assert os.listdir(root / ".incoming") == []
        assert [image["name"] for image in (await client.get(server.url)).json()["images"]] == ["whole"]
        assert (await client.get(f"{server.url}/whole/items/file")).content == BODY
    assert sorted(os.listdir(root)) == [".incoming", ".store", "whole"]


async def test_many_downloads_at_once_are_all_whole_and_counted(server, client):
    await put(client, f"{server.url}/x")

    async def one() -> None:
        assert sha256((await client.get(f"{server.url}/x/items/file")).content) == sha256(BODY)

    async with asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(one())
    await until(lambda: len(server.requests) == 17)
    assert server.figures[0] == 17
    assert 1 <= server.figures[1] <= 16  # at one address: overlapping downloads share their bytes
