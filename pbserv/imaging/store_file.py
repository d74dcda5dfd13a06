"""The file in the root of a store that says what it is and gives it a number of its own. Blocking.

One rule: it is written once, at the first start, and never changes.
"""

from __future__ import annotations

import json
import os
import uuid
from typing import Final

from pbserv.imaging.about import Record
from pbserv.imaging.durable import open_file, write_durably

STORE_FILE: Final = ".store"
STORE_FORMAT: Final = 2
_MOST: Final = 4096


def identify(root_fd: int, name: str) -> str:
    """The number of the store; made where there is none yet. Raises OSError, DamagedImage."""
    try:
        with open_file(STORE_FILE, root_fd) as file:
            data = file.read(_MOST) or b""
    except FileNotFoundError:
        number = str(uuid.uuid4())
        text = json.dumps({"format": STORE_FORMAT, "id": number, "name": name}) + "\n"
        write_durably(STORE_FILE + ".new", text.encode(), root_fd)
        os.rename(STORE_FILE + ".new", STORE_FILE, src_dir_fd=root_fd, dst_dir_fd=root_fd)
        os.fsync(root_fd)
        return number
    return Record.read(data, STORE_FILE, STORE_FORMAT).text("id")
