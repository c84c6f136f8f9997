"""SES103: two commits where the second write needs the first: an error between them leaves half."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter

from session_lint import ir
from session_lint.checks import rule
from session_lint.checks._building import Building, roots
from session_lint.checks.context import Context, certainty
from session_lint.findings import Confidence, Finding, Severity
from session_lint.flow import result
from session_lint.flow.result import Event, FunctionFlow
from session_lint.flow.state import Mark
from session_lint.flow.values import Path
from session_lint.ir_queries import handled_calls, last_name, makes_calls, path_of, precedes

_MOST = 200
"""How many commits of one function are looked at: what has more is a list of rows for a new database."""


@rule("SES103", "multi-write-without-begin", Severity.WARNING)
def check(context: Context) -> Iterator[Finding]:
    for flow in context.flows():
        found: dict[Path, Finding] = {}
        commits = sorted([event for event in flow.events if event.kind == result.COMMITTED], key=attrgetter("place"))
        if len(commits) < 2:
            continue
        building = Building(flow.reference.function)
        for event in commits[:_MOST]:
            known = found.get(event.identity)
            if known is not None and known.confidence != Confidence.POSSIBLE:
                continue
            for first in _commits_before(flow, event):
                finding = _judge(context, flow, building, first, event)
                # One is told for each session: the first of which it shows that both steps belong together.
                if finding is not None and (known is None or finding.confidence != Confidence.POSSIBLE):
                    found[event.identity] = known = finding
        yield from found.values()


def _judge(context: Context, flow: FunctionFlow, building: Building, first: Event, second: Event) -> Finding | None:
    """The finding for two commits, if both commit something."""
    if second.session is None:
        return None
    commits = second.session.commits - (second.detail is not None)
    if commits < 1 or not (second.session.dirty or second.detail) or _looped(second):
        return None
    earlier = _writes(flow, second, first, before=True)
    later = _writes(flow, second, first, before=False)
    if not earlier or not later or _is_split(flow, first):
        return None
    info = flow.sessions[second.identity]
    depends = building.on(earlier, [write for write in later if not _only_changes(context, flow, write)])
    # That both steps belong together shows where one builds on the other, here and not somewhere in a
    # callee, or where the author rolls back around both.
    direct = all([write.detail in (None, result.CHANGE) for write in (*earlier, *later)])
    together = depends and (direct or _is_rolled_back(second))
    is_meant = _is_forgiven(first, second) or _is_undone(context, flow, second, depends)
    if is_meant or _stands_alone(flow, first, second, earlier, depends):
        together = False
    confidence = certainty(info, Confidence.LIKELY if together else Confidence.POSSIBLE)
    message = (
        f"{flow.reference.function.name} commits twice: if {later[-1].text} or the second commit fails, "
        f"{earlier[0].text} stays committed"
    )
    if depends:
        message += f" although what follows is built on {', '.join(sorted(depends))}"
    message += "; use flush() for the first step and commit once, or one begin() block"
    trail = [Mark(earlier[0].place, f"{earlier[0].text} writes here")]
    between = _commit_between(flow, second, earlier[0], later[-1])
    if between is not None and between.place != earlier[0].place:
        trail.append(Mark(between.place, f"{between.text} commits here"))
    trail.append(Mark(later[-1].place, f"{later[-1].text} writes here"))
    return context.finding(flow, second.place, message, confidence, trail)


def _commits_before(flow: FunctionFlow, second: Event) -> list[Event]:
    """The commits of a session that may be the first of two: the very first one, and the one right before it."""
    commits = _earlier_commits(flow, second)
    return [commits[0], commits[-1]] if len(commits) > 1 else commits


def _earlier_commits(flow: FunctionFlow, commit: Event) -> list[Event]:
    """The commits of a commit's session that stand before it, each place once."""
    places = {
        other.place: other
        for other in reversed(flow.events)
        if other.kind == result.COMMITTED and other.identity == commit.identity and other.place != commit.place
    }
    return [places[place] for place in sorted(places) if precedes(place, commit.place)]


def _is_rolled_back(event: Event) -> bool:
    """Whether a handler around the second commit rolls back: it can't take back the first one."""
    for frame in event.frames:
        if frame.kind == "try" and isinstance(frame.node, ir.Try):
            called = [call.function for call in handled_calls(frame.node)]
            if any([isinstance(function, ir.Name) and function.path[-1] == "rollback" for function in called]):
                return True
    return False


