"""The end of with blocks: who commits, rolls back or closes a session there, and what fails in that."""

from __future__ import annotations

from session_lint import ir
from session_lint.flow import errors, result
from session_lint.flow.effects import released
from session_lint.flow.errors import Error
from session_lint.flow.outcome import Outcome
from session_lint.flow.renewals import Renewals, restored
from session_lint.flow.state import (
    BROKEN,
    CLOSED,
    ENTRY,
    NONE,
    OPEN,
    RELEASED,
    Mark,
    Pairs,
    SessionState,
    State,
    States,
)
from session_lint.flow.values import (
    BLOCK,
    Const,
    Function,
    Instance,
    Manager,
    Path,
    Session,
    Value,
    direct_sessions,
    truth,
)
from session_lint.project.modules import FunctionRef
from session_lint.project.provider import Provider


class Leaving(Renewals):
    """Leaves context managers, on every way out of their blocks."""

    def leave(self, manager: Value, inner: Outcome, outcome: Outcome, node: ir.With) -> None:
        """Run a manager's exit on every way out of its block."""
        if not isinstance(manager, Manager):
            outcome.update(inner)
            return

        def normally(states: States) -> list[State]:
            left = [after for state in states for after in self._leave_normally(manager, state, node, outcome)]
            return [restored(manager, after) for after in left]

        outcome.normal.update(normally(inner.normal))
        outcome.breaks.update(normally(inner.breaks))
        outcome.continues.update(normally(inner.continues))
        for value, place, group in inner.returns.groups():
            for state in normally(States(group)):
                outcome.returns.add(state, value, place)
        for state, error in inner.raises:
            for left, swallowed in self._leave_raising(manager, state, error, node, outcome):
                after = restored(manager, left)
                if swallowed != "always":
                    outcome.raises.add(after, error)
                if swallowed != "never":
                    outcome.normal.add(after)

    def _leave_normally(self, manager: Manager, state: State, node: ir.With, outcome: Outcome) -> list[State]:
        owner = manager.value
        if manager.kind == "scope":
            return [self._end_scope(manager, state, False)]
        if manager.kind == "object" and isinstance(owner, Instance):
            left = self._call_manager(owner, "exit", (Const(None),) * 3, state, node, outcome)
            return [after for after, _ in left]
        if not isinstance(owner, Session) or owner.identity not in state.sessions:
            return [state]
        identity = owner.identity
        session = state.sessions[identity]
        info = self.flow.sessions[identity]
        if manager.kind == "current":
            return [state.set(identity, SessionState())]
        if manager.kind == "session" and info.type.commits == BLOCK:
            state = self._commit_by(state, identity, node, outcome, "the with block", True)
            session = state.sessions[identity]
        if manager.kind in ("session", "closing", "foreign"):
            closed = Mark(node.place, f"the with block closes {info.name} here")
            # A provider that can't be seen may well commit.
            handed = session.handed or manager.kind == "foreign"
            if not handed:
                self._throw_away(session, identity, node)
            return [
                state.set(identity, session._replace(transaction=CLOSED, owned=False, handed=handed).mark(ended=closed))
            ]
        if manager.kind == "savepoint":
            # RELEASE flushes: if that fails, the block rolls back to the savepoint and raises.
            restored = _outside(self.release(session, identity, node.place), manager)
            if session.pending:
                outcome.raises.add(state.set(identity, restored), Error(errors.INTEGRITY, node.place, "the savepoint"))
                outcome.raises.add(state.set(identity, restored), Error(errors.DATABASE, node.place, "the savepoint"))
            return [state.set(identity, restored)]
        if manager.kind in ("begin", "joining begin", "open begin"):
            return self._end_block(manager, state, session, identity, node, outcome)
        if manager.kind == "provider" and manager.reference is not None:
            provider = self._provider(manager)
            if provider.commits:
                who = f"{manager.reference.function.name}()"
                state = self._commit_by(state, identity, node, outcome, who, provider.closes_on_error)
                session = state.sessions[identity]
            if provider.may_commit:
                session = session._replace(handed=True)
            if provider.nested:
                session = self.release(session, identity, node.place)
            if provider.closes:
                if not session.handed:
                    self._throw_away(session, identity, node)
                session = session._replace(transaction=CLOSED, owned=False)
            return [state.set(identity, session._replace(begun=0))]
        return [state]

    def _throw_away(self, session: SessionState, identity: Path, node: ir.With) -> None:
        """Note what a block that ends without an error does not commit: a loop's next turn has another session."""
        if session.dirty and session.transaction not in (*BROKEN, CLOSED) and session.witness.wrote is not None:
            place = session.witness.wrote.place
            self.event(result.THROWN_AWAY, node.place, identity, "the with block", session, str(place))

    def _end_block(
        self, manager: Manager, state: State, session: SessionState, identity: Path, node: ir.With, outcome: Outcome
    ) -> list[State]:
        if session.begun == 1:
            before = session
            state = self._commit_by(state, identity, node, outcome, "the begin() block", manager.kind == "open begin")
            session = state.sessions[identity]
            if manager.kind == "joining begin":
                left = before._replace(transaction=ENTRY, dirty=False, pending=False, begun=0)
                return [state.set(identity, left)]
        transaction = CLOSED if manager.kind == "open begin" else NONE
        ended = Mark(node.place, "the begin() block ends the transaction here")
        owned = session.owned and transaction != CLOSED
        after = session._replace(transaction=transaction, begun=0, owned=owned)
        return [state.set(identity, after.mark(ended=ended))]

    def _commit_by(
        self, state: State, identity: Path, node: ir.With, outcome: Outcome, who: str, closes: bool
    ) -> State:
        """The end of a block commits: what it commits may be lost, and the commit itself may fail, cleanly."""
        session = state.sessions[identity]
        if session.transaction in BROKEN and session.witness.swallowed is not None:
            # The same failure, with and without something written before it, is two events.
            self.event(result.LOST_IN_BLOCK, node.place, identity, who, session, session.dirty)
        if state.thrown:
            self.event(result.COMMITTED_FAILING, node.place, identity, who, session)
        clean = session._replace(transaction=NONE, dirty=False, pending=False, reset=True)
        if session.transaction == OPEN or session.dirty:
            over = clean._replace(transaction=CLOSED, owned=False) if closes else clean
            failed = state.set(identity, over._replace(begun=0))
            outcome.raises.add(failed, Error(errors.DATABASE, node.place, f"the commit of {who}"))
            outcome.raises.add(failed, Error(errors.INTEGRITY, node.place, f"the commit of {who}"))
        return state.set(identity, clean._replace(commits=min(session.commits + 1, 2)))

    def _leave_raising(
        self, manager: Manager, state: State, error: Error, node: ir.With, outcome: Outcome
    ) -> list[tuple[State, str]]:
        """The states after an exception has left the block, and whether it ends there."""
        owner = manager.value
        if manager.kind == "object" and isinstance(owner, Instance):
            left = self._call_manager(owner, "exit", (Const(True),) * 3, state, node, outcome)
            ways = [(after, "always" if truth(answer) is True else "never") for after, answer in left]
            # One that rolls back on some way does so where it matters: the object's own flags decide.
            held = [session.identity for session in direct_sessions(owner)]
            ended = [way for way in ways if not any([way[0].sessions[each].transaction in BROKEN for each in held])]
            return ended or ways
        state, swallowed = self._left_by_error(manager, state, error)
        if isinstance(owner, Session) and owner.identity in state.sessions:
            if manager.kind == "savepoint":
                state = self.rolled_back_too(owner.identity, state, OPEN)
            elif state.sessions[owner.identity].transaction in (NONE, CLOSED):
                state = self.rolled_back_too(owner.identity, state)
        return [(state, swallowed)]

    def _left_by_error(self, manager: Manager, state: State, error: Error) -> tuple[State, str]:
        if manager.kind == "suppress":
            return state, errors.caught(error.kind, manager.types, self.project.lineage)
        if manager.kind == "scope":
            return self._end_scope(manager, state, True), "never"
        owner = manager.value
        if not isinstance(owner, Session) or owner.identity not in state.sessions:
            return state, "never"
        identity = owner.identity
        session = state.sessions[identity]
        if manager.kind == "current":  # The one from before the block is the current one again.
            return state.set(identity, SessionState()), "never"
        if manager.kind in ("session", "closing", "foreign", "open begin"):
            closed = session._replace(transaction=CLOSED, dirty=False, pending=False, owned=False, begun=0)
            return state.set(identity, closed), "never"
        if manager.kind in ("begin", "joining begin"):
            rolled_back = session._replace(transaction=NONE, dirty=False, pending=False, begun=0, reset=True)
            return state.set(identity, rolled_back), "never"
        if manager.kind == "savepoint":
            return state.set(identity, _outside(released(session), manager)), "never"
        if manager.kind == "provider" and manager.reference is not None:
            provider = self._provider(manager)
            if provider.closes_on_error:
                session = session._replace(transaction=CLOSED, dirty=False, pending=False, owned=False)
            elif provider.ends_on_error:
                session = session._replace(transaction=NONE, dirty=False, pending=False)
            elif provider.nested:
                session = released(session)
            return state.set(identity, session._replace(begun=0)), "maybe" if provider.swallows else "never"
        return state, "never"

    def _end_scope(self, manager: Manager, state: State, raises: bool) -> State:
        """Who asks for a session after an application's context gets another one than the one that has failed in it."""
        for identity, session in state.sessions.items():
            is_theirs = self.flow.sessions[identity].framework in manager.types
            if is_theirs and (raises or session.transaction in BROKEN):
                state = state.set(identity, SessionState())
        return state

    def _provider(self, manager: Manager) -> Provider:
        """What a context manager function does at its end, called as it was."""
        assert manager.reference is not None
        constants = self.project.summaries.constants(manager.reference, manager.bindings)
        return self.project.provider(manager.reference, constants)

    def _call_manager(
        self, value: Instance, name: str, given: tuple[Value, ...], state: State, node: ir.With, outcome: Outcome
    ) -> Pairs:
        """Call the method that a `with` statement calls, if the project has it."""
        method = self._method_of(value, name, node)
        if method is None:
            return [(state, None)]
        called = ir.Call(ir.Name((value.reference.definition.name, method.function.name)), (), node.place)
        arguments = tuple([(None, each, ir.UNKNOWN) for each in given])
        return self.project_function(Function(method, value), called, arguments, state, outcome, "awaited")

    def _method_of(self, value: Instance, name: str, node: ir.With) -> FunctionRef | None:
        return self.project.table.method(value.reference, f"__{'a' if node.is_async else ''}{name}__")


def _outside(session: SessionState, savepoint: Manager) -> SessionState:
    """The session after a savepoint's block, the end of which nobody need have waited for."""
    return session._replace(begun=savepoint.begun) if session.begun == RELEASED else session
