"""Units of work that are split: a function commits what its caller has written, before the caller is done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from session_lint import ir
from session_lint.flow import operations as ops
from session_lint.flow import result
from session_lint.flow.calm import is_calm
from session_lint.flow.result import Event, FunctionFlow
from session_lint.flow.state import Mark
from session_lint.flow.values import Path
from session_lint.ir_queries import handled_calls, path_of, precedes
from session_lint.project.modules import Module

if TYPE_CHECKING:
    from session_lint.project.link import Project

_CALM = ops.CALM_FUNCTIONS | ops.CALM_METHODS | ops.CALM_OBJECTS
_MAX_DEPTH = 4
"""How many calls deep the commit is looked for."""


class Split(NamedTuple):
    """A caller whose unit of work is split by a commit in a function that it calls.

    identity: the caller's session. call: where and what it calls. commit: in the function `by`. flag: the parameter
    of that function that decides whether it commits, or "". wrote: what is committed too early. later: what the
    caller writes or commits in the same unit of work afterwards, if anything. undoes: a handler of the caller rolls
    back around both, and around what may fail afterwards. direct: the caller itself writes before and after, or has
    said that it only flushes.
    """

    caller: FunctionFlow
    identity: Path
    call: Mark
    by: FunctionFlow
    commit: Event
    flag: str
    wrote: Mark
    later: Event | None
    undoes: bool
    direct: bool

    @property
    def is_meant_whole(self) -> bool:
        """Whether the caller's code shows that it wants all or nothing."""
        return self.undoes or (self.later is not None and self.direct)


class Splits:
    """Finds them. Worked out when it is first asked for, and kept."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._at_commits: dict[Module, list[Split]] | None = None
        self._of_flow: dict[int, list[Split]] = {}
        self._only_commits: dict[tuple[int, str], bool] = {}

    def at_calls(self, module: Module) -> list[Split]:
        """Those whose caller stands in the module, and decides by a flag that the function commits."""
        return [split for flow in self._flows(module) for split in self._in(flow) if split.flag]

    def at_commits(self, module: Module) -> list[Split]:
        """Those whose commit stands in the module."""
        # Without looking at its callers: most modules commit nothing that was handed to them.
        committing = [flow.reference for flow in self._flows(module) if _commits_for_others(flow)]
        if not committing:
            return []
        if not self._project.is_whole:
            callers = self._project.call_graph.above(committing, _MAX_DEPTH + 1)
            return self._by_module(callers).get(module, [])
        if self._at_commits is None:
            self._at_commits = self._by_module(self._project.all_flows())
        return self._at_commits.get(module, [])

    def _by_module(self, callers: Iterable[FunctionFlow]) -> dict[Module, list[Split]]:
        found: dict[Module, list[Split]] = {}
        for flow in callers:
            for split in self._in(flow):
                if not split.flag:
                    found.setdefault(split.by.reference.module, []).append(split)
        return found

    def _flows(self, module: Module) -> list[FunctionFlow]:
        flows = [self._project.flow(reference) for reference in self._project.functions(module)]
        return [flow for flow in flows if flow is not None]

    def _in(self, flow: FunctionFlow) -> list[Split]:
        """Those whose caller is the function."""
        key = id(flow.reference.function)
        if key not in self._of_flow:
            events = [event for event in flow.events if event.kind == result.SPLIT and event.session is not None]
            whole = [event for event in events if event.session is not None and not event.session.savepoints]
            self._of_flow[key] = [split for event in whole for split in self._at(flow, event)]
        return self._of_flow[key]

    def _at(self, flow: FunctionFlow, event: Event) -> list[Split]:
        """Those of one call: one for each commit behind it."""
        commits = list(self._commits(flow, event.place, event.identity, _MAX_DEPTH))
        if not commits:
            return []
        first = _split(flow, event, *commits[0], self._goes_on_inside(flow, event))
        if first is None:
            return []
        return [first._replace(by=by, commit=commit, flag=_flag(by, commit)) for by, commit in commits]

    def _commits(
        self, flow: FunctionFlow, place: ir.Place, identity: Path, depth: int
    ) -> Iterator[tuple[FunctionFlow, Event]]:
        """The commit() calls behind a call."""
        for callee, root in self._project.call_graph.callees(flow, place, identity):
            for event in callee.events:
                if event.kind != result.COMMITTED or event.identity != root:
                    continue
                if event.detail is None:
                    key = (id(callee.reference.function), event.text)
                    if key not in self._only_commits:
                        self._only_commits[key] = self._does_nothing_else(callee, event)
                    if self._only_commits[key]:
                        continue
                    # What was written before the call is committed by the first of several commits.
                    if event.session is None or not event.session.reset:
                        yield callee, event
                elif depth > 0:
                    yield from self._commits(callee, event.place, event.identity, depth - 1)

    def _does_nothing_else(self, by: FunctionFlow, commit: Event) -> bool:
        """Whether a function is only another word for commit(): its callers know what they call it for."""
        bodies, body = self._project.table.bodies, by.reference.function.body
        session = tuple(commit.text.removesuffix("()").split("."))[:-1]
        asked: set[ir.Place] = set()
        for statement in bodies.statements(body):
            targets = statement.targets if isinstance(statement, ir.Assign) else ()
            if any([not isinstance(target, ir.Name) or len(target.path) > 1 for target in targets]):
                return False
            if isinstance(statement, ir.If):
                # `if os.getenv("DRY_RUN"): session.rollback()`
                asked.update(_calls_without(statement.test, session))
        for call in bodies.calls(body):
            path = path_of(call.function)
            ends = path[:-1] == session and path[-1] in ops.ENDING
            if not ends and not is_calm(call) and call.place not in asked:
                return False
        return True

    def _goes_on_inside(self, flow: FunctionFlow, event: Event) -> bool:
        """Whether what is called writes or commits again after its commit."""
        for callee, root in self._project.call_graph.callees(flow, event.place, event.identity):
            for inner in callee.events:
                if inner.kind in (result.WROTE, result.COMMITTED) and inner.identity == root and inner.session:
                    # What a callee of the callee commits is counted in the event already.
                    own = 1 if inner.kind == result.COMMITTED and inner.detail is not None else 0
                    if inner.session.commits > own:
                        return True
        return False


def _commits_for_others(flow: FunctionFlow) -> bool:
    """Whether the function itself commits a session that it has not opened."""
    return any(
        [
            event.kind == result.COMMITTED and event.detail is None and not event.identity[0].startswith("@")
            for event in flow.events
        ]
    )


def _split(flow: FunctionFlow, event: Event, by: FunctionFlow, commit: Event, goes_on_inside: bool) -> Split | None:
    """None if the commit is the last act of the caller's unit of work."""
    assert event.session is not None
    wrote = event.session.witness.wrote or Mark(event.place, "it has written here")
    after = []
    for other in flow.events:
        split = other.session.witness.split if other.session is not None else None
        if split is None or split.place != event.place or other.place == event.place:
            continue
        is_writing = other.kind in (result.WROTE, result.COMMITTED)
        after += [other] if is_writing and other.identity == event.identity else []
    # A commit() of nothing new is no second half, as far as it can be seen.
    later = [other for other in after if other.kind == result.WROTE or (other.session and other.session.dirty)]
    # What the turns of a loop write before and after this one are other items.
    is_earlier = wrote.place != event.place and precedes(wrote.place, event.place)
    before = is_earlier and any(
        other.kind == result.WROTE and other.detail != "callee" and other.place == wrote.place for other in flow.events
    )
    # `order.flush()`, a method of the project's: it says that the caller commits when all is done.
    flushed = is_earlier and wrote.text.partition("()")[0].endswith(".flush")
    undoes = is_earlier and _undoes(event, wrote.place, goes_on_inside)
    if not after and not undoes and not goes_on_inside:
        return None
    return Split(
        flow,
        event.identity,
        Mark(event.place, event.text),
        by,
        commit,
        _flag(by, commit),
        wrote,
        min(later, key=lambda other: other.place, default=None),
        undoes,
        (before and any(not other.detail and other.place > event.place for other in later))
        or (flushed and any(other.place > event.place for other in later)),
    )