def _stands_alone(flow: FunctionFlow, first: Event, second: Event, earlier: list[Event], depends: set[str]) -> bool:
    """Whether the first commit is that of a row which is made only if it isn't there: the next call finds it."""
    if first.detail == "callee, perhaps":
        return all([write.place == first.place for write in earlier])
    for frame in first.frames:
        node = frame.node
        if isinstance(node, ir.If) and not ir.within(second.place, node.place):
            missing = _asked_for(node.test)
            inside = all([ir.within(write.place, node.place) for write in earlier])
            if inside and depends <= missing and all([_is_looked_up(flow, name, node) for name in missing]):
                return True
    return False


def _asked_for(test: ir.Expr) -> set[str]:
    """The name that a condition says to be nothing: `not row`, `row is None`."""
    if isinstance(test, ir.Not) and isinstance(test.value, ir.Name):
        return set(test.value.path[:1])
    if isinstance(test, ir.Compare) and test.operator in ("is", "==") and test.right == ir.Constant(None):
        return set(path_of(test.left)[:1])
    return set()


def _is_looked_up(flow: FunctionFlow, name: str, before: ir.If) -> bool:
    """Whether the last value that a name gets before a condition is that of a call."""
    looked_up = False
    assigned = [node for node in ir.statements(flow.reference.function.body) if isinstance(node, ir.Assign)]
    for statement in assigned:
        if statement.place < before.place and ir.Name((name,)) in statement.targets:
            looked_up = statement.value is not None and makes_calls(statement.value)
    return looked_up


def _is_forgiven(first: Event, second: Event) -> bool:
    """Whether the second step has a handler of its own that goes on: the first is meant to stand without it."""
    for frame in second.frames:
        node = frame.node
        if frame.kind == "try" and isinstance(node, ir.Try) and not ir.within(first.place, node.place):
            for handler in node.handlers:
                leaves = any([isinstance(each, (ir.Raise, ir.Return)) for each in ir.statements(handler.body)])
                if not leaves and (handler.type is None or last_name(handler.type) in _CATCHING_ALL):
                    return True
    return False


_CATCHING_ALL = ("Exception", "BaseException", "SQLAlchemyError")


def _is_undone(context: Context, flow: FunctionFlow, second: Event, depends: set[str]) -> bool:
    """Whether a handler around the second commit deletes what the first one has made."""
    for frame in second.frames:
        if frame.kind == "try" and isinstance(frame.node, ir.Try):
            for call in handled_calls(frame.node):
                given = {name for argument in call.arguments for name in roots(argument.value)}
                if given & depends and _deletes(context, flow, call):
                    return True
    return False


def _deletes(context: Context, flow: FunctionFlow, call: ir.Call) -> bool:
    """Whether a call, or the function that it calls, deletes something."""
    parts = ir.expressions(call)
    for handing in flow.calls:
        if handing.place == call.place:
            parts += context.project.table.bodies.calls(handing.callee.function.body)
    return any([isinstance(part, ir.Call) and last_name(part.function) == "delete" for part in parts])


def _is_split(flow: FunctionFlow, first: Event) -> bool:
    """Whether the first commit is a callee's, and takes what was written before it along: that is SES105."""
    return any([other.kind == result.SPLIT and other.place == first.place for other in flow.events])


def _looped(event: Event) -> bool:
    return any([frame.kind in ("for", "while", "except") for frame in event.frames])


def _writes(flow: FunctionFlow, commit: Event, first: Event, before: bool) -> list[Event]:
    """The writes that the first commit is of, or those between it and the second."""
    start, end = (None, first.place) if before else (first.place, commit.place)
    if before and (commits := _earlier_commits(flow, first)):
        start = commits[-1].place
    # A function that commits what it was handed has written it: one event stands for both.
    return [
        other
        for other in flow.events
        if other.identity == commit.identity
        and (other.kind == result.WROTE or (other.kind == result.COMMITTED and other.detail is not None))
        and precedes(other.place, end)
        and (start is None or not precedes(other.place, start))
    ]


def _commit_between(flow: FunctionFlow, commit: Event, earlier: Event, later: Event) -> Event | None:
    for other in flow.events:
        if (
            other.kind == result.COMMITTED
            and other.identity == commit.identity
            and precedes(earlier.place, other.place)
            and not precedes(later.place, other.place)
        ):
            return other
    return None


def _only_changes(context: Context, flow: FunctionFlow, write: Event) -> bool:
    """Whether a call only sets attributes of what it is given, and commits: a row gets its next status."""
    if write.detail is None:
        return False
    callees = [context.project.flow(handing.callee) for handing in flow.calls if handing.place == write.place]
    return bool(callees) and all(
        [
            callee is not None
            and not any([event.kind == result.WROTE and event.detail != result.CHANGE for event in callee.events])
            for callee in callees
        ]
    )
