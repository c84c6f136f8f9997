"""SES101: a commit fails and nobody rolls back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from session_lint.checks import rule
from session_lint.checks._failures import Failure, confidence_of, failures, is_handed, is_judged_elsewhere
from session_lint.checks.context import Context, happens, history
from session_lint.findings import Affected, Confidence, Finding, Severity
from session_lint.flow import result
from session_lint.flow.result import FunctionFlow, SessionInfo
from session_lint.flow.values import Path
from session_lint.project import ownership


@rule("SES101", "commit-without-rollback", Severity.ERROR)
def check(context: Context) -> Iterator[Finding]:
    kept: dict[Path, list[tuple[FunctionFlow, Failure]]] = {}
    for flow in context.flows():
        for failure in failures(context, flow):
            if failure.commit is None or failure.only_cancelled:
                continue
            if context.local:
                if is_handed(failure) and not is_judged_elsewhere(context, flow, failure):
                    yield _finding(context, flow, failure, failure.info.certainty)
            elif failure.owner.verdict == ownership.CLEANED:
                context.mitigated(_finding(context, flow, failure, confidence_of(failure)), failure.owner.text)
            elif failure.info.origin == result.SHARED and context.project.entry_points.ends_process(flow.reference):
                found = _finding(context, flow, failure, confidence_of(failure))
                context.mitigated(found, "the exception ends the program, and the session with it")
            elif failure.owner.verdict == ownership.KEPT:
                kept.setdefault(_kept_as(flow, failure.info), []).append((flow, failure))
            elif failure.owner.verdict == ownership.UNKNOWN:
                yield _finding(context, flow, failure, confidence_of(failure))
    for group in kept.values():
        yield _of_kept(context, group)


def _kept_as(flow: FunctionFlow, info: SessionInfo) -> Path:
    """One session that lives on, for all functions of a module or methods of a class."""
    is_attribute = info.origin == result.ATTRIBUTE
    return (flow.reference.function.owner or "", *info.identity[1:]) if is_attribute else info.identity


def _of_kept(context: Context, group: list[tuple[FunctionFlow, Failure]]) -> Finding:
    """One finding for all functions that leave the same session failed: the first one that commits by itself."""
    flow, failure = min(
        group,
        key=lambda pair: (confidence_of(pair[1]).rank, pair[1].commit is None or pair[1].commit.detail is not None),
    )
    affects = [
        context.affected(other.reference, f"{inner.way.error.text} may fail")
        for other, inner in group
        if other is not flow and inner.way.error is not None
    ]
    return _finding(context, flow, failure, confidence_of(failure), affects)


def _finding(
    context: Context, flow: FunctionFlow, failure: Failure, confidence: Confidence, affects: Sequence[Affected] = ()
) -> Finding:
    assert failure.commit is not None
    assert failure.way.error is not None
    text, name = failure.way.error.text, flow.reference.function.name
    commits_itself = failure.commit.detail is None
    message = f"if {happens(text, 'fails')}, {name} lets the exception out without rolling back {failure.info.name}"
    if not commits_itself:
        message += f", which {failure.commit.text} commits"
    if context.local:
        message += "; roll back in `except BaseException:` and raise again, or do the work in `with session.begin():`"
    elif failure.owner.verdict == ownership.KEPT:
        message += f"; {failure.owner.text}, and every later use of it fails until somebody rolls back"
        if affects:
            message += f" ({len(affects)} more function{'s' if len(affects) > 1 else ''} affected)"
    else:
        message += f"; {failure.owner.text}, so make sure that it rolls back or closes"
    session = failure.way.state.sessions[failure.info.identity]
    trail = [*history(session, "used", "wrote", "failed")]
    return context.finding(flow, failure.commit.place, message, confidence, trail, affects)
