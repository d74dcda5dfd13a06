"""Uploads in parts as a client sends them, many at once; prints one JSON object. In a process of its own, for its core.

One rule: nothing is made here while the clock runs: the parts lie compressed, with their digests.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import resource
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

BLOCK = 1 << 20


class Refused(Exception):
    """The server did not take something."""


class Client:
    """One connection that uploads the parts of one image, and gives the upload up in the end."""

    def __init__(self, port: int, token: str, image: str) -> None:
        self._wire = http.client.HTTPConnection("127.0.0.1", port, timeout=300, blocksize=BLOCK)
        self._headers = {"Authorization": f"Bearer {token}"}
        self._image = image
        self._upload = ""

    def begin(self) -> None:
        body = json.dumps({"bytes": 0}).encode()
        self._upload = json.loads(self._ask("POST", f"/api/v1/images/{self._image}/uploads", body, 201))["upload"]

    def send(self, number: int, data: bytes, digest: str) -> None:
        where = f"/api/v1/uploads/{self._upload}/items/p1.ext4.zst/parts/{number}?kind=partclone.ext4"
        self._ask("PUT", where, data, 200, {"X-Checksum-SHA256": digest})

    def complete(self, parts: int) -> dict[str, Any]:
        """What the item became: stored_bytes, sha256."""
        body = json.dumps({"parts": parts}).encode()
        where = f"/api/v1/uploads/{self._upload}/items/p1.ext4.zst/complete"
        found: dict[str, Any] = json.loads(self._ask("POST", where, body, 200))
        return found

    def commit(self, manifest: str) -> None:
        """Make it an image."""
        self._ask("POST", f"/api/v1/uploads/{self._upload}/commit", manifest.encode(), 201)
        self._wire.close()

    def end(self) -> None:
        self._ask("DELETE", f"/api/v1/uploads/{self._upload}", None, 204)
        self._wire.close()

    def _ask(
        self, method: str, path: str, body: bytes | None, wanted: int, more: dict[str, str] | None = None
    ) -> bytes:
        headers = self._headers | (more or {}) | ({"Content-Type": "application/json"} if method == "POST" else {})
        self._wire.request(method, path, body, headers)
        answer = self._wire.getresponse()
        said = answer.read()
        if answer.status != wanted:
            raise Refused(f"{answer.status} {said.decode(errors='replace')[:200]}")
        return said


def run(given: argparse.Namespace) -> dict[str, object]:
    """The parts of all clients, from the first byte to the last answer."""
    paths = [given.parts / f"part{number}" for number in range(1, given.count + 1)]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    clients = [Client(given.port, given.token, f"bench-up-{number}") for number in range(given.clients)]
    for client in clients:
        client.begin()
    failed: list[str] = []
    sent = [0] * len(clients)
    start = threading.Barrier(len(clients) + 1)

    def work(number: int) -> None:
        start.wait()
        try:
            for place, (path, digest) in enumerate(zip(paths, digests, strict=True), 1):
                clients[number].send(place, path.read_bytes(), digest)
                sent[number] += given.part_bytes
        except (OSError, http.client.HTTPException, Refused) as fault:
            failed.append(str(fault))

    with ThreadPoolExecutor(len(clients)) as pool:
        works = [pool.submit(work, number) for number in range(len(clients))]
        start.wait()
        began = time.monotonic()
        for each in works:
            each.result()
        seconds = time.monotonic() - began
    if not failed:
        for client in clients:
            client.end()
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": seconds, "all_seconds": seconds, "bytes": sum(sent), "all_bytes": sum(sent), "bad": 0,
        "failed": len(failed), "unfinished": 0, "error": failed[0] if failed else "",
        "cpu_seconds": used.ru_utime + used.ru_stime,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--parts", type=Path, required=True, help="directory with part1, part2 ...")
    parser.add_argument("--part-bytes", type=int, required=True, help="of each, uncompressed")
    parser.add_argument("--count", type=int, required=True, help="parts of each client")
    parser.add_argument("--clients", type=int, required=True)
    json.dump(run(parser.parse_args()), sys.stdout)


if __name__ == "__main__":
    main()
