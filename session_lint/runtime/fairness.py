"""How long something took, but for the time in which this process was ready and other programs had the processors."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

_THREADS = Path("/proc/self/task")


def fair_time() -> float:
    """Seconds since some moment, as `time.monotonic`, less those that our threads have waited for a processor.

    Only Linux tells of these. A thread that has ended takes its own along, so that two calls in turn may differ by
    more than went by: then it is `time.monotonic` that is right.
    """
    return time.monotonic() - _kept_waiting()


def _kept_waiting() -> float:
    seconds = 0.0
    with contextlib.suppress(OSError):
        for thread in _THREADS.iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):
                # Nanoseconds on a processor and in the queue for one, and the number of its turns.
                seconds += int((thread / "schedstat").read_bytes().split()[1]) / 1e9
    return seconds
