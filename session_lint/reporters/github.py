"""GitHub workflow commands: annotations on the lines of a pull request.

https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions
"""

from __future__ import annotations

from session_lint.findings import Finding, Report, Severity
from session_lint.reporters.context import SEVERITIES, Context, sureness, trail_lines

_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}


def render(report: Report, context: Context) -> str:
    """One command per finding, the worst first: GitHub shows only ten of each kind."""
    findings = sorted(report.findings, key=lambda finding: SEVERITIES.index(finding.severity))
    return "".join(f"{_command(finding, context)}\n" for finding in findings)


def _command(finding: Finding, context: Context) -> str:
    span = finding.span
    properties: dict[str, object] = {
        "file": context.path_below("GITHUB_WORKSPACE", finding.path),
        "line": span.line,
        "endLine": span.end_line,
    }
    if span.end_line == span.line:  # GitHub takes columns only within one line
        properties["col"] = span.column
        properties["endColumn"] = span.end_column
    properties["title"] = f"{finding.code} {finding.name} ({sureness(finding)})"
    head = ",".join(f"{name}={_property(str(value))}" for name, value in properties.items())
    message = "\n".join([finding.message, *trail_lines(finding)])
    return f"::{_COMMANDS[finding.severity]} {head}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
