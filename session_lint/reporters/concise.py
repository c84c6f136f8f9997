"""One line per finding: `path:line:column: CODE message`."""

from __future__ import annotations

from session_lint.findings import Finding, Report
from session_lint.reporters.context import Context, doubt
from session_lint.reporters.style import clean
from session_lint.reporters.summary import statistics, summary


def render(report: Report, context: Context) -> str:
    """One line per finding and the summary."""
    lines = [_line(finding) for finding in report.findings]
    if context.show_mitigated:
        lines.extend(f"{_line(finding)} [mitigated]" for finding in report.mitigated)
    text = "".join(f"{line}\n" for line in lines)
    if context.statistics:
        text += statistics(report)
    if context.summary:
        text += f"{summary(report)}\n"
    return text


def _line(finding: Finding) -> str:
    place = f"{clean(finding.path)}:{finding.line}:{finding.column}"
    return f"{place}: {finding.code} {clean(finding.message)}{doubt(finding)}"
