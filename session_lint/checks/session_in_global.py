"""SES208: one session for all requests, jobs or threads of a process."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint.checks import rule
from session_lint.checks.context import Context, step_at
from session_lint.findings import Finding, Severity
from session_lint.project.kept import Kept


@rule("SES208", "session-in-global", Severity.ERROR)
def check(context: Context) -> Iterator[Finding]:
    for kept in context.project.kept.of(context.module):
        yield _finding(context, kept)


def _finding(context: Context, kept: Kept) -> Finding:
    reference, _ = kept.users[0]
    trail = [step_at(reference.module, reference.function.place, f"{reference.function.qualname} works with it")]
    if not kept.entries:
        message = (
            f"{kept.what} keeps one session in {kept.name}: if a statement fails, {reference.function.name} and all "
            "others that use it fail until somebody rolls back; open one per unit of work"
        )
        return context.finding(None, kept.place, message, kept.confidence.at_most(kept.certainty), trail)
    kind = kept.entries[0].kind
    together = "task" if kept.is_async else "thread"
    message = (
        f"{kept.what} keeps one session in {kept.name} for every {kind}: they commit and roll back each other's work, "
        f"and one that fails makes all the others fail; open a session per {kind}, which no other {together} works with"
    )
    affects = [context.affected(entry.reference, f"works with {kept.name}") for entry in kept.entries]
    confidence = kept.confidence.at_most(kept.certainty)
    return context.finding(None, kept.place, message, confidence, trail, affects)
