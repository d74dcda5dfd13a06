"""TFTP side by side on the loopback: the server on one core, the load generator on the other.

``python bench/tftp/run.py [--rounds N] [--json FILE]``. Needs gcc, taskset and dnsmasq. A row in which a peer refused
or failed clients, or delivered wrong bytes, does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
MIB = 1 << 20
# clients, bytes, block size, window, rounds per client
ROWS = [
    (64, MIB, 1428, 1, 3),
    (256, MIB, 1428, 1, 1),
    (64, 64 << 10, 1428, 1, 30),
    (1, 32 * MIB, 1428, 1, 1),
    (64, MIB, 1428, 4, 3),
    (64, MIB, 1428, 16, 6),
    (64, MIB, 1428, 45, 6),
    (1, 32 * MIB, 1428, 16, 2),
]


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
        raw.bind(("127.0.0.1", 0))
        return int(raw.getsockname()[1])


def pattern(size: int) -> bytes:
    """The same bytes as fill() in load.c."""
    return bytes(((i * 2654435761) & 0xFFFFFFFFFFFFFFFF) >> 13 & 255 for i in range(size))


def ours(folder: Path, port: int) -> list[str]:
    return [sys.executable, str(HERE / "serve.py"), str(folder), str(port), "64", "2000"]


def dnsmasq(folder: Path, port: int) -> list[str]:
    return [
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root", "--quiet-tftp",
        "--port=0", "--listen-address=127.0.0.1", "--bind-interfaces",
        "--enable-tftp", f"--tftp-root={folder}", "--tftp-max=2000", "--tftp-mtu=1500",
    ]  # fmt: skip


@contextmanager
def running(command: list[str], core: int) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    process = subprocess.Popen(
        ["taskset", "-c", str(core), *command], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(program: Path, port: int, row: tuple[int, int, int, int, int]) -> dict[str, float]:
    clients, size, block, window, rounds = row
    command = ["taskset", "-c", "1", str(program), "127.0.0.1", str(port), f"f{size}", str(size)]
    out = subprocess.run(
        [*command, str(clients), str(block), str(window), str(rounds)], capture_output=True, check=True, timeout=400
    )
    found: dict[str, float] = json.loads(out.stdout)
    return found


def wait_ready(program: Path, port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        if process.poll() is not None:
            raise SystemExit(f"the server ended with {process.returncode}")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
            raw.settimeout(0.1)
            raw.sendto(b"\0\1none\0octet\0", ("127.0.0.1", port))
            try:
                raw.recv(600)
            except OSError:
                time.sleep(0.05)
                continue
            return
    raise SystemExit("the server does not answer")


def measure(make: Callable[[Path, int], list[str]], port: int, folder: Path, program: Path, row: tuple) -> dict:
    with running(make(folder, port), 0) as process:
        wait_ready(program, port, process)
        before = cpu_seconds(process)
        found = load(program, port, row)
        found["server_cpu_seconds"] = cpu_seconds(process) - before
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rows", type=int, nargs="*", help="numbers of the rows to run, from 0")
    given = parser.parse_args()
    if os.geteuid() != 0 or shutil.which("dnsmasq") is None:
        raise SystemExit("needs root (dnsmasq serves TFTP on port 69 only) and the Debian package dnsmasq-base")
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        program = folder / "load"
        subprocess.run(["gcc", "-O2", "-w", "-o", str(program), str(HERE / "load.c")], check=True)
        rows = [ROWS[n] for n in given.rows] if given.rows else ROWS
        for size in {row[1] for row in rows}:
            (folder / f"f{size}").write_bytes(pattern(size))
        for row in rows:
            results.append(compare(folder, program, row, given.rounds))
            print(show(results[-1]), flush=True)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1))


def compare(folder: Path, program: Path, row: tuple[int, int, int, int, int], rounds: int) -> dict:
    seen: dict[str, list[dict]] = {"pbserv": [], "dnsmasq": []}
    for _ in range(rounds):
        seen["pbserv"].append(measure(ours, free_port(), folder, program, row))
        seen["dnsmasq"].append(measure(dnsmasq, 69, folder, program, row))
    ratios = [
        (one["bytes"] / one["seconds"]) / (other["bytes"] / other["seconds"])
        for one, other in zip(seen["pbserv"], seen["dnsmasq"], strict=True)
    ]
    return {"row": row, "ratio": statistics.median(ratios), **seen}


def show(result: dict) -> str:
    clients, size, block, window, _ = result["row"]
    text = f"{clients:4} x {size >> 10:6} KiB, blksize {block}, windowsize {window:2}:"
    for who in ("pbserv", "dnsmasq"):
        rate = statistics.median(one["blocks"] / one["seconds"] for one in result[who])
        cpu = statistics.median(one["server_cpu_seconds"] / one["bytes"] * 1e9 for one in result[who])
        faults = sum(one["bad"] + one["failed"] for one in result[who])
        retries = sum(one["retries"] for one in result[who])
        agreed = f"{result[who][0]['blksize']:.0f}/{result[who][0]['windowsize']:.0f}"
        text += f"  {who} {rate / 1000:6.1f}k blocks/s ({agreed}, {cpu:.2f} CPU s/GB, {retries} retries"
        text += f", {faults} FAULTS)" if faults else ")"
    return text + f"  ratio {result['ratio']:.2f}"


if __name__ == "__main__":
    main()
