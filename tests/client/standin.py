"""A stand-in for the server's side of the imaging client protocol: real HTTP on loopback, jobs in memory.

It checks what a client sends (token, names, order) and can misbehave on request: damage a byte, break a connection.
"""

from __future__ import annotations

import hashlib
import re
import socket
import struct
import subprocess
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import parse_qs

TOKEN = "a-token"
ITEM = re.compile(r"/client/v1/jobs/([^/]+)/items/([A-Za-z0-9_-][A-Za-z0-9._-]{0,63})$")
PART = re.compile(r"/client/v1/jobs/([^/]+)/items/([A-Za-z0-9_-][A-Za-z0-9._-]{0,63})/parts/(\d+)\?kind=([a-z0-9.]+)$")
ADDON = re.compile(r"/client/v1/jobs/[^/]+/addons/([^/]+)/(?:manifest|items/([^/]+))$")
COMPLETE = re.compile(r"/client/v1/jobs/([^/]+)/items/([A-Za-z0-9_-][A-Za-z0-9._-]{0,63})/complete$")


def unpacked(data: bytes) -> bytes:
    """What zstd makes of it."""
    return subprocess.run(["zstd", "-dcq"], input=data, capture_output=True, check=True).stdout


def facts_of(manifest: str, items: dict[str, bytes]) -> list[str]:
    """The facts with which a server lets what was written be read back."""
    facts = []
    for line in manifest.splitlines():
        word, name, kind, *_ = [*line.split(" "), "", ""]
        if word != "item" or not (kind == "raw" or kind.startswith("partclone.")):
            continue
        body = unpacked(items[name])
        if kind != "raw":
            (blocks,) = struct.unpack_from("<Q", body, 60)
            head = 110 + (blocks + 7) // 8 + 4
            facts.append(f"fact {name} head_bytes {head}")
            body = body[head:]
        facts.append(f"fact {name} body_sha256 {hashlib.sha256(body).hexdigest()}")
    return facts


