"""SES901: a suppression comment that suppresses nothing. The engine finds these when it applies them."""

from __future__ import annotations

from collections.abc import Iterable

from session_lint.checks import rule
from session_lint.checks.context import Context
from session_lint.findings import Finding, Severity


@rule("SES901", "unused-suppression", Severity.WARNING)
def check(_: Context) -> Iterable[Finding]:
    return ()
