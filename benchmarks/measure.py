"""One command: how long it takes and how much memory it needs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class MeasurementError(Exception):
    """The command could not be measured; the message says why."""


@dataclass(frozen=True)
class Measurement:
    """Wall-clock seconds, seconds of all processors together, and the memory of the largest of its processes."""

    seconds: float
    processor: float
    megabytes: float


def measure(command: Sequence[str], *, cwd: Path, text: str | None = None, timeout: float | None = None) -> Measurement:
    """Run a command to its end. Raises MeasurementError if it takes too long or dies of a signal.

    The exit status is not looked at: a linter that finds something does not exit with 0. But session-lint is
    run with --exit-zero, and its failure would be a benchmark of nothing.
    """
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as errors:
        given.write((text or "").encode())
        given.seek(0)
        begin = time.perf_counter()
        process = subprocess.Popen(command, cwd=cwd, stdin=given, stdout=subprocess.DEVNULL, stderr=errors)
        timer = threading.Timer(timeout, process.kill) if timeout is not None else None
        if timer is not None:
            timer.start()
        processor, megabytes = _wait(process)
        seconds = time.perf_counter() - begin
        if timer is not None:
            timer.cancel()
        if timeout is not None and seconds >= timeout:
            raise MeasurementError(f"stopped after {timeout:.0f} s")
        if process.returncode < 0:
            raise MeasurementError(f"died of signal {-process.returncode}")
        if "--exit-zero" in command and process.returncode != 0:
            errors.seek(0)
            raise MeasurementError(
                f"exit status {process.returncode}: {errors.read().decode(errors='replace').strip()}"
            )
    return Measurement(seconds, processor, megabytes)


def _wait(process: subprocess.Popen[bytes]) -> tuple[float, float]:
    """Wait for the end; processor seconds and peak memory in megabytes, 0 where the system does not tell."""
    if not hasattr(os, "wait4"):
        process.wait()
        return 0.0, 0.0
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    # ru_maxrss: bytes on macOS, kilobytes elsewhere.
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def peak_of_all_processes(command: Sequence[str], *, cwd: Path) -> float | None:
    """The highest sum of memory of a command and all its children, in megabytes; None where /proc has no answer.

    Memory that processes share is counted once (PSS). Sampling costs time, so such a run is not timed.
    """
    if not Path("/proc/self/smaps_rollup").exists():
        return None
    process = subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(map(_proportional_kilobytes, _family(process.pid))))
        time.sleep(0.02)
    return peak / 1e3


def _family(pid: int) -> list[int]:
    members = [pid]
    for member in members:
        try:
            for tasks in Path(f"/proc/{member}/task").iterdir():
                members += map(int, (tasks / "children").read_text().split())
        except OSError:
            continue  # it has ended meanwhile
    return members


def _proportional_kilobytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
