"""Python's search for garbage that hangs together in rings, at times when there is none.

One rule: it is held off only around what is made to stay; all else is left to Python.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def held_off() -> Iterator[None]:
    """No search within: where a hundred thousand records are made that stay, it would look through all again and again.

    That is a third of the time of reading them. Other tasks that run meanwhile have their garbage searched afterwards.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
