"""The TFTP service alone, for the benchmark: serve.py DIRECTORY PORT CACHE_MB MAX_TRANSFERS."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvloop

from pbserv.log import ServiceLog
from pbserv.tftp.config import TftpConf
from pbserv.tftp.service import TftpService


class Nobody:
    """Neither virtual files nor an observer."""

    def find(self, name: str, peer: str, local: str) -> bytes | None:
        return None

    def transferred(self, peer: str, name: str, outcome: str, size: int) -> None:
        return None


async def main() -> None:
    folder, port, cache, most = sys.argv[1:]
    service = TftpService(ServiceLog("tftp"), Nobody(), Nobody(), {})
    conf = TftpConf(
        interfaces=("127.0.0.1",),
        port=int(port),
        directory=Path(folder),
        cache_size_mb=int(cache),
        max_transfers=int(most),
        max_window=64,
    )
    await service.start(conf)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
