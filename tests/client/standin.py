"""A stand-in for the server's side of the imaging client protocol: real HTTP on loopback, jobs in memory.

It checks what a client sends (token, names, order) and can misbehave on request: damage a byte, break a connection.
"""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import parse_qs

TOKEN = "a-token"
ITEM = re.compile(r"/client/v1/jobs/([^/]+)/items/([A-Za-z0-9_-][A-Za-z0-9._-]{0,63})$")


@dataclass
class Job:
    """One job as the server tells it, and everything that the client said about it."""

    action: str
    target_disk: str = ""
    finish: str = "none"
    number: str = "17"
    items: dict[str, bytes] = field(default_factory=dict)
    manifest: str = ""
    work: dict[str, str] = field(default_factory=dict)
    progress: list[dict[str, str]] = field(default_factory=list)
    result: dict[str, str] | None = None
    finished: threading.Event = field(default_factory=threading.Event)
    # Misbehaviour
    damage: str = ""  # flip a byte in the middle of this item
    break_after: dict[str, list[int]] = field(default_factory=dict)  # item: bytes sent before each broken connection
    hold: str = ""  # this item stops half way until the job is over
    cancel: bool = False
    lie: str = ""  # answer the upload of this item with a wrong checksum
    ranges: list[str] = field(default_factory=list)

    def outcome(self) -> tuple[str, str]:
        """(ok, reason) of the posted result."""
        assert self.result is not None, "no result was posted"
        return self.result["ok"], self.result.get("reason", "")


class StandIn:
    """``with StandIn(job) as server: server.url``."""

    def __init__(self, job: Job, address: str = "127.0.0.1", port: int = 0) -> None:
        self.job = job
        handler = type("BoundHandler", (Handler,), {"job": job})
        self.httpd = ThreadingHTTPServer((address, port), handler)
        self.httpd.daemon_threads = True
        self.url = f"http://{address}:{self.httpd.server_address[1]}"
        self.thread = threading.Thread(target=self.httpd.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> StandIn:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.job.finished.set()
        self.httpd.shutdown()
        self.httpd.server_close()
        self.thread.join()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    job: Job
    protocol_version = "HTTP/1.1"
    timeout = 60  # a client that died in the middle

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""

    def do_GET(self) -> None:
        """Manifest and items."""
        if not self.allowed():
            return
        if self.path == f"/client/v1/jobs/{self.job.number}/manifest":
            self.answer(200, self.job.manifest)
        elif (match := ITEM.fullmatch(self.path)) and match[2] in self.job.items:
            self.send_item(match[2])
        else:
            self.answer(404, "error: no such thing")

    def send_item(self, name: str) -> None:
        """Sends the whole item or the range asked for, with the misbehaviour that the test wants."""
        job = self.job
        data = job.items[name]
        if job.damage == name:
            middle = len(data) // 2
            data = data[:middle] + bytes([data[middle] ^ 0x40]) + data[middle + 1 :]
        start = 0
        if asked := self.headers.get("Range"):
            job.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").split("-")[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if breaks := job.break_after.get(name):
            self.wfile.write(data[start : start + breaks.pop(0)])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif job.hold == name:
            self.wfile.write(data[start : start + (len(data) - start) // 2])
            self.wfile.flush()
            job.finished.wait(60)
            self.close_connection = True
        else:
            self.wfile.write(data[start:])

    def do_PUT(self) -> None:
        """Takes an item, answers size and checksum."""
        body = self.body()
        if not self.allowed():
            return None
        match = ITEM.fullmatch(self.path)
        if not match:
            return self.answer(400, "error: bad item name")
        self.job.items[match[2]] = body
        digest = hashlib.sha256(b"lie" if self.job.lie == match[2] else body).hexdigest()
        return self.answer(200, f"{len(body)} {digest}\n")

    def do_POST(self) -> None:
        """Work, progress, commit, result."""
        body = self.body()
        if not self.allowed():
            return None
        job = self.job
        prefix = f"/client/v1/jobs/{job.number}/"
        fields = {} if self.path.endswith("/commit") else {k: v[0] for k, v in parse_qs(body.decode()).items()}
        if self.path == "/client/v1/work":
            job.work = fields
            quoted = job.target_disk.replace("'", "'\\''")
            return self.answer(
                200,
                f"ACTION='{job.action}'\nJOB='{job.number}'\nIMAGE='an-image'\n"
                f"TARGET_DISK='{quoted}'\nFINISH='{job.finish}'\n",
            )
        if self.path == prefix + "progress":
            job.progress.append(fields)
            return self.answer(200, "CANCEL" if job.cancel else "CONTINUE")
        if self.path == prefix + "commit":
            return self.commit(body.decode())
        if self.path == prefix + "result":
            job.result = fields
            job.finished.set()
            return self.answer(200, "OK")
        return self.answer(404, "error: no such thing")

    def commit(self, manifest: str) -> None:
        """Accepts a manifest whose items are all there with the sizes and checksums that it says."""
        for line in manifest.splitlines()[2:]:
            _, name, _, _, stored, digest, _ = line.split(" ")
            data = self.job.items.get(name, b"")
            if len(data) != int(stored) or hashlib.sha256(data).hexdigest() != digest:
                return self.answer(409, f"error: item {name} is not what arrived")
        self.job.manifest = manifest
        return self.answer(200, "COMMITTED")

    def body(self) -> bytes:
        """The request's body, chunked or with a length."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def allowed(self) -> bool:
        """Whether the request carries the token; refuses it otherwise."""
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self.answer(401, "error: wrong token")
        return False

    def answer(self, status: int, text: str) -> None:
        """One text line or a few."""
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
