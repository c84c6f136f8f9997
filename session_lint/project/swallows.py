"""Errors that one function swallows and another one suffers from: who uses a session that a callee has left failed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from session_lint import ir
from session_lint.findings import Confidence
from session_lint.flow import operations, result
from session_lint.flow.answers import answer_in
from session_lint.flow.effects import loses_nothing
from session_lint.flow.result import Event, Exit, FunctionFlow
from session_lint.flow.state import BROKEN, FAILED, SessionState
from session_lint.flow.values import Answer, Path, Value
from session_lint.ir_queries import bound_paths, handled_calls, is_endless, last_name
from session_lint.project.guards import guards_alone, hands_over

if TYPE_CHECKING:
    from session_lint.project.link import Project

_MAX_DEPTH = 6
"""How many calls deep the handler is looked for."""

_GIVEN = (result.PARAMETER, result.ATTRIBUTE)
_SAVING = (operations.FLUSH, operations.COMMIT)
_CATCHING_ALL = ("Exception", "BaseException", "SQLAlchemyError", "InvalidRequestError", "PendingRollbackError")
"""Handlers of these catch what the use of a failed session raises."""


class Reuse(NamedTuple):
    """A use of a session after a failure that was swallowed. confidence: that it has failed."""

    event: Event
    session: SessionState
    confidence: Confidence


class Use(NamedTuple):
    """A function that goes on with a session after a callee has swallowed what broke it.

    loses: it does not use it, but a block around commits it.
    """

    flow: FunctionFlow
    event: Event
    confidence: Confidence
    loses: bool


class Swallower(NamedTuple):
    """The function with the handler, its own path of the session, and the session as it returns."""

    flow: FunctionFlow
    identity: Path
    session: SessionState


class Swallows:
    """Finds the functions that swallow errors, for those that use the session next. Kept once it is asked for."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._uses: dict[tuple[int, ir.Place], list[Use]] | None = None
        self._swallowers: dict[tuple[int, ir.Place], Swallower] = {}

    def swallower(self, flow: FunctionFlow, identity: Path, session: SessionState) -> Swallower:
        """Where the error of a failed session was caught: the function itself, or one that it calls."""
        for _ in range(_MAX_DEPTH):
            deeper = self._deeper(flow, identity, session)
            if deeper is None:
                break
            flow, identity, session = deeper
        return Swallower(flow, identity, session)

    def _deeper(self, flow: FunctionFlow, identity: Path, session: SessionState) -> Swallower | None:
        swallowed, causes = session.witness.swallowed, session.witness.causes
        if swallowed is None:
            return None
        for callee, root in self._project.call_graph.callees(flow, swallowed.place, identity):
            ways = [way.state.sessions.get(root) for way in callee.exits if way.error is None]
            broken = [left for left in ways if left is not None and left.transaction in BROKEN]
            # A callee may have several handlers: the one is meant that has caught this failure.
            same = [
                left
                for left in broken
                if causes and left.witness.failed and left.witness.failed.place == causes[0].place
            ]
            if broken:
                return Swallower(callee, root, (same or broken)[0])
        return None

    def users(self, flow: FunctionFlow) -> Iterator[tuple[Swallower, list[Use]]]:
        """For each handler of a function: who suffers from what it swallows."""
        if not any([_leaves_broken(way) for way in flow.exits]):
            return
        if not self._project.is_whole:
            callers = self._project.call_graph.above([flow.reference], _MAX_DEPTH)
            uses = self._find(callers)
        else:
            if self._uses is None:
                self._uses = self._find(self._project.all_flows())
            uses = self._uses
        for key, found in uses.items():
            if key[0] == id(flow.reference.function):
                yield self._swallowers[key], found

    def _find(self, flows: Iterable[FunctionFlow]) -> dict[tuple[int, ir.Place], list[Use]]:
        found: dict[tuple[int, ir.Place], list[Use]] = {}
        for flow in flows:
            for use in self._uses_in(flow):
                assert use.event.session is not None
                swallower = self.swallower(flow, use.event.identity, use.event.session)
                swallowed = swallower.session.witness.swallowed
                if swallower.flow is not flow and swallowed is not None:
                    is_sure = use.event.session.transaction == FAILED or _goes_on_for_ever(flow, use.event)
                    if not is_sure and not _is_attempt(use.event):
                        use = use._replace(confidence=self._of_reads(flow, use.event.identity, swallower))
                    if self._asks(flow, use.event):
                        use = use._replace(confidence=Confidence.POSSIBLE)
                    key = (id(swallower.flow.reference.function), swallowed.place)
                    found.setdefault(key, []).append(use)
                    self._swallowers.setdefault(key, swallower)
        return found

    def _of_reads(self, flow: FunctionFlow, identity: Path, swallower: Swallower) -> Confidence:
        """How sure it is that somebody suffers from a read that may have failed in a callee."""
        if not self.is_for_reads(swallower.flow, swallower.session):
            return Confidence.POSSIBLE
        return flow.sessions[identity].certainty.at_most(Confidence.LIKELY)

    def _uses_in(self, flow: FunctionFlow) -> Iterator[Use]:
        for reuse in self.reuses(flow):
            if not is_retry(reuse):
                yield Use(flow, reuse.event, reuse.confidence, False)
        for event in flow.events:
            if event.kind == result.LOST_IN_BLOCK and event.session is not None:
                goes_on = self._project.outlives(event.session) or ends_well(event, event.session)
                sure = event.session.transaction == FAILED and not goes_on
                info = flow.sessions[event.identity]
                certainty = info.certainty.at_most(event.session.certainty)
                yield Use(flow, event, certainty if sure else Confidence.POSSIBLE, True)

    def reuses(self, flow: FunctionFlow) -> Iterator[Reuse]:
        """Uses of a session after a swallowed failure, one per failing place."""
        seen = set()
        events = [event for event in flow.events if event.kind == result.USE_BROKEN and event.session is not None]
        for event in sorted(
            events,
            # What is asked of the session itself before what its objects load.
            key=lambda event: (
                event.session is not None and event.session.transaction != FAILED,
                _ends_nothing(event),
                event.detail == operations.LOAD,
                event.place,
            ),
        ):
            assert event.session is not None
            swallowed = event.session.witness.swallowed
            key = (event.identity, swallowed.place if swallowed else event.place)
            if key in seen or _clears_up(event):
                continue
            seen.add(key)
            info = flow.sessions[event.identity]
            certainty = info.certainty.at_most(event.session.certainty)
            if info.origin in _GIVEN and self._project.call_graph.is_left_out(flow.reference, event.identity):
                certainty = Confidence.POSSIBLE
            if event.detail == operations.LOAD:
                certainty = certainty.at_most(Confidence.LIKELY)
            is_plain = info.type.role == "session" and not event.session.begun
            if is_plain and self._project.begins_nothing(flow.reference.module.path):
                certainty = Confidence.POSSIBLE  # What fails takes a transaction of its own along.
            if self._project.outlives(event.session) or _ends_nothing(event):
                certainty = Confidence.POSSIBLE
            elif event.session.transaction != FAILED:
                is_meant = _goes_on_for_ever(flow, event) or (not _is_attempt(event) and self._is_meant(flow, event))
                certainty = certainty.at_most(Confidence.LIKELY if is_meant else Confidence.POSSIBLE)
            yield Reuse(event, event.session, certainty)

    def _is_meant(self, flow: FunctionFlow, event: Event) -> bool:
        """Whether a handler has been written for the read that may have failed, and the session suffers from it."""
        assert event.session is not None
        if event.detail in _SAVING and hands_over(self._project.table, flow, event.session):
            return True
        # A commit of nothing ends an aborted transaction without an error, as a rollback does.
        loses = event.detail != operations.COMMIT or event.session.dirty
        return loses and self.is_for_reads(flow, event.session)

    def is_for_reads(self, flow: FunctionFlow, session: SessionState) -> bool:
        """Whether a handler is there for a failed read alone, which aborts the transaction."""
        return self._project.aborts_transactions and guards_alone(self._project.table, flow, session)

    def _asks(self, flow: FunctionFlow, event: Event) -> bool:
        """Whether a caller tests what the call has given back, of which is not known what it says, and leaves."""
        assert event.session is not None
        swallowed = event.session.witness.swallowed
        callee = self._deeper(flow, event.identity, event.session)
        if callee is None or swallowed is None:
            return False
        # What the caller does with an answer that is known, the flow itself has followed.
        answers = [answer_in(way.value) for way in callee.flow.exits if _leaves_broken(way)]
        names: set[str] = set()
        for statement in ir.statements(flow.reference.function.body):
            if isinstance(statement, ir.Assign) and ir.within(swallowed.place, statement.place):
                names = {name for target in statement.targets for name in _untold(target, answers)}
            elif isinstance(statement, ir.If) and swallowed.place < statement.place < event.place:
                parts = ir.expressions(statement.test)
                if any([isinstance(part, ir.Name) and part.path[0] in names for part in parts]) and _leaves(statement):
                    return True
        return False


