"""SES105: a function commits the session that it was handed, and with it what its caller has written so far."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint.checks import rule
from session_lint.checks.context import Context, certainty, history
from session_lint.findings import Confidence, Finding, Severity
from session_lint.flow import result
from session_lint.flow.result import Event, FunctionFlow
from session_lint.flow.state import Mark
from session_lint.project.splits import Split


@rule("SES105", "commit-of-callers-transaction", Severity.WARNING)
def check(context: Context) -> Iterator[Finding]:
    yield from _managed(context)
    committed: dict[tuple[str, object], list[Split]] = {}
    called: dict[tuple[str, object], list[Split]] = {}
    for split in context.project.splits.at_calls(context.module):
        # Who calls it decides whether it commits: there is nothing wrong with the function itself.
        called.setdefault((split.caller.name, split.call.place), []).append(split)
    for split in context.project.splits.at_commits(context.module):
        committed.setdefault((split.by.name, split.commit.place), []).append(split)
    yield from [_at_the_call(context, splits[0]) for splits in called.values()]
    yield from [_at_the_commit(context, splits) for splits in committed.values()]


def _at_the_commit(context: Context, splits: list[Split]) -> Finding:
    splits = sorted(splits, key=lambda split: _confidence(context, split).rank)
    first = splits[0]
    flow, name, caller = first.by, first.by.reference.function.name, first.caller.reference.function.name
    where = context.line(first.caller.reference.module, first.wrote.place)
    message = (
        f"{first.commit.text} also commits what the caller {caller} has written before it calls {name} "
        f"({_writing(first)}, {where}){_consequence(first)}; flush() here, and let {caller} "
        "commit once"
    )
    affected = dict.fromkeys(
        context.affected(split.caller.reference, f"{_writing(split)} (line {split.wrote.place[0]}), then {name}()")
        for split in splits
    )
    session = first.commit.session
    trail = history(session, "wrote") if session is not None else []
    return context.finding(flow, first.commit.place, message, _confidence(context, first), trail, affected)


def _at_the_call(context: Context, split: Split) -> Finding:
    by = split.by.reference.function.name
    remedy = f"let it not commit here ({by} has {split.flag} for that)"
    message = (
        f"{split.call.text} also commits what {split.caller.reference.function.name} has written before "
        f"({_writing(split)}, line {split.wrote.place[0]}){_consequence(split)}; {remedy}, and commit once"
    )
    trail = [split.wrote, Mark(split.call.place, f"{split.call.text} commits it here")]
    return context.finding(split.caller, split.call.place, message, _confidence(context, split), trail)


def _confidence(context: Context, split: Split) -> Confidence:
    likely = Confidence.LIKELY if split.is_meant_whole else Confidence.POSSIBLE
    return certainty(split.caller.sessions[split.identity], likely, context.habitat(split.caller.reference.module))


def _writing(split: Split) -> str:
    return split.wrote.text.removesuffix(" here").removesuffix(" writes")


def _consequence(split: Split) -> str:
    if split.later is None and not split.undoes:
        return ""
    caller = split.caller.reference.function.name
    return f": if what {caller} does afterwards fails, that stays committed"


# ------------------------------------------------------------------------------------ transaction managers


def _managed(context: Context) -> Iterator[Finding]:
    """zope.sqlalchemy lets nobody but its transaction manager commit."""
    if not context.project.is_committed_by_zope():
        return
    seen = set()
    for flow, event in context.events(result.COMMITTED):
        info = flow.sessions[event.identity]
        if info.framework == "pyramid" and event.detail is None and event.place not in seen:
            seen.add(event.place)
            yield _refused(context, flow, event)


def _refused(context: Context, flow: FunctionFlow, event: Event) -> Finding:
    message = (
        f'{event.text} fails ("Transaction must be committed using the transaction manager"): zope.sqlalchemy commits '
        "it when the request or task ends; leave it out, or flush()"
    )
    info = flow.sessions[event.identity]
    trail = history(event.session, "wrote") if event.session is not None else []
    return context.finding(flow, event.place, message, certainty(info), trail)
