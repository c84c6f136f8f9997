"""What reporters know besides the report."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from session_lint.findings import Confidence, Finding, Severity, Verdict

# GitHub, GitLab, SARIF and our own JSON agree on three steps under different names.
SEVERITIES = (Severity.ERROR, Severity.WARNING, Severity.INFO)


@dataclass(slots=True)
class Context:
    """color: whether to use terminal colours. statistics: add the table of counts per rule. summary: end with
    the summary line. working_directory: what the report's paths are relative to. environment: for the
    variables that CI systems set."""

    color: bool = False
    show_mitigated: bool = False
    statistics: bool = False
    summary: bool = True
    working_directory: Path = field(default_factory=Path.cwd)
    environment: Mapping[str, str] = field(default_factory=dict)
    _lines: dict[str, Sequence[str]] = field(default_factory=dict)

    def line(self, sources: Mapping[str, Sequence[str]], path: str, number: int) -> str | None:
        """A line of source: from the report if it is there (an editor's buffer), else from the file."""
        lines = sources.get(path)
        if lines is None:
            lines = self._lines.get(path)
        if lines is None:
            from session_lint.source.reading import Problem, decode, lines_of, read

            try:
                lines = lines_of(decode(read(self.working_directory / path)))
            except Problem:
                lines = ()
            self._lines[path] = lines
        return lines[number - 1] if 0 < number <= len(lines) else None

    def path_below(self, variable: str, path: str) -> str:
        """A path relative to the directory that an environment variable names, if it is below it.

        CI systems want paths from the top of the checkout, wherever in it the command was run.
        """
        top = self.environment.get(variable)
        if not top:
            return path
        absolute = os.path.realpath(self.working_directory / path)
        base = os.path.realpath(top)
        below = absolute.startswith(base.rstrip(os.sep) + os.sep)
        return os.path.relpath(absolute, base).replace(os.sep, "/") if below else path


def sureness(finding: Finding) -> str:
    """How sure the analysis is, and the verdict if PostgreSQL was asked."""
    asked = finding.verdict is not Verdict.STATIC
    return f"{finding.confidence.value}, {finding.verdict.value}" if asked else finding.confidence.value


def doubt(finding: Finding) -> str:
    """In brackets, what a line should say of it; nothing of what is certain and was not tried."""
    is_plain = finding.confidence is Confidence.CERTAIN and finding.verdict is Verdict.STATIC
    return "" if is_plain else f" ({sureness(finding)})"


def proof_lines(finding: Finding) -> Iterator[str]:
    """What PostgreSQL said: the verdict, with the first proof of each kind."""
    if finding.verdict is Verdict.STATIC:
        return
    if not finding.evidence:
        yield f"PostgreSQL: {finding.verdict.value}"
    said = set()
    for evidence in finding.evidence:
        if evidence.oracle not in said:
            said.add(evidence.oracle)
            yield f"PostgreSQL: {finding.verdict.value}: {evidence.proof}"


def trail_lines(finding: Finding) -> list[str]:
    """The trail, what is exposed and what was proved, one line each, for formats that have only text for it."""
    lines = [f"{number}. {step.path}:{step.line}: {step.message}" for number, step in enumerate(finding.trail, 1)]
    lines += [
        f"exposes {affected.function} ({affected.path}:{affected.line}): {affected.message}"
        for affected in finding.affects
    ]
    return [*lines, *proof_lines(finding)]


def identity(finding: Finding) -> str:
    """The finding's fingerprint; for one that was given none, one that depends on its place."""
    if finding.fingerprint:
        return finding.fingerprint
    from hashlib import sha256

    place = f"{finding.code}\0{finding.path}\0{finding.span}"
    return sha256(place.encode("utf-8", "surrogatepass")).hexdigest()[:32]
