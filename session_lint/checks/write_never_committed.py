"""SES107: what is written is never committed, and closing the session throws it away."""

from __future__ import annotations

import re
from collections.abc import Iterator

from session_lint import ir
from session_lint.checks import rule
from session_lint.checks._attaching import all_writes, only_attaches, only_takes_from_cache
from session_lint.checks._dropped import dropped_by
from session_lint.checks._sqlalchemy_1 import commits_by_itself, may_begin_nothing
from session_lint.checks.context import Context, certainty, history
from session_lint.findings import Affected, Confidence, Finding, Severity
from session_lint.flow import result
from session_lint.flow.result import Event, FunctionFlow, SessionInfo
from session_lint.flow.state import CLOSED, ENTRY, NONE, OPEN, SessionState
from session_lint.flow.values import Path
from session_lint.ir_queries import call_place, precedes
from session_lint.project.modules import FunctionRef

_TEMPORARY = re.compile(r"create\s+(local\s+)?temp(orary)?\s+table|create\s(.*\s)?temp\.", re.IGNORECASE)
_COMMITS = re.compile(r"\s*(commit|end)(\s+(work|transaction))?\s*;?\s*", re.IGNORECASE)
"""`execute(text("COMMIT"))`, as before CREATE DATABASE."""

_MANAGERS = ("transaction", "zope.sqlalchemy")
"""`with transaction.manager:` commits every session that is registered with zope.sqlalchemy."""

_DEEPEST = 3
"""How many calls deep the functions that write are named."""

_GETTING = ("get_", "_get_", "read_", "find_", "fetch_", "list_", "load_", "search_")


@rule("SES107", "write-never-committed", Severity.ERROR)
def check(context: Context) -> Iterator[Finding]:
    if context.project.is_committed_by_zope() and context.module.imports_any(*_MANAGERS):
        return
    for flow in context.flows():
        told: set[FunctionRef] = set()
        for info in sorted(flow.sessions.values(), key=lambda info: len(info.identity)):
            if info.provider in told:
                continue  # `service.db` is the function's own `db`.
            if flow.reference.function.is_generator and not _is_closed_between_yields(flow, info):
                continue
            lost = _lost(flow, info)
            if info.type.role == "connection" and result.BEGUN not in {event.kind for event in flow.events}:
                lost = None if commits_by_itself(context, flow, info.identity) else lost
            dropped = dropped_by(context, flow, info, lost) if lost is not None else None
            if lost is not None and dropped is not None and not _callee_says_otherwise(context, flow, info.identity):
                if info.provider is not None:
                    told.add(info.provider)
                yield _finding(context, flow, info, lost, dropped)


def _finding(context: Context, flow: FunctionFlow, info: SessionInfo, lost: SessionState, dropped: str) -> Finding:
    name, wrote = flow.reference.function.name, lost.witness.wrote
    commits = _commits(flow, info)
    never = "does not commit that" if commits else "never commits"
    remedy = "commit before the end"
    if info.origin in (result.LOCAL, result.PROVIDED) and not lost.commits:
        remedy += ", or open it with begin()"
    message = (
        f"{name} writes with {info.name} {'after its last commit ' if lost.commits else ''}and {never}: "
        f"{dropped} everything {'since then ' if lost.commits else ''}is rolled back; {remedy}"
    )
    place = wrote.place if wrote is not None else info.place
    trail = history(lost, "opened", "wrote", "ended")
    writers = _writers(context, flow, info.identity, place)
    # Who changes what it returns may only want it to look like that: `photo.url = signed(photo.url)`.
    since = place if lost.commits else None
    branches = [_left_branch(flow, info, commit.place, place) for commit in commits]
    branch = next((each for each in branches if each is not None), None)
    is_shown = _only_changes(context, flow, info.identity, since, branch) and (
        _returns_objects(flow) or _only_formats(context, flow, info.identity)
    )
    is_read = only_attaches(flow, info.identity) or only_takes_from_cache(context, flow, info.identity)
    is_doubted = is_shown or is_read or (info.type.role == "session" and may_begin_nothing(context))
    confidence = Confidence.POSSIBLE if is_doubted else Confidence.LIKELY
    return context.finding(flow, place, message, certainty(info, confidence), trail, writers)


