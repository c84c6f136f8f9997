"""What the analysis says of each file, as plain data for the cache."""

from __future__ import annotations

from typing import Any, NamedTuple

from session_lint.findings import Affected, Confidence, Finding, Severity, Span, Step
from session_lint.source.reading import Problem

Plain = tuple[Any, ...]


class FileResult(NamedTuple):
    """Plain in all its fields.

    problem: why the file could not be judged, None if it was. left_out: parts that could not, as problems. found:
    findings. held: findings that somebody cleans up after, each with who. comments: suppression comments. notes: what
    the findings do without, for --verbose.
    """

    problem: Plain | None
    left_out: tuple[Plain, ...] = ()
    found: tuple[Plain, ...] = ()
    held: tuple[tuple[Plain, str], ...] = ()
    functions: int = 0
    comments: Plain = ()
    notes: tuple[str, ...] = ()


def not_analysed(path: str, problem: Problem) -> Finding:
    """SES902. What lies in a folder named `{{cookiecutter.name}}` becomes Python only when it is rendered."""
    confidence = Confidence.POSSIBLE if "{{" in path else Confidence.CERTAIN
    return Finding(
        code="SES902",
        name="file-not-analysed",
        message=problem.message,
        path=path,
        span=Span(problem.line, problem.column, problem.line, problem.column + 1),
        function="",
        severity=Severity.ERROR,
        confidence=confidence,
        statement=(problem.line, problem.line),
    )


def to_plain(finding: Finding) -> Plain:
    """A finding as plain tuples; its fingerprint is not in it, for that depends on the other findings."""
    span = finding.span
    return (
        finding.code,
        finding.name,
        finding.message,
        finding.path,
        (span.line, span.column, span.end_line, span.end_column),
        finding.function,
        finding.severity.value,
        finding.confidence.value,
        tuple([(step.path, step.line, step.column, step.message) for step in finding.trail]),
        tuple([(item.path, item.line, item.column, item.function, item.message) for item in finding.affects]),
        finding.statement,
    )


def from_plain(plain: Plain) -> Finding:
    """The inverse of `to_plain`."""
    code, name, message, path, span, function, severity, confidence, trail, affects, statement = plain
    return Finding(
        code=code,
        name=name,
        message=message,
        path=path,
        span=Span(*span),
        function=function,
        severity=Severity(severity),
        confidence=Confidence(confidence),
        trail=tuple([Step(*step) for step in trail]),
        affects=tuple([Affected(*item) for item in affects]),
        statement=tuple(statement),
    )