def _untold(target: ir.Expr, answers: list[Value]) -> Iterator[str]:
    """The names of which is not known in all cases what they hold: of `rows, error = load()` it may be one of them."""
    if isinstance(target, ir.Collection):
        for index, item in enumerate(target.items):
            parts = [answer.part(index) if isinstance(answer, Answer) else None for answer in answers]
            yield from _untold(item, parts)
    elif None in answers:
        yield from [path[0] for path in bound_paths(target)]


def _leaves(statement: ir.If) -> bool:
    """Whether what follows is left out in one of the cases."""
    bodies = (statement.body, statement.orelse)
    return any([bool(body) and isinstance(body[-1], (ir.Return, ir.Raise, ir.Continue, ir.Break)) for body in bodies])


def _leaves_broken(way: Exit) -> bool:
    """Whether the function returns normally with a failed session."""
    return way.error is None and any([session.transaction in BROKEN for session in way.state.sessions.values()])


def ends_well(event: Event, session: SessionState) -> bool:
    """Whether a block that ends after a failure loses nothing. A savepoint's fails at its RELEASE."""
    return event.detail != result.RELEASE and loses_nothing(session)


def _ends_nothing(event: Event) -> bool:
    """Whether a commit goes through and loses nothing: the statement that has failed is all that was sent."""
    session = event.session
    is_commit = event.detail == operations.COMMIT
    return is_commit and session is not None and session.reset and loses_nothing(session)