def _flag(by: FunctionFlow, commit: Event) -> str:
    """The parameter that decides about a commit: true or false by default."""
    switches = {
        parameter.name
        for parameter in by.reference.function.parameters
        if isinstance(parameter.default, ir.Constant) and isinstance(parameter.default.value, bool)
    }
    for frame in commit.frames:
        if isinstance(frame.node, ir.If):
            for part in ir.expressions(frame.node.test):
                if isinstance(part, ir.Name) and part.path[0] in switches:
                    return part.path[0]
    return ""


def _undoes(event: Event, wrote: ir.Place, goes_on_inside: bool) -> bool:
    """Whether a handler around the write, the commit and what may fail after it rolls back: what is committed stays."""
    for index, frame in enumerate(event.frames):
        if isinstance(frame.node, ir.Try) and frame.kind == "try" and ir.within(wrote, frame.node.place):
            called = [path_of(call.function) for call in handled_calls(frame.node)]
            # The next turn of a loop may fail, too.
            is_repeated = any([inner.kind in ("for", "while") for inner in event.frames[index:]])
            goes_on = goes_on_inside or is_repeated or _may_fail(frame.node, event.place)
            if goes_on and any([path[-1:] == ("rollback",) for path in called]):
                return True
    return False


def _may_fail(attempt: ir.Try, after: ir.Place) -> bool:
    """Whether anything in the body of a `try` may raise after a call."""
    places = [statement.place for statement in ir.statements(attempt.body) if isinstance(statement, ir.Raise)]
    places += [part.place for part in ir.expressions(attempt.body) if isinstance(part, ir.Call) and not _is_calm(part)]
    return any([place[:2] >= after[2:] for place in places])


def _calls_without(node: ir.Expr, session: Path) -> Iterator[ir.Place]:
    """The calls that have nothing of the session."""
    for part in ir.expressions(node):
        if isinstance(part, ir.Call):
            names = [inner.path for inner in ir.expressions(part) if isinstance(inner, ir.Name)]
            if not any([path[: len(session)] == session for path in names]):
                yield part.place


def _is_calm(call: ir.Call) -> bool:
    path = path_of(call.function)
    return bool(_CALM.intersection(path)) or (bool(path) and path[-1][:1].isupper())
