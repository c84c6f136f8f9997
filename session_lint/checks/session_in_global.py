"""SES208: one session for all requests, jobs or threads of a process."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint.checks import rule
from session_lint.checks.context import Context, happens, step_at
from session_lint.findings import Affected, Finding, Severity
from session_lint.flow import result
from session_lint.project.call_graph import open_ways
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
    leaving = list(_leaving_it_failed(context, kept)) if kept.takes_turns else []
    if leaving:
        message += f" ({len(leaving)} function{'s do' if len(leaving) > 1 else ' does'} not roll it back)"
    confidence = kept.confidence.at_most(kept.certainty)
    return context.finding(None, kept.place, message, confidence, trail, [*affects, *leaving])


def _leaving_it_failed(context: Context, kept: Kept) -> Iterator[Affected]:
    """The functions that work with it themselves and do not roll back: what fails there the next turn finds."""
    for reference, _ in kept.users:
        flow = context.project.flow(reference)
        if flow is None:
            continue
        for identity, info in flow.sessions.items():
            if info.origin != result.SHARED or identity[-1] != kept.name or identity not in flow.direct:
                continue
            errors = [way.error for way in open_ways(flow, identity) if way.error is not None]
            if errors:
                first = min(errors, key=lambda error: error.place)
                yield context.affected(reference, f"does not roll {kept.name} back if {happens(first.text)}")
