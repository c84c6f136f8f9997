"""What one run of tests has shown: the evidence, and which lines of the project were reached by whom."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from session_lint.runtime.evidence import Evidence
from session_lint.runtime.places import Place, shown

VERSION = 1

RUNNING = "SESSION_LINT_RUNNING"
"""The environment variable that names the file in which stands what is run at the moment."""


@dataclass
class RunReport:
    """seen: for every file, the lines that took part in a session's life, each with the test that came first.

    status: pytest's own exit status.
    """

    evidence: list[Evidence] = field(default_factory=list)
    seen: dict[str, dict[int, str]] = field(default_factory=dict)
    tests: int = 0
    runs: int = 0
    notes: list[str] = field(default_factory=list)
    lost: str = ""
    status: int = 0
    _keys: set[tuple[object, ...]] = field(default_factory=set, repr=False)

    def add(self, evidence: Evidence) -> None:
        """Add it unless the same was proved before; a proof that needs no fault is said in any case."""
        # In words: a place that came from a file is relative to the working directory, another is not.
        key = (evidence.oracle, str(evidence.opened), frozenset(map(str, evidence.places)), not evidence.fault)
        if key not in self._keys:
            self._keys.add(key)
            self.evidence.append(evidence)

    def note(self, line: str) -> None:
        """Say it once."""
        if line not in self.notes:
            self.notes.append(line)

    def saw(self, places: Iterable[Place], test: str) -> None:
        for place in places:
            self.seen.setdefault(shown(place.path), {}).setdefault(place.line, test)

    def merge(self, other: RunReport) -> None:
        """Add what another worker has seen."""
        for evidence in other.evidence:
            self.add(evidence)
        for path, lines in other.seen.items():
            for line, test in lines.items():
                self.seen.setdefault(path, {}).setdefault(line, test)
        self.tests += other.tests
        self.runs += other.runs
        for note in other.notes:
            self.note(note)
        self.lost = self.lost or other.lost

    def lines(self) -> Iterator[str]:
        """For people: one line for each oracle and place that opened it, without the places in between."""
        counted: dict[tuple[str, str], tuple[Evidence, int]] = {}
        for evidence in self.evidence:
            key = (evidence.oracle.value, str(evidence.opened))
            first, count = counted.get(key, (evidence, 0))
            counted[key] = (first, count + 1)
        for first, count in counted.values():
            how = f" when {first.fault}" if first.fault else ""
            more = f", and {count - 1} more like it" if count > 1 else ""
            yield f"{first}{how} [{first.test}]{more}"
        yield (
            f"{len(counted)} found in {self.tests} test(s)"
            + (f" and {self.runs} run(s) with a fault" if self.runs else "")
            + "."
        )
        yield from self.notes
        if self.lost:
            yield self.lost

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "version": VERSION,
            "evidence": [evidence.as_dict() for evidence in self.evidence],
            "seen": {
                path: {str(line): test for line, test in sorted(seen.items())} for path, seen in self.seen.items()
            },
            "tests": self.tests,
            "runs": self.runs,
            "notes": self.notes,
            "lost": self.lost,
            "status": self.status,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> RunReport:
        report = cls(
            seen={path: {int(line): test for line, test in lines.items()} for path, lines in value["seen"].items()},
            tests=value["tests"],
            runs=value["runs"],
            notes=list(value["notes"]),
            lost=value["lost"],
            status=value.get("status", 0),
        )
        for evidence in value["evidence"]:
            report.add(Evidence.from_dict(evidence))
        return report
