"""``store scrub`` beside programs that do the same work: bytes of the store verified per second of CPU time.

One rule: both read the same files in memory on the same core, one after the other; CPU time is what is compared, since
a scrub gives way to everything else (nice 10).
"""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from bench.imaging import serve
from bench.imaging.measure import Run, running
from bench.imaging.peers import PBSERV, Place
from bench.imaging.stream import PART_BYTES, make_stream
from bench.imaging.uploader import Client
from bench.imaging.work import Scrub
from bench.tftp.judge import OURS
from pbserv.imaging.manifest import DiskFacts, Manifest, ManifestItem, print_manifest

LIMIT_S = 600


class Bench:
    """A store with ``copies`` images of the same programs, each in frames, below ``scratch``."""

    def __init__(self, scratch: Path, copies: int) -> None:
        self._place = Place(scratch, scratch / "own", scratch / "files")
        self._place.files.mkdir(parents=True)
        self._core = min(os.sched_getaffinity(0))
        serve.configure(self._place.own, self._place.files)
        stream = make_stream(scratch)
        with running(PBSERV, self._place, self._core) as server:
            for number in range(copies):
                _store(f"bench-scrub-{number}", serve.token(self._place.own), stream)
            server.stop()
        stream.unlink()
        self._items = sorted((self._place.own / "state").rglob("p1.ext4.zst"))
        self.stored_bytes = sum(path.stat().st_size for path in self._items)

    def ours(self, scrub: Scrub) -> Run:
        """A fresh server verifies its store without a limit."""
        with running(PBSERV, self._place, self._core) as server:
            before = server.cpu_seconds()
            task = self._task(scrub.deep)
            used = server.cpu_seconds() - before
        wrong = task["state"] != "done" or "none damaged" not in task["result"]
        return {
            "bytes": task["done"], "all_bytes": task["done"], "seconds": task["seconds"], "server_cpu_seconds": used,
            "bad": int(wrong), "failed": int(task["done"] != self.stored_bytes), "unfinished": 0,
            "error": task["result"],
        }  # fmt: skip

    def peer(self, scrub: Scrub) -> Run:
        """The programs, which compare nothing: they only read, uncompress and hash."""
        words = ["taskset", "-c", str(self._core), "sh", "-ec", scrub.command, "sh", *map(str, self._items)]
        before, began = os.times(), time.monotonic()
        done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False, timeout=LIMIT_S)
        seconds, after = time.monotonic() - began, os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        return {
            "bytes": self.stored_bytes, "all_bytes": self.stored_bytes, "seconds": seconds, "server_cpu_seconds": used,
            "bad": 0, "failed": int(done.returncode != 0), "unfinished": 0,
            "error": done.stderr.decode(errors="replace")[-200:],
        }  # fmt: skip

    def _task(self, deep: bool) -> dict[str, Any]:
        wire = http.client.HTTPConnection(serve.HOST, serve.PORT, timeout=60)
        headers = {"Authorization": f"Bearer {serve.token(self._place.own)}", "Content-Type": "application/json"}
        order = json.dumps({"rate_mb": 0, "deep": deep, "repair": False})
        began = time.monotonic()
        task = _asked(wire, "POST", "/api/v1/stores/main/scrub", headers, order)
        while task["finished"] is None:
            if time.monotonic() - began > LIMIT_S:
                raise SystemExit(f"the scrub did not end within {LIMIT_S} s: {task}")
            time.sleep(0.05)
            task = _asked(wire, "GET", f"/api/v1/tasks/{task['task']}", headers)
        wire.close()
        return task | {"seconds": time.monotonic() - began}


def compare(bench: Bench, scrub: Scrub, rounds: int) -> list[dict[str, Run]]:
    """Paired rounds; who begins changes from round to round."""
    found = []
    for number in range(rounds):
        if number % 2:
            peer = bench.peer(scrub)
            found.append({OURS: bench.ours(scrub), scrub.peer: peer})
        else:
            found.append({OURS: bench.ours(scrub), scrub.peer: bench.peer(scrub)})
    return found


def _asked(
    wire: http.client.HTTPConnection, method: str, path: str, headers: dict[str, str], body: str | None = None
) -> dict[str, Any]:
    wire.request(method, path, body, headers)
    answer = wire.getresponse()
    said = answer.read()
    if answer.status not in (200, 202):
        raise SystemExit(f"{method} {path}: {answer.status} {said.decode(errors='replace')[:400]}")
    found: dict[str, Any] = json.loads(said)
    return found


def _store(image: str, token: str, stream: Path) -> None:
    """The stream as one item of an image, in parts as a device sends them."""
    client = Client(serve.PORT, token, image)
    client.begin()
    count = 0
    with stream.open("rb") as file:
        while data := file.read(PART_BYTES):
            count += 1
            client.send(count, data, sha256(data).hexdigest())
    stored = client.complete(count)
    size = stream.stat().st_size
    item = ManifestItem("p1.ext4.zst", "partclone.ext4", 1, stored["stored_bytes"], stored["sha256"], size)
    client.commit(print_manifest(Manifest(DiskFacts(0, 512, "none", "bios"), (item,))))


def versions(scrubs: Sequence[Scrub]) -> dict[str, str]:
    """Of the programs beside these, for the results."""
    found = {}
    for name, option in (("openssl", "version"), ("zstd", "--version")):
        if any(name in scrub.peer for scrub in scrubs):
            said = subprocess.run([name, option], capture_output=True, text=True, check=True).stdout
            number = re.search(r"\d+\.\d+\.\d+", said)
            found[name] = number[0] if number else said.strip()
    return found
