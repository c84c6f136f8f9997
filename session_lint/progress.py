"""A line that counts files, on a terminal and only if the run takes long."""

from __future__ import annotations

import time
from typing import TextIO

_PATIENCE = 1.0
_INTERVAL = 0.1


class Progress:
    """Called with the files done and the files there are. Silent for the first second."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._next = time.monotonic() + _PATIENCE
        self._shown = False

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _INTERVAL
        self._shown = True
        self._stream.write(f"\r\x1b[Ksession-lint: {done} of {total} files")
        self._stream.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            self._shown = False
            self._stream.write("\r\x1b[K")
            self._stream.flush()
