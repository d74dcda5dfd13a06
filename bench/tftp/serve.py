"""The TFTP service alone, in a process of its own, for the benchmark."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import uvloop

from pbserv.log import ServiceLog
from pbserv.tftp.config import TftpConf
from pbserv.tftp.service import TftpService


class Nobody:
    """No virtual files, no observer."""

    def find(self, name: str, peer: str, local: str) -> bytes | None:
        return None

    def transferred(self, peer: str, name: str, outcome: str, size: int) -> None:
        return None

    def uploaded(self, peer: str, name: str, path: Path, size: int) -> None:
        return None


async def main(given: argparse.Namespace) -> None:
    service = TftpService(ServiceLog("tftp"), Nobody(), Nobody(), {})
    conf = TftpConf(
        interfaces=("127.0.0.1",),
        port=given.port,
        directory=given.directory,
        cache_size_mb=given.cache_mb,
        max_transfers=given.max_transfers,
        max_window=64,
        single_port=given.single_port,
    )
    await service.start(conf)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--cache-mb", type=int, default=64)
    parser.add_argument("--max-transfers", type=int, default=2000)
    parser.add_argument("--single-port", action="store_true")
    uvloop.run(main(parser.parse_args()))