def _only_changes(
    context: Context, flow: FunctionFlow, identity: Path, since: ir.Place | None, branch: ir.If | None
) -> bool:
    """Whether all that a function writes is changes of objects.

    since: only what it writes from there on counts. branch: only what it writes in it.
    """

    def agrees(writer: FunctionFlow, event: Event) -> bool:
        is_elsewhere = branch is not None and not ir.within(event.place, branch.place)
        is_earlier = since is not None and event.place[:2] < since[:2]
        return (writer is flow and (is_earlier or is_elsewhere)) or event.detail == result.CHANGE

    return all_writes(context, flow, identity, agrees)


def _only_formats(context: Context, flow: FunctionFlow, identity: Path) -> bool:
    """Whether all that is written is what getters let a helper make of the objects that they return."""

    formatted: list[bool] = []

    def agrees(writer: FunctionFlow, event: Event) -> bool:
        is_getter = writer.reference.function.name.startswith(_GETTING) and _returns_objects(writer)
        formatted.append(is_getter and event.detail == result.CHANGE and " in " in event.text)
        return formatted[-1]

    # A callee that changes what it is given writes nothing itself.
    return all_writes(context, flow, identity, agrees) and any(formatted)


def _is_closed_between_yields(flow: FunctionFlow, info: SessionInfo) -> bool:
    """Whether a generator opens the session with a `with` block in which it yields nothing to anybody."""
    for statement in ir.statements(flow.reference.function.body):
        if isinstance(statement, ir.With) and any([_opens(item, info, statement.place) for item in statement.items]):
            inside = ir.statements(statement.body)
            return not any([isinstance(part, ir.Yield) for each in inside for part in ir.expressions(each)])
    return False


def _opens(item: ir.WithItem, info: SessionInfo, around: ir.Place) -> bool:
    return call_place(item.value, around) == info.place


def _returns_objects(flow: FunctionFlow) -> bool:
    """Whether a function returns something that it has in a variable."""
    for statement in ir.statements(flow.reference.function.body):
        if isinstance(statement, ir.Return) and statement.value is not None:
            parts = ir.expressions(statement.value)
            called = [part.function for part in parts if isinstance(part, ir.Call)]
            if any([isinstance(part, ir.Name) and part not in called for part in parts]):
                return True
    return False


def _writers(context: Context, flow: FunctionFlow, identity: Path, place: ir.Place, depth: int = 0) -> list[Affected]:
    """The functions that are called at a place and write: a commit in one of them would do as well."""
    for callee, root in context.project.call_graph.callees(flow, place, identity):
        for event in callee.events:
            if event.kind == result.WROTE and event.identity == root:
                affected = context.affected(callee.reference, f"{event.text} writes, and nobody commits it")
                deeper = _writers(context, callee, root, event.place, depth + 1) if depth < _DEEPEST else []
                return [affected, *deeper]
    return []


def _lost(flow: FunctionFlow, info: SessionInfo) -> SessionState | None:
    """The state in which writes are lost, if no way through the function commits them or could commit them."""
    events = [event for event in flow.events if event.identity == info.identity]
    kinds = {event.kind for event in events}
    if kinds & {result.NOT_AWAITED, result.AFTER_END} or result.WROTE not in kinds:
        return None
    normal = [
        way.state.sessions[info.identity]
        for way in flow.exits
        if way.error is None and info.identity in way.state.sessions
    ]
    committed = _commits(flow, info)
    # The session of a loop's earlier turn is not there any more at the end.
    closed = [event.session for event in events if event.kind == result.THROWN_AWAY and event.session is not None]
    if any([session.handed for session in normal]):
        # Who gets it elsewhere may commit it, but does not get it in a branch that is left before.
        normal, closed = [], [session for session in closed if _is_left(flow, info, session)]
    for session in (*normal, *closed):
        if session.dirty and session.transaction in (CLOSED, ENTRY, NONE, OPEN):
            wrote = session.witness.wrote
            if any([wrote is None or _may_take(flow, info, event, wrote.place) for event in committed]):
                return None
            return None if _says_otherwise(flow) else session
    return None


