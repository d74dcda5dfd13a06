"""The real server with one device, and the client script run against it as a boot would start it."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.support.process import Installed

SCRIPT = Path(__file__).parents[2] / "client" / "pbclient.sh"
MAC = "52:54:00:00:cc:01"
SHELLS = {"dash": ["dash"], "busybox": ["busybox", "sh"]}


@dataclass
class Site:
    """``shell`` runs the client."""

    server: Installed
    place: Path
    shell: list[str] = field(default_factory=lambda: SHELLS["dash"])

    def api(self, method: str, path: str, body: object = None) -> Any:
        """What the server answers to its administrator; None when it has no content."""
        answer = httpx.request(
            method, f"{self.server.url}/api/v1{path}", json=body, trust_env=False,
            headers={"Authorization": f"Bearer {self.server.token}"},
        )  # fmt: skip
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def apply(self, objects: Mapping[str, Mapping[str, Mapping[str, object]]]) -> None:
        """Objects of the policy by kind and name."""
        self.api("POST", "/apply", {"objects": objects})

    def order(self, name: str, /, **bundle: object) -> int:
        """One-shot work of a bundle with these fields; its number."""
        self.apply({"bundle": {name: {"finish": "none", **bundle}}})
        return int(self.api("POST", "/work", {"bundle": name, "mac": MAC})["work"]["id"])

    def cancel(self, number: int) -> None:
        """The administrator cancels the work."""
        self.api("POST", f"/work/{number}/cancel")

    @property
    def token(self) -> str:
        """That of the work that the device has now, as its boot script hands it out."""
        script = httpx.get(f"{self.server.url}/boot/{MAC.replace(':', '-')}.ipxe", trust_env=False).text
        found = re.search(r"pb\.token=(\S+)", script)
        assert found, script
        return found[1]

    def command(self, *options: str) -> list[str]:
        """How the client is called, rebooting nothing."""
        words = ["--url", self.server.url, "--token", self.token, "--mac", MAC, "--no-reboot"]
        return [*self.shell, str(SCRIPT), *words, *options]

    def run(self, *options: str, stdin: str = "", **environment: str) -> str:
        """The client's output, with its exit code in the last line; ``stdin`` is what a person types."""
        done = subprocess.run(
            self.command(*options), input=stdin, capture_output=True, text=True, timeout=100, check=False,
            env=os.environ | {"SHELL": "/bin/sh", "TMPDIR": str(self.place)} | environment,
        )  # fmt: skip
        return f"{done.stdout}{done.stderr}exit {done.returncode}"

    def start(self, *options: str, group: bool = False) -> subprocess.Popen[str]:
        """The client at work, its output in a pipe, and nobody typing at its input; in a process group of its own?"""
        return subprocess.Popen(
            self.command(*options), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, env=os.environ | {"TMPDIR": str(self.place)}, start_new_session=group,
        )  # fmt: skip

    def work(self, number: int) -> Any:
        """The work as the API shows it, with its jobs, the newest first."""
        jobs = [job for job in self.api("GET", f"/jobs?mac={MAC}") if job["work_id"] == number]
        return {**self.api("GET", f"/work/{number}"), "jobs": jobs}

    def newest(self) -> Any:
        """The newest work of all."""
        return self.work(self.api("GET", "/work?everything=true&limit=1")[0]["id"])

    def history(self) -> list[str]:
        """What happened to the device, oldest first."""
        return [f"{event['what']}: {event['detail']}" for event in self.api("GET", f"/devices/{MAC}/history")]


def until(reached: Callable[[], bool], timeout_s: float = 20) -> None:
    """Wait for something of another process."""
    end = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)
