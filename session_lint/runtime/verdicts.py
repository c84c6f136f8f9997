"""Joins findings with evidence: by rule, through the oracles that prove it, and by place, through the functions.

Imports nothing of SQLAlchemy: it reads what a run of tests has left in its report.
"""

from __future__ import annotations

import ast
import functools
import tokenize
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from session_lint.findings import Affected, Finding, Verdict
from session_lint.runtime.evidence import PROVES, Evidence
from session_lint.runtime.places import Place, shown
from session_lint.runtime.report import RunReport


@dataclass(frozen=True)
class Judged:
    """A finding, or one of the functions that it exposes, and what the tests have shown of it.

    reached: the test that first came there.
    """

    subject: Finding | Affected
    verdict: Verdict
    evidence: tuple[Evidence, ...] = ()
    reached: str = ""
    exposed: tuple[Judged, ...] = ()

    @property
    def proved(self) -> Finding:
        """The finding with its verdict and evidence."""
        assert isinstance(self.subject, Finding)
        affects = [
            replace(affected, verdict=exposed.verdict, evidence=exposed.evidence)
            for affected, exposed in zip(self.subject.affects, self.exposed, strict=True)
        ]
        return replace(self.subject, verdict=self.verdict, evidence=self.evidence, affects=tuple(affects))


@dataclass(frozen=True)
class Verdicts:
    """missed: evidence of a bug in the checked files that no finding speaks of, not even one held back."""

    findings: tuple[Judged, ...]
    missed: tuple[Evidence, ...] = ()
    report: RunReport = field(default_factory=RunReport)

    @property
    def proved(self) -> list[Finding]:
        """The findings with what was shown of them."""
        return [judged.proved for judged in self.findings]


def judge(findings: Sequence[Finding], others: Iterable[Finding], files: Iterable[str], report: RunReport) -> Verdicts:
    """Give each finding its verdict.

    others: findings that were held back, suppressed or mitigated, which nobody can call missed.
    files: what was checked, as findings name it.
    """
    judged = tuple(_judged(finding, report) for finding in findings)
    evidence_of = [(finding, each.evidence) for finding, each in zip(findings, judged, strict=True)]
    evidence_of += [(finding, tuple(_matching(finding.code, _functions(finding), report))) for finding in others]
    known = {id(evidence) for _, found in evidence_of for evidence in found}
    for finding, found in evidence_of:
        # The same session in another state: whoever reads the finding looks at the place that opened it.
        functions = _functions(finding)
        opened = {e.opened for e in found if e.opened}
        known.update(
            id(e)
            for e in report.evidence
            if e.opened and (_within(e.opened, functions) or (e.opened in opened and _inside(e, functions)))
        )
    checked = set(files)
    missed: dict[tuple[object, ...], Evidence] = {}
    for evidence in report.evidence:
        places = {shown(place.path) for place in evidence.places}
        if id(evidence) not in known and places & checked and any([evidence.oracle in o for o in PROVES.values()]):
            missed.setdefault((evidence.oracle, evidence.opened), evidence)
    said = {(e.oracle, e.opened) for e in report.evidence if id(e) in known}
    return Verdicts(judged, tuple(e for key, e in missed.items() if key not in said), report)


def _judged(finding: Finding, report: RunReport) -> Judged:
    functions = _functions(finding)
    if not PROVES.get(finding.code):
        return Judged(finding, Verdict.STATIC, exposed=tuple([Judged(a, Verdict.STATIC) for a in finding.affects]))
    exposed = tuple(_exposed(finding, affected, report) for affected in finding.affects)
    evidence = tuple(_matching(finding.code, functions, report))
    reached = next((test for path, lines in functions if (test := _reached(path, lines, report))), "")
    return Judged(finding, _verdict(evidence, reached), evidence, reached, exposed)


def _exposed(finding: Finding, affected: Affected, report: RunReport) -> Judged:
    """An exposed function: evidence of the finding in which this function had a part."""
    functions = [(affected.path, _lines(affected.path, affected.function, affected.line))]
    both = [e for e in _matching(finding.code, functions, report) if _inside(e, _functions(finding))]
    reached = _reached(*functions[0], report)
    return Judged(affected, _verdict(both, reached), tuple(both), reached)


def _verdict(evidence: Sequence[Evidence], reached: str) -> Verdict:
    if evidence:
        return Verdict.CONFIRMED
    return Verdict.NOT_REPRODUCED if reached else Verdict.NOT_REACHED


Lines = range
Functions = list[tuple[str, Lines]]


def _functions(finding: Finding) -> Functions:
    """Where evidence of it is looked for: in its function. What a module makes is seen only where functions use it."""
    affected = () if finding.function else finding.affects
    places = [(finding.path, finding.function, finding.line), *((a.path, a.function, a.line) for a in affected)]
    return [(path, _lines(path, function, line)) for path, function, line in places]


def _matching(code: str, functions: Functions, report: RunReport) -> Iterable[Evidence]:
    oracles = PROVES.get(code, ())
    return (e for e in report.evidence if e.oracle in oracles and _inside(e, functions))


def _inside(evidence: Evidence, functions: Functions) -> bool:
    return any([_within(place, functions) for place in evidence.places])


def _within(place: Place, functions: Functions) -> bool:
    return any([shown(place.path) == path and place.line in lines for path, lines in functions])


def _reached(path: str, lines: Lines, report: RunReport) -> str:
    return next((test for line, test in sorted(report.seen.get(path, {}).items()) if line in lines), "")


def _lines(path: str, function: str, line: int) -> Lines:
    """The lines of the function of this name around a line; all of the file for code outside of functions."""
    if not function:
        return range(1, 1 << 30)
    spans = [span for name, span in _definitions(str(Path(path).resolve())) if name == function]
    return next((span for span in spans if line in span), spans[0] if spans else range(line, line + 1))


@functools.lru_cache(maxsize=512)
def _definitions(path: str) -> tuple[tuple[str, Lines], ...]:
    """Every function of a file by its qualified name, with its lines and its decorators'."""
    try:
        with tokenize.open(path) as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return ()
    found: list[tuple[str, Lines]] = []

    def walk(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = prefix
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                name = f"{prefix}{child.name}"
                if not isinstance(child, ast.ClassDef):
                    first = min([child.lineno, *(decorator.lineno for decorator in child.decorator_list)])
                    found.append((name, range(first, (child.end_lineno or child.lineno) + 1)))
                name += "."
            walk(child, name)

    walk(tree, "")
    return tuple(found)


# ------------------------------------------------------------------------------------------------- for later runs


def with_verdicts(findings: Iterable[Finding], document: dict[str, Any]) -> list[Finding]:
    """The findings with the verdicts and the evidence of an earlier `confirm`, as its JSON says them."""
    known = {entry["fingerprint"]: entry for entry in document.get("findings", ())}
    return [_as_known(finding, known.get(finding.fingerprint)) for finding in findings]


def _as_known(finding: Finding, entry: dict[str, Any] | None) -> Finding:
    if entry is None:
        return finding
    exposed = {(each["path"], each["function"]): each for each in entry["affects"] if "verdict" in each}
    affects = [
        replace(affected, **_proved(known)) if (known := exposed.get((affected.path, affected.function))) else affected
        for affected in finding.affects
    ]
    return replace(finding, affects=tuple(affects), **_proved(entry))


def _proved(entry: dict[str, Any]) -> dict[str, Any]:
    evidence = tuple([Evidence.from_dict(each) for each in entry.get("evidence", ())])
    return {"verdict": Verdict(entry["verdict"]), "evidence": evidence}
