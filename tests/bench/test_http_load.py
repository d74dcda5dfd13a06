"""The HTTP load generator against a small server that also does things wrong: the bench must not rot or be blind."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from bench.imaging import measure, table
from bench.imaging.__main__ import verdict
from bench.imaging.work import ROWS, UPLOADS, Work
from bench.tftp.judge import MISSED, OURS, PASS
from bench.tftp.measure import pattern

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing; make packages installs it as root")
SIZE = 200_000  # no multiple of the pattern
BODY = (pattern() * 4)[:SIZE]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    body = BODY
    asked: ClassVar[list[tuple[str | None, str | None]]] = []

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.asked.append((wanted, self.headers.get("Authorization")))
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and self.headers["If-Range"] == '"x"' else 0
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(SIZE - start))
        self.send_header("ETag", '"x"')
        self.end_headers()
        self.wfile.write(self.body[start:])
        self.close_connection = self.headers.get("Connection") == "close"

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            return  # the client leaves in the middle

    def log_message(self, *_words: object) -> None:
        return


@pytest.fixture(scope="module")
def load(tmp_path_factory) -> Path:
    return measure.build(tmp_path_factory.mktemp("load") / "load")


@pytest.fixture
def port() -> Iterator[int]:
    Handler.body, Handler.asked = BODY, []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def fetch(load: Path, tmp_path: Path, port: int) -> Any:
    (tmp_path / "pattern").write_bytes(pattern())

    def run(work: Work, *more: str) -> dict[str, Any]:
        command = [str(load), "--port", str(port), "--path", "/f", "--pattern", str(tmp_path / "pattern")]
        done = subprocess.run([*command, *work.arguments(), *more], capture_output=True, check=True, timeout=100)
        return json.loads(done.stdout)

    return run


FEW = Work("image", 2, SIZE, 0, 0)


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("check", [1, 3])
def test_files_are_fetched_whole_and_compared(fetch, new, check):
    found = fetch(replace(FEW, new=new, check=check), "--files", "3", "--token", "secret")
    assert (found["all_files"], found["all_bytes"], found["bad"], found["failed"]) == (6, 6 * SIZE, 0, 0)
    assert found["connections"] == (6 if new else 2)
    assert found["unfinished"] == 0
    assert Handler.asked == [(None, "Bearer secret")] * 6


def test_a_broken_connection_is_resumed_where_it_was(fetch):
    found = fetch(replace(FEW, clients=1, break_bytes=70_000), "--files", "1")
    assert (found["all_files"], found["bad"], found["failed"]) == (1, 0, 0)
    assert 1 <= found["resumed"] <= 2
    assert found["all_bytes"] == SIZE
    assert len([wanted for wanted, _token in Handler.asked if wanted]) == found["resumed"]


def test_wrong_bytes_and_refusals_are_told(fetch):
    Handler.body = BODY[:100_000] + b"?" + BODY[100_001:]
    found = fetch(replace(FEW, clients=1), "--files", "1")
    assert (found["bad"], found["error"]) == (1, "a wrong byte")
    Handler.body = BODY[:-1]
    assert fetch(replace(FEW, clients=1, new=True), "--files", "1")["failed"] == 1
    found = fetch(FEW, "--files", "1", "--path", "/missing")
    assert (found["failed"], "404" in found["error"]) == (2, True)


def test_a_time_box_counts_what_is_inside(fetch):
    found = fetch(replace(FEW, seconds=0.5, warmup=0.1))
    assert found["bytes"] > 0
    assert found["bytes"] <= found["all_bytes"]
    assert found["seconds"] == pytest.approx(0.5, abs=0.4)


def run(mb_per_s: float, **changes: Any) -> dict[str, Any]:
    return {
        "seconds": 2.0, "bytes": mb_per_s * 2e6, "all_bytes": mb_per_s * 2.5e6, "files": mb_per_s * 2,
        "all_files": mb_per_s * 3, "bad": 0, "failed": 0, "unfinished": 0, "error": "", "p50_ms": 1.0, "p99_ms": 9.0,
        "cpu_seconds": 0.5, "server_cpu_seconds": 2.0, "memory_before_kb": 1024, "memory_peak_kb": 3072, **changes,
    }  # fmt: skip


def test_rows_are_judged_and_shown():
    def result(ours: float, **changes: Any) -> dict[str, Any]:
        rows = [
            {"key": row.key, "title": row.title, "floor": row.floor, "aim": row.aim, "per": row.per,
             "rounds": [{OURS: run(ours, **changes), "nginx": run(1000)}]}
            for row in ROWS if row.key in ("big-1", "small-new-4")
        ]  # fmt: skip
        return {
            "date": "2026-01-02", "rounds": 1, "quick": False, "versions": {"pbserv": "1", "nginx": "1.22"},
            "machine": {"cpu": "C", "cores": 2, "memory_gb": 4, "kernel": "6.1", "python": "3.11"}, "rows": rows,
        }  # fmt: skip

    words = [[one.word for one in table.verdicts(result(ours))] for ours in (1000, 999, 299)]
    assert words == [[PASS, PASS], [MISSED, PASS], [MISSED, MISSED]]
    assert verdict(result(1000), ["big-1"], quick=False) == 0
    assert verdict(result(1000, bad=1), ["big-1"], quick=True) == 1
    for text in (table.text(result(1500)), table.markdown(result(1500))):
        for words in ("1,500 MB/s", "1,500/s (1, 9 ms)", "1.50", "3 (+2)", "0.533 s"):
            assert words in text
    assert verdict({}, [], quick=False) == 0
    page = f"a {table.BEGIN} old {table.END} b"
    assert table.replace_block(page, "new") == f"a {table.BEGIN}\nnew\n{table.END} b"


def test_uploads_are_judged_by_memory_and_by_what_tftp_feels():
    def words(grown_mb: float, p99_ms: float, **changes: Any) -> list[str]:
        probe = {"asked": 100, "answered": 100, "p50_ms": 1.0, "p99_ms": p99_ms, "max_ms": 30.0}
        one = {OURS: run(50, memory_peak_kb=1024 + grown_mb * 1024, probe=probe, **changes)}
        uploads = [{**asdict(each), "rounds": [one]} for each in UPLOADS if each.key in ("up-32", "delay")]
        (_title, lines) = table.tables({"uploads": uploads})[0]
        assert lines[1][1:3] == ["50", "62"]
        assert [line[-1] for line in lines[1:]] == [each.word for each in table.verdicts({"uploads": uploads})]
        return [line[-1] for line in lines[1:]]

    assert words(256, 19.9) == [PASS, PASS]
    assert words(257, 20.0) == [MISSED, MISSED]


def test_parts_are_uploaded_by_everybody(tmp_path: Path):
    """The uploader against a server that takes parts, and one part of one client badly."""
    (tmp_path / "part1").write_bytes(b"one")
    (tmp_path / "part2").write_bytes(b"two")
    Taker.taken, Taker.refused = [], set()
    with ThreadingHTTPServer(("127.0.0.1", 0), Taker) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()

        def upload() -> dict[str, Any]:
            given = {"--port": server.server_port, "--token": "secret", "--parts": tmp_path, "--part-bytes": 100,
                     "--count": 2, "--clients": 3}  # fmt: skip
            words = [str(word) for pair in given.items() for word in pair]
            command = [sys.executable, "-m", "bench.imaging.uploader", *words]
            done = subprocess.run(command, capture_output=True, check=True, timeout=100, cwd=Path(__file__).parents[2])
            return json.loads(done.stdout)

        found = upload()
        assert (found["all_bytes"], found["failed"], found["error"]) == (600, 0, "")
        assert sorted(Taker.taken) == sorted([(f"bench-up-{n}", body) for n in range(3) for body in (b"one", b"two")])
        Taker.refused = {"bench-up-1"}
        found = upload()
        assert (found["all_bytes"], found["failed"]) == (400, 1)
        assert "507" in found["error"]
        server.shutdown()
        thread.join()


class Taker(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    taken: ClassVar[list[tuple[str, bytes]]] = []
    refused: ClassVar[set[str]] = set()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(201, json.dumps({"upload": self.path.split("/")[4]}).encode())

    def do_PUT(self) -> None:
        upload = self.path.split("/")[4]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["X-Checksum-SHA256"] == hashlib.sha256(body).hexdigest()
        if upload in self.refused:
            self._answer(507, b"full")
            return
        self.taken.append((upload, body))
        self._answer(200, b"{}")

    def do_DELETE(self) -> None:
        self._answer(204, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: object) -> None:
        return