def is_retry(reuse: Reuse) -> bool:
    """Whether the use is the next attempt at what failed: a loop that success leaves."""
    failed = reuse.session.witness.failed
    if failed is None or reuse.event.place > failed.place:
        return False
    if not any([frame.kind == "try" and ir.within(failed.place, frame.node.place) for frame in reuse.event.frames]):
        return False
    for frame in reversed(reuse.event.frames):
        if isinstance(frame.node, (ir.For, ir.While)) and ir.within(failed.place, frame.node.place):
            return _is_retry_loop(frame.node)
    return False


def _clears_up(event: Event) -> bool:
    """`try: session.commit()`, `except Exception: session.rollback()`: that is over with the handler."""
    attempt = event.frames[-1].node if event.frames and event.frames[-1].kind == "try" else None
    if event.detail != operations.COMMIT or not isinstance(attempt, ir.Try) or len(attempt.body) > 1:
        return False
    first = attempt.handlers[0] if attempt.handlers else None
    if first is None or (first.type is not None and last_name(first.type) not in _CATCHING_ALL):
        return False
    called = [last_name(call.function) for call in handled_calls(attempt)]
    return "rollback" in called and not any([isinstance(each, ir.Raise) for each in ir.statements(first.body)])


def _is_attempt(event: Event) -> bool:
    """Whether a use is in a loop that tries again and again: a database that can't be reached yet breaks no session."""
    return any(
        [
            counts_attempts(frame.node.iterable)
            if isinstance(frame.node, ir.For)
            else isinstance(frame.node, ir.While)
            and any([isinstance(statement, ir.Break) for statement in ir.statements(frame.node.body)])
            for frame in event.frames
        ]
    )


def _goes_on_for_ever(flow: FunctionFlow, event: Event) -> bool:
    """Whether the next turn of an endless loop finds a session as the last one has left it.

    There a read is bound to fail some day, when the database is restarted, and all further ones with it.
    """
    assert event.session is not None
    swallowed, info = event.session.witness.swallowed, flow.sessions[event.identity]
    for frame in event.frames:
        loop = frame.node
        if isinstance(loop, ir.While) and is_endless(loop) and swallowed is not None:
            leaves = any([isinstance(each, (ir.Break, ir.Return)) for each in ir.statements(loop.body)])
            is_of_turn = info.origin in result.OPENED_HERE and ir.within(info.place, loop.place)
            is_next = ir.within(swallowed.place, loop.place) and event.place <= swallowed.place
            if is_next and not leaves and not is_of_turn:
                return True
    return False


def _is_retry_loop(loop: ir.For | ir.While) -> bool:
    if isinstance(loop, ir.For) and not counts_attempts(loop.iterable):
        return False
    for statement in ir.statements(loop.body):
        if isinstance(statement, ir.Try):
            for inner in ir.statements((*statement.body, *statement.orelse)):
                if isinstance(inner, (ir.Break, ir.Return)):
                    return True
    return any([isinstance(statement, (ir.Break, ir.Return)) for statement in loop.body])


def counts_attempts(iterable: ir.Expr) -> bool:
    """`range(3)`, `count()`, a list of delays: attempts rather than items."""
    if isinstance(iterable, ir.Call) and isinstance(iterable.function, ir.Name):
        return iterable.function.path[-1] in ("range", "count", "repeat", "Retrying", "AsyncRetrying")
    if isinstance(iterable, ir.Name):
        return any([word in iterable.path[-1].lower() for word in ("retr", "attempt", "delay", "backoff")])
    return isinstance(iterable, ir.Collection)
