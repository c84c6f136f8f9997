"""SES902: a file that can't be read or parsed. The engine finds these when it reads."""

from __future__ import annotations

from collections.abc import Iterable

from session_lint.checks import rule
from session_lint.checks.context import Context
from session_lint.findings import Finding, Severity


@rule("SES902", "file-not-analysed", Severity.ERROR)
def check(_: Context) -> Iterable[Finding]:
    return ()
