"""How this process runs while it analyses."""

from __future__ import annotations

import atexit
import contextlib
import gc
import sys
from collections.abc import Iterator

_DEPTH = 6_000


def short_lived() -> None:
    """For a process that does nothing but one run: its memory goes back when it ends.

    Otherwise the collector looks through all that the run has made when it is switched on again, and once more when
    Python ends: together a fifth of a run.
    """
    gc.disable()
    atexit.register(gc.freeze)


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Without the garbage collector, and with room for recursion over nested code.

    Nearly everything that is made stays until the end and is in no cycle. The collector would look through all of
    it again and again: a third of the time of parsing, and nine tenths of the time of reading the cache.
    """
    collecting, limit = gc.isenabled(), sys.getrecursionlimit()
    gc.disable()
    sys.setrecursionlimit(max(limit, _DEPTH))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
        if collecting:
            gc.enable()
