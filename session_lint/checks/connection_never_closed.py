"""SES205: a Core connection that is opened here and not closed on some way out."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint.checks import rule
from session_lint.checks._leaks import leak_findings
from session_lint.checks.context import Context
from session_lint.findings import Finding, Severity


@rule("SES205", "connection-never-closed", Severity.ERROR)
def check(context: Context) -> Iterator[Finding]:
    yield from leak_findings(context, "connection")
