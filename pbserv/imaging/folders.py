"""Names in a store's directory: of images' folders, of what is in them, and of uploads.

One rule: a folder without ``about`` and without a version is somebody else's, and nothing is made, moved or removed
in it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection

INCOMING = ".incoming"
ABOUT_FILE = "about"
ABOUT_NEW = "about.new"
VERSION = re.compile(r"[1-9][0-9]{0,8}")


def incoming_name(image: str) -> str:
    """A new name for an upload directory; the end after the last dot names the upload."""
    return f"{image}.{secrets.token_hex(8)}"


def foreign(names: Collection[str]) -> bool:
    """Whether a folder with these entries is none of the store's. An empty one is: a crash came after it was made."""
    return bool(names) and not any(name in (ABOUT_FILE, ABOUT_NEW) or VERSION.fullmatch(name) for name in names)


def numeric(text: str) -> tuple[int, str]:
    """The order of versions' names."""
    return len(text), text
