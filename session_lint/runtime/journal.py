"""Which runs with a fault are done, and what they have shown: on disk, so that an interrupted run can go on.

One line for each run, written as soon as it is done: whoever is killed loses only the run that was under way.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

from session_lint.runtime.faults import Step
from session_lint.runtime.recording import Recording
from session_lint.runtime.report import RunReport


class Journal:
    """Without a file it knows nothing and writes nothing. Several workers may write to the same one."""

    def __init__(self, file: Path | None) -> None:
        """Raises OSError if the file can't be read or written."""
        self._file = file
        self._done: dict[str, Any] = {}
        if file is None:
            return
        with file.open("a+", encoding="utf-8") as opened:
            opened.seek(0)
            text = opened.read()
            if not text.endswith("\n"):
                opened.write("\n")  # somebody was killed in the middle of his line
        for line in text.splitlines():
            with contextlib.suppress(ValueError):
                self._done.update(json.loads(line))

    def name(self, test: str, step: Step, first: Recording) -> str:
        """What stands for a run: another one as soon as a file changes in which the test had come by."""
        if self._file is None:
            return ""
        files = sorted({place.path for frames in first.frames() for place in frames.places})
        parts = [test, step.point, step.fault.value, step.kind.value, step.at, *map(_digest, files)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def known(self, name: str) -> RunReport | None:
        """What the run has shown, if it was done before the interruption."""
        return RunReport.from_dict(self._done[name]) if name in self._done else None

    def add(self, name: str, report: RunReport) -> None:
        """A run is done."""
        if self._file is not None:
            line = json.dumps({name: report.as_dict()}) + "\n"
            with self._file.open("ab", buffering=0) as opened:  # one write to the end, so that lines do not mix
                opened.write(line.encode())

    def remove(self) -> None:
        """All is done: the next run begins anew."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)


@functools.lru_cache(maxsize=1024)
def _digest(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return ""