@dataclass
class Job:
    """One job as the server tells it, and everything that the client said about it."""

    action: str
    target_disk: str = ""
    finish: str = "none"
    number: str = "17"
    items: dict[str, bytes] = field(default_factory=dict)
    manifest: str = ""
    options: dict[str, str] = field(default_factory=dict)  # further keys of the answer
    scripts: dict[str, str] = field(default_factory=dict)  # before, after
    identity: str = ""
    addons: dict[str, bytes] = field(default_factory=dict)  # the archive of each
    gets: list[str] = field(default_factory=list)  # items asked for
    parts: dict[str, list[bytes]] = field(default_factory=dict)
    received: dict[str, tuple[int, str]] = field(default_factory=dict)
    waits: int = 0  # answers "wait" to that many questions first
    work: dict[str, str] = field(default_factory=dict)
    progress: list[dict[str, str]] = field(default_factory=list)
    result: dict[str, str] | None = None
    finished: threading.Event = field(default_factory=threading.Event)
    expected: int = 0  # bytes that a capture was announced with
    room: int | None = None  # bytes that the store has left; None: enough
    # Misbehaviour
    damage: str = ""  # flip a byte in the middle of this item
    break_after: dict[str, list[int]] = field(default_factory=dict)  # item: bytes sent before each broken connection
    pause: dict[str, float] = field(default_factory=dict)  # seconds in the middle of an item, before it is complete
    hold: str = ""  # this item stops half way until the job is over
    cancel: bool = False  # in the middle of the item that is held, if one is
    lie: str = ""  # answer the upload of this item with a wrong checksum
    ranges: list[str] = field(default_factory=list)
    away: dict[str, int] = field(default_factory=dict)  # last word of a path: how many requests for it get a 503
    part_faults: dict[int, list[str]] = field(default_factory=dict)  # part: "503", "break", "forget" for each attempt

    at_part: tuple[int, threading.Event] | None = None  # told when this part of any item begins
    broken: bool = False  # every connection ends at once

    def again(self, action: str = "restore", **options: str) -> Job:
        """A job with the image that this one has."""
        return Job(action, items=self.items, manifest=self.manifest, options={"PROTOCOL": "2", **options})

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
        elif self.path.startswith(prefix := f"/client/v1/jobs/{self.job.number}/scripts/"):
            self.answer(200, self.job.scripts[self.path.removeprefix(prefix)])
        elif self.path.startswith(f"/client/v1/jobs/{self.job.number}/identity?form="):
            self.answer(200, self.job.identity + self.path.partition("=")[2])
        elif addon := ADDON.fullmatch(self.path):
            self.send_addon(addon[1], addon[2] or "")
        elif (match := ITEM.fullmatch(self.path)) and match[2] in self.job.items:
            self.send_item(match[2])
        else:
            self.answer(404, "error: no such thing")

    def send_addon(self, name: str, item: str) -> None:
        """The manifest of an add-on image, or its one item."""
        if name not in self.job.addons:
            return self.answer(404, "error: no such image")
        data = self.job.addons[name]
        if not item:
            digest = hashlib.sha256(data).hexdigest()
            lines = ["pbserv-image 1", "disk 0 512 none bios", f"item tree tree 0 {len(data)} {digest} 0"]
            return self.answer(200, "\n".join([*lines, "fact tree compressor zstd"]) + "\n")
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        return None

    def send_item(self, name: str) -> None:
        """Sends the whole item or the range asked for, with the misbehaviour that the test wants."""
        job = self.job
        job.gets.append(name)
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
        elif pause := job.pause.get(name):
            self.wfile.write(data[start : start + (len(data) - start) // 2])
            self.wfile.flush()
            time.sleep(pause)
            self.wfile.write(data[start + (len(data) - start) // 2 :])
        elif job.hold == name:
            self.wfile.write(data[start : start + (len(data) - start) // 2])
            self.wfile.flush()
            job.finished.wait(60)
            self.close_connection = True
        else:
            self.wfile.write(data[start:])

    def do_PUT(self) -> None:
        """Takes an item, answers size and checksum."""
        if part := PART.fullmatch(self.path):
            return self.take_part(part[2], int(part[3]))
        body = self.body()
        if not self.allowed():
            return None
        match = ITEM.fullmatch(self.path)
        if not match:
            return self.answer(400, "error: bad item name")
        if self.trouble(match[2]):
            return None
        self.job.expected = int(self.headers.get("X-Expected-Bytes", "0"))
        if self.job.room is not None and self.job.expected > self.job.room:
            return self.answer(507, "error: no room for that")
        self.job.items[match[2]] = body
        digest = hashlib.sha256(b"lie" if self.job.lie == match[2] else body).hexdigest()
        return self.answer(200, f"{len(body)} {digest}\n")

    def trouble(self, name: str) -> bool:
        """Whether the server is in trouble for this request, as one that restarts."""
        left = self.job.away.get(name, 0)
        self.job.away[name] = left - 1
        if left > 0:
            self.answer(503, "error: restarting")
        return left > 0

    def take_part(self, name: str, number: int) -> None:
        """A part of a stream: idempotent, in order, with its digest; or the misbehaviour that the test wants."""
        if self.job.at_part and self.job.at_part[0] == number:
            self.job.at_part[1].set()
            self.job.at_part = None
            self.job.finished.wait(10)  # the stand-in ends meanwhile
        faults = self.job.part_faults.get(number, [])
        fault = "break" if self.job.broken else faults.pop(0) if faults else ""
        if fault == "break":
            self.rfile.read(100)
            self.close_connection = True
            return self.connection.shutdown(socket.SHUT_RDWR)
        body = self.body()
        if not self.allowed():
            return None
        parts = self.job.parts.setdefault(name, [])
        if fault == "forget":
            del parts[-1]
        elif fault:
            return self.answer(int(fault), "error: in trouble")
        digest = hashlib.sha256(body).hexdigest()
        if self.headers["X-Checksum-SHA256"] != digest or self.headers["Content-Encoding"] != "zstd":
            return self.answer(400, "error: not what was sent")
        if number > len(parts) + 1 or number < 1 or (number <= len(parts) and parts[number - 1] != body):
            return self.answer(409, f"error: part {number} of {name} does not come next; next={len(parts) + 1}")
        if number == len(parts) + 1:
            parts.append(body)
        return self.answer(200, f"{len(parts) + 1} {sum(map(len, parts))} {digest}\n")

    def complete(self, name: str, fields: dict[str, str]) -> None:
        """The stream is whole when there are as many parts and bytes as the client says."""
        parts = self.job.parts.get(name, [])
        data = b"".join(parts)
        time.sleep(self.job.pause.get(name, 0))
        if len(parts) != int(fields["parts"]) or len(unpacked(data)) != int(fields["bytes"]):
            return self.answer(409, f"error: {name} is not whole")
        self.job.items[name] = data
        listed = hashlib.sha256("".join(hashlib.sha256(part).hexdigest() for part in parts).encode()).hexdigest()
        self.job.received[name] = (len(data), listed)
        return self.answer(200, f"{len(data)} {listed}\n")

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
            if job.waits > 0:
                job.waits -= 1
                return self.answer(
                    200, "ACTION='wait'\nRETRY_S='1'\nPOSITION='2'\nREASON='position 2 of 2'\nPROTOCOL=2\n"
                )
            quoted = job.target_disk.replace("'", "'\\''")
            options = "".join(f"{key}='{value}'\n" for key, value in job.options.items())
            return self.answer(
                200,
                f"ACTION='{job.action}'\nJOB='{job.number}'\nIMAGE='an-image'\n"
                f"TARGET_DISK='{quoted}'\nFINISH='{job.finish}'\n{options}",
            )
        if match := COMPLETE.fullmatch(self.path):
            return self.complete(match[2], fields)
        if self.path == prefix + "progress":
            job.progress.append(fields)
            held = not job.hold or (fields.get("item") == job.hold and fields["bytes"] != "0")
            return self.answer(200, "CANCEL" if job.cancel and held else "CONTINUE")
        if self.trouble(self.path.rsplit("/", 1)[1]):
            return None
        if self.path == prefix + "commit":
            return self.commit(body.decode())
        if self.path == prefix + "result":
            job.result = fields
            job.finished.set()
            return self.answer(200, "OK")
        return self.answer(404, "error: no such thing")

    def commit(self, manifest: str) -> None:
        """Accepts a manifest whose items are all there with the sizes and checksums that it says; adds facts to it."""
        kept = manifest.splitlines()[:2]
        for line in manifest.splitlines()[2:]:
            if line.startswith("fact "):
                kept.append(line)
                continue
            word, name, kind, number, stored, digest, plain = line.split(" ")
            data = self.job.items.get(name, b"")
            own = hashlib.sha256(data).hexdigest()
            if self.job.received.get(name, (len(data), own)) != (int(stored), digest):
                return self.answer(409, f"error: item {name} is not what arrived")
            kept.append(f"{word} {name} {kind} {number} {len(data)} {own} {plain}")
        if self.job.options.get("PROTOCOL"):
            kept += facts_of(manifest, self.job.items)
        self.job.manifest = "\n".join(kept) + "\n"
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