def _commits(flow: FunctionFlow, info: SessionInfo) -> list[Event]:
    return [event for event in flow.events if event.kind == result.COMMITTED and event.identity == info.identity]


def _may_take(flow: FunctionFlow, info: SessionInfo, commit: Event, wrote: ir.Place) -> bool:
    """Whether a commit may come after a write: it stands below it and not in its `else`, or in the same loop."""
    loops = [frame.node.place for frame in commit.frames if frame.kind in ("for", "while")]
    if any([ir.within(wrote, loop) and not ir.within(info.place, loop) for loop in loops]):
        return True
    return (
        precedes(wrote, commit.place)
        and not _excludes(flow, commit.place, wrote)
        and _left_branch(flow, info, commit.place, wrote) is None
    )


def _is_left(flow: FunctionFlow, info: SessionInfo, session: SessionState) -> bool:
    wrote = session.witness.wrote
    return wrote is not None and _left_branch(flow, info, ir.NOWHERE, wrote.place) is not None


def _left_branch(flow: FunctionFlow, info: SessionInfo, commit: ir.Place, wrote: ir.Place) -> ir.If | None:
    """The `if` whose branch writes and is left before it gets to a commit below: `if row is None: add(...); return`."""
    around = [each for each in ir.statements(flow.reference.function.body) if ir.within(wrote, each.place)]
    for index, statement in enumerate(around):
        if isinstance(statement, ir.Try) and any([ir.within(commit, each.place) for each in statement.final]):
            return None
        if not isinstance(statement, ir.If):
            continue
        for branch in (statement.body, statement.orelse):
            if any([ir.within(wrote, each.place) for each in branch]) and not ir.within(commit, statement.place):
                loop = next((each for each in reversed(around[:index]) if isinstance(each, (ir.For, ir.While))), None)
                # What leaves only a turn of a loop leaves a session that was opened before it.
                ends_session = loop is not None and ir.within(info.place, loop.place)
                if isinstance(branch[-1], ir.Return):
                    return statement
                if isinstance(branch[-1], (ir.Break, ir.Continue)) and ends_session:
                    return statement
    return None


def _excludes(flow: FunctionFlow, one: ir.Place, other: ir.Place) -> bool:
    """Whether two places stand in different branches of an `if`."""
    for statement in ir.statements(flow.reference.function.body):
        if isinstance(statement, ir.If):
            then, orelse = [
                [any([ir.within(place, each.place) for each in branch]) for place in (one, other)]
                for branch in (statement.body, statement.orelse)
            ]
            if (then[0] and orelse[1]) or (orelse[0] and then[1]):
                return True
    return False


def _says_otherwise(flow: FunctionFlow) -> bool:
    """Whether SQL commits, or the writes may be to tables that end with the connection anyway."""
    texts = [
        part.value
        for statement in ir.statements(flow.reference.function.body)
        for part in ir.expressions(statement)
        if isinstance(part, ir.Constant) and isinstance(part.value, str)
    ]
    return any([_TEMPORARY.search(text) or _COMMITS.fullmatch(text) for text in texts])


def _callee_says_otherwise(context: Context, flow: FunctionFlow, identity: Path, depth: int = 0) -> bool:
    """Whether that is said by a function that writes for this one."""
    for event in flow.events:
        if event.kind == result.WROTE and event.identity == identity and event.detail == "callee":
            for callee, root in context.project.call_graph.callees(flow, event.place, identity):
                if _says_otherwise(callee):
                    return True
                if depth < _DEEPEST and _callee_says_otherwise(context, callee, root, depth + 1):
                    return True
    return False
