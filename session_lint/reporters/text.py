"""For people: the source line of each finding, and the trail that leads to it.

error[SES101] commit-without-rollback: if commit() fails, update lets the exception out without rolling back
  --> app/routes.py:12:5 in update (certain)
     |
  12 |     await db.commit()
     |     ^^^^^^^^^^^^^^^^^
  1. app/db.py:5:15 the session is opened here
     |     session = Session()
  = help: session-lint explain SES101
"""

from __future__ import annotations

from collections.abc import Iterator

from session_lint.findings import Affected, Finding, Report, Step, Verdict
from session_lint.reporters.context import Context, proof_lines
from session_lint.reporters.style import Style, clean, width
from session_lint.reporters.summary import statistics, summary

_MAX_AFFECTED = 10
_MAX_LINE = 160
_BEFORE = 60


def render(report: Report, context: Context) -> str:
    """All findings with source and trail, then the summary."""
    writer = _Writer(report, context)
    blocks = ["\n".join(writer.finding(finding)) for finding in report.findings]
    if context.show_mitigated:
        blocks.extend("\n".join(writer.finding(finding, mitigated=True)) for finding in report.mitigated)
    text = "".join(f"{block}\n\n" for block in blocks)
    if context.statistics and report.findings:
        text += f"{statistics(report)}\n"
    if context.summary:
        text += f"{summary(report)}\n"
    return text


class _Writer:
    def __init__(self, report: Report, context: Context) -> None:
        self._report = report
        self._context = context
        self._style = Style(context.color)

    def finding(self, finding: Finding, *, mitigated: bool = False) -> Iterator[str]:
        style = self._style
        steps = finding.trail
        digits = max([len(str(finding.line)), *(len(str(number)) + 1 for number in range(1, len(steps) + 1))])
        margin = " " * (digits + 1)
        severity = finding.severity.value
        label = style(severity, f"{severity}[{finding.code}]")
        yield f"{label} {style('bold', f'{finding.name}: {clean(finding.message)}')}"
        where = style("place", f"{clean(finding.path)}:{finding.line}:{finding.column}")
        function = f" in {clean(finding.function)}" if finding.function else ""
        doubt = f"mitigated, {finding.confidence.value}" if mitigated else finding.confidence.value
        yield f"{margin}{style('gutter', '-->')} {where}{function} ({doubt})"
        yield from self._excerpt(finding, digits)
        shown = (finding.path, finding.line)
        for number, step in enumerate(steps, 1):
            place = (step.path, step.line)
            yield from self._step(number, step, digits, again=place in (shown, (finding.path, finding.line)))
            shown = place
        for affected in finding.affects[:_MAX_AFFECTED]:
            yield f"{margin}{style('gutter', '=')} exposes {self._affected(affected)}"
        if len(finding.affects) > _MAX_AFFECTED:
            rest = len(finding.affects) - _MAX_AFFECTED
            yield f"{margin}{style('gutter', '=')} exposes {rest} more (--output-format json lists them)"
        for line in proof_lines(finding):
            yield f"{margin}{style('gutter', '=')} {clean(line)}"
        yield f"{margin}{style('gutter', '=')} help: session-lint explain {finding.code}"

    def _excerpt(self, finding: Finding, digits: int) -> Iterator[str]:
        line = self._context.line(self._report.sources, finding.path, finding.line)
        if line is None or not line.strip():
            return
        span = finding.span
        one_line = span.end_line == span.line
        start = min(max(span.column - 1, 0), len(line))
        end = span.end_column - 1 if one_line else len(line.rstrip())
        end = max(min(end, len(line)), start)
        line, start, end = _window(line, start, end)
        before, marked, after = clean(line[:start]), clean(line[start:end]), clean(line[end:])
        bar = self._style("gutter", "|")
        empty = f"{' ' * (digits + 2)}{bar}"
        number = self._style("gutter", f"{finding.line:>{digits + 1}}")
        carets = self._style(finding.severity.value, "^" * max(width(marked), 1))
        yield empty
        yield f"{number} {bar} {before}{marked}{after}".rstrip()
        yield f"{empty} {' ' * width(before)}{carets}{'' if one_line else ' ...'}"

    def _step(self, number: int, step: Step, digits: int, *, again: bool) -> Iterator[str]:
        ordinal = f"{number}."
        place = self._style("place", f"{clean(step.path)}:{step.line}:{step.column}")
        yield f"{ordinal:>{digits + 1}} {place} {clean(step.message)}"
        line = None if again else self._context.line(self._report.sources, step.path, step.line)
        if line is not None and line.strip():
            text, _, _ = _window(line, max(step.column - 1, 0), len(line))
            yield f"{' ' * (digits + 2)}{self._style('gutter', '|')} {self._style('dim', clean(text.rstrip()))}"

    def _affected(self, affected: Affected) -> str:
        place = self._style("place", f"{clean(affected.path)}:{affected.line}:{affected.column}")
        message = f": {clean(affected.message)}" if affected.message else ""
        verdict = "" if affected.verdict is Verdict.STATIC else f" ({affected.verdict.value})"
        return f"{clean(affected.function)} at {place}{verdict}{message}"


def _window(line: str, start: int, end: int) -> tuple[str, int, int]:
    """The part of a very long line around what is marked."""
    if len(line) <= _MAX_LINE:
        return line, start, end
    first = max(start - _BEFORE, 0)
    last = first + _MAX_LINE
    head, tail = "..." if first else "", "..." if last < len(line) else ""
    shift = len(head) - first
    return head + line[first:last] + tail, start + shift, max(min(end, last) + shift, start + shift)
