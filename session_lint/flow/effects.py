"""What an operation does to a session's typestate, and what goes wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from session_lint import ir
from session_lint.flow import errors, result
from session_lint.flow import operations as ops
from session_lint.flow.errors import Error
from session_lint.flow.outcome import Outcome
from session_lint.flow.result import Event, Frame, FunctionFlow, SessionInfo
from session_lint.flow.state import (
    BROKEN,
    CLOSED,
    CUT,
    ENTRY,
    FAILED,
    INACTIVE,
    NONE,
    OPEN,
    RELEASED,
    SUSPECT,
    Mark,
    SessionState,
    State,
    Witness,
    failed_method,
)
from session_lint.flow.values import JOINED, STATEMENT, Path, SessionType
from session_lint.ir_queries import attributes_in
from session_lint.project.keywords import packed_in
from session_lint.project.modules import FunctionRef, Module

if TYPE_CHECKING:
    from session_lint.project.link import Project

_QUESTIONS = frozenset({"in_transaction", "get_transaction", "in_nested_transaction", "is_active", "transaction"})
_SQL = (ops.READ, ops.WRITE, ops.ADD, ops.FLUSH, ops.BEGIN, ops.SAVEPOINT, ops.EXECUTE)
_REFUSED = {
    # What was added after the end of a begin() block's transaction is never written; of a savepoint's it is, later.
    2: frozenset(_SQL),
    RELEASED: frozenset(_SQL) - {ops.ADD},
}


class Effects:
    """The sessions of one function, and the operations on them."""

    def __init__(self, project: Project, reference: FunctionRef, depth: int) -> None:
        self.project = project
        self.module: Module = reference.module
        self.function: ir.Function = reference.function
        self.packed = packed_in(reference.function)
        self.flow = FunctionFlow(reference)
        self.depth = depth
        self.frames: list[Frame] = []
        self.statement: ir.Stmt | None = None
        self.cancellation_known = False
        """Whether what was evaluated last has itself said how it ends when it is cancelled."""
        self.failing = False
        """Whether an exception is on its way out, and only a finally block runs."""
        self.has_failed = False
        """Whether a session may have failed here: before that, all that it has loaded is there."""
        self._asks: bool | None = None
        self._seen_events: set[object] = set()

    # --------------------------------------------------------------------------------------------- records

    @contextmanager
    def inside(self, kind: str, node: ir.Stmt | ir.Handler) -> Iterator[None]:
        self.frames.append(Frame(kind, node))
        yield
        self.frames.pop()

    def event(
        self,
        kind: str,
        place: ir.Place,
        identity: Path,
        text: str,
        state: SessionState | None = None,
        detail: object = None,
    ) -> None:
        """Record an event once per place, session and state that matters."""
        witness = None
        if state is not None:
            cause = state.witness.failed, state.witness.split
            # A commit is one of writes if any way there has written something.
            is_commit = kind == result.COMMITTED or detail == ops.COMMIT
            lost = state.dirty and (state.transaction == CLOSED or is_commit)
            witness = (state.transaction, cause, state.begun, state.savepoints, lost)
        key = (kind, place, identity, witness, detail if isinstance(detail, (bool, str)) else None)
        if key not in self._seen_events:
            self._seen_events.add(key)
            self.flow.events.append(Event(kind, place, identity, text, state, tuple(self.frames), detail))

    def track(self, info: SessionInfo, session: SessionState, state: State) -> State:
        """Begin to follow a session."""
        self.flow.sessions.setdefault(info.identity, info)
        return state.set(info.identity, session)

    def open(
        self, kind: SessionType, place: ir.Place, state: State, name: str, origin: str = result.LOCAL
    ) -> tuple[State, Path]:
        """A new session, made at a place."""
        identity: Path = (f"@{place[0]}:{place[1]}",)
        known = state.sessions.get(identity)
        if known is not None and known.owned and leaks(known):
            self.event(result.OVERWRITTEN, place, identity, name, known)
        if identity not in self.flow.sessions:
            self.flow.sessions[identity] = SessionInfo(identity, name, origin, kind, place)
        opened = Mark(place, f"{name} is opened here")
        return state.set(
            identity,
            SessionState(
                transaction=NONE,
                owned=kind.commits != JOINED,
                reset=True,
                handed=kind.commits in (STATEMENT, JOINED),
                witness=Witness(opened=opened),
            ),
        ), identity

    # ------------------------------------------------------------------------------------------- operations

    def operate(self, state: State, identity: Path, kind: str, place: ir.Place, text: str, outcome: Outcome) -> State:
        """The state after an operation has succeeded; its failures go to the outcome.

        text: the operation in the words of the code, such as "session.commit()".
        """
        session = state.sessions[identity]
        info = self.flow.sessions[identity]
        if not session.touched and kind not in (ops.ROLLBACK, ops.CLOSE, ops.REMOVE, ops.NEUTRAL):
            self.flow.first_uses.add(identity)
        if kind in (ops.NEUTRAL, ops.QUERY):
            return state
        self.flow.direct.add(identity)
        if kind in (ops.CLOSE, ops.REMOVE):
            self.event(result.CLOSED_BY_HAND, place, identity, text, session)
            # What was written and not committed is lost, so it stays noted.
            closed = session._replace(transaction=CLOSED, owned=False, reset=True, touched=True)
            return state.set(identity, closed.mark(ended=Mark(place, f"{text} ends the transaction here")))
        if kind == ops.ROLLBACK:
            self.event(result.ROLLED_BACK, place, identity, text, session, session.witness.again is not None)
            if session.dirty or session.transaction in BROKEN:
                # What was refused was never written here, but a caller may have written.
                session = session.mark(lost=Mark(place, f"{text} throws all uncommitted writes away here"))
            after = session._replace(
                transaction=NONE, dirty=False, pending=False, reset=True, touched=True, begun=_ended(session)
            )
            if session.transaction == CLOSED:
                after = after._replace(transaction=CLOSED)
            return state.set(identity, after.mark(ended=Mark(place, f"{text} ends the transaction here")))
        is_new = not session.touched and info.origin == result.LOCAL and info.type.role == "session"
        session = self.check_use(session, info, kind, place, text, state, outcome)
        mark = Mark(place, f"{text} {'writes' if kind in (ops.WRITE, ops.ADD, ops.FLUSH) else 'uses it'} here")
        session = self.go_on(session._replace(touched=True), identity, kind, mark)
        if kind == ops.ADD:
            self.event(result.WROTE, place, identity, text, session)
            return state.set(identity, _pending(session, mark))
        if session.witness.used is None:
            session = session.mark(used=mark)
        if kind == ops.BEGIN:
            # A session takes no connection before its first statement, so there is nothing that could fail.
            return state.set(
                identity, session._replace(transaction=NONE if session.transaction == ENTRY else session.transaction)
            )
        if kind == ops.SAVEPOINT and session.pending:
            self.event(result.FLUSHED_FIRST, place, identity, text, session)
        if not (is_new and kind == ops.COMMIT):  # With nothing to commit there is no connection that could fail.
            self._failures(session, identity, kind, place, text, state, outcome, info)
        if kind == ops.COMMIT:
            if self.failing or state.thrown:
                half_done = str(session.witness.wrote) if session.dirty else ""
                self.event(result.COMMITTED_FAILING, place, identity, text, state.sessions[identity], half_done)
            self.event(result.COMMITTED, place, identity, text, session)
            if session.savepoints:
                self.event(result.COMMIT_IN_SAVEPOINT, place, identity, text, session)
            after = session._replace(
                transaction=NONE,
                dirty=False,
                pending=False,
                reset=True,
                commits=min(session.commits + 1, 2),
                begun=_ended(session),
            )
            return state.set(identity, after.mark(ended=Mark(place, f"{text} ends the transaction here"), wrote=None))
        if kind in (ops.WRITE, ops.FLUSH):
            if kind == ops.WRITE:
                self.event(result.WROTE, place, identity, text, session)
            wrote = session.witness.wrote or mark
            dirty = session.dirty or kind == ops.WRITE
            return state.set(identity, session._replace(transaction=OPEN, dirty=dirty, pending=False).mark(wrote=wrote))
        return state.set(identity, session._replace(transaction=OPEN, pending=False))

    def change(self, state: State, identity: Path, place: ir.Place, text: str) -> State:
        """The state after an object of the session was changed: nothing is sent before the next flush."""
        session = state.sessions[identity]
        if session.transaction in (*BROKEN, CUT, CLOSED) or session.begun == 2:
            return state
        self.flow.direct.add(identity)
        mark = Mark(place, f"{text} writes here")
        session = self.go_on(session._replace(touched=True), identity, ops.ADD, mark)
        self.event(result.WROTE, place, identity, text, session, result.CHANGE)
        return state.set(identity, _pending(session, mark))

    def begin(self, state: State, identity: Path, place: ir.Place, text: str) -> None:
        """Note a begin(), which fails if the session is in a transaction."""
        if self._asks is None:
            # Who asks for the transaction knows what to do if there is one.
            self._asks = not _QUESTIONS.isdisjoint(attributes_in(self.function))
        if self._asks:
            return
        session = state.sessions[identity]
        # What was in a transaction already has not been put into one here.
        self.event(result.BEGUN, place, identity, text, session, in_transaction(session) and not session.found)
        if session.transaction == ENTRY and not session.pending:
            self.flow.begins.setdefault(identity, Mark(place, f"{text} begins a transaction here"))

    def inactive(self, state: State, identity: Path) -> State:
        """The state of which `is_active` says that the session has failed in a flush.

        The flush has rolled back, and a session that nobody has any more gives its connection back by itself; one of
        asyncio can't.
        """
        session = state.sessions[identity]
        if session.transaction == ENTRY:
            return state.set(identity, session._replace(transaction=INACTIVE))
        if session.owned and not self.flow.sessions[identity].type.is_async:
            return state.set(identity, session._replace(owned=False))
        return state

    def go_on(self, session: SessionState, identity: Path, kind: str, mark: Mark) -> SessionState:
        """Note a write or commit after a rollback that threw writes away, and a write on top of a loop's last one."""
        if kind not in (ops.ADD, ops.WRITE, ops.COMMIT):
            return session
        if session.witness.lost is not None:
            self.event(result.LOST, mark.place, identity, mark.text, session, str(session.witness.lost.place))
            session = session.mark(lost=None, wrote=None, again=None)
        wrote = session.witness.wrote
        if session.dirty and wrote is not None and mark.place <= wrote.place and self.is_here(wrote.place):
            session = session.mark(again=mark)
        return session

    def is_here(self, place: ir.Place) -> bool:
        """Whether a place is this very function's: those of nested ones say nothing of the order of what is done."""
        statements = self.project.table.bodies.statements(self.function.body)
        nested = [each.place for each in statements if isinstance(each, ir.Define)]
        return ir.within(place, self.function.place) and not any([ir.within(place, each) for each in nested])

    def check_use(
        self,
        session: SessionState,
        info: SessionInfo,
        kind: str,
        place: ir.Place,
        text: str,
        state: State,
        outcome: Outcome,
    ) -> SessionState:
        """Note the use of a session that is broken, closed or done with its block; what it is in after that."""
        identity = info.identity
        if session.transaction in BROKEN:
            # A commit that only ends an aborted transaction hides no error that is on its way out.
            is_end = kind == ops.COMMIT and self.failing and loses_nothing(session)
            if session.witness.swallowed is not None and not is_end:
                self.event(result.USE_BROKEN, place, identity, text, session, kind)
            outcome.raises.add(state, Error(errors.REFUSED, place, text))
            if session.transaction == FAILED:
                # What was written before is lost already: whoever rolls back later takes nothing away.
                session = session._replace(dirty=False, pending=False).mark(wrote=None, again=None)
            return session._replace(transaction=OPEN).mark(failed=None, swallowed=None)
        if session.transaction == CLOSED:
            self.event(result.USE_CLOSED, place, identity, text, session, kind)
            return session._replace(transaction=NONE)
        if kind in _REFUSED.get(session.begun, ()) and (kind != ops.FLUSH or session.pending):
            self.event(result.AFTER_END, place, identity, text, session, kind)
            return session._replace(begun=0)
        return session

    def release(self, session: SessionState, identity: Path, place: ir.Place) -> SessionState:
        """The session after a savepoint's block that is left without an error.

        A flush that fails rolls back to the savepoint by itself. A statement that fails leaves the transaction aborted:
        the block's RELEASE fails, too, whatever its handler has meant.
        """
        if session.transaction == FAILED and session.witness.swallowed is not None and _is_by_statement(session):
            self.event(result.LOST_IN_BLOCK, place, identity, "begin_nested()", session, result.RELEASE)
        return released(session)

    def _failures(
        self,
        session: SessionState,
        identity: Path,
        kind: str,
        place: ir.Place,
        text: str,
        state: State,
        outcome: Outcome,
        info: SessionInfo,
    ) -> None:
        """The operation may fail in the database, and if it is awaited, be cancelled."""
        sure = kind in (ops.WRITE, ops.FLUSH, ops.COMMIT) or session.pending
        if kind == ops.SAVEPOINT and not sure:
            return
        broken = session._replace(transaction=FAILED if sure else SUSPECT)
        if info.type.commits == STATEMENT and not session.pending and kind in (ops.READ, ops.WRITE):
            broken = session._replace(transaction=OPEN)  # Only a flush or commit breaks the session, too.
        failed = state.set(identity, broken.failing(place, f"{text} may fail here"))
        outcome.raises.add(failed, Error(errors.DATABASE, place, text))
        if sure:
            outcome.raises.add(failed, Error(errors.INTEGRITY, place, text))
        if info.type.is_async:
            self.cancellation_known = True
            # Cancelled inside its own statement, the connection is invalidated: nothing stays behind.
            interrupted = session._replace(transaction=CUT, dirty=False, pending=False)
            outcome.raises.add(state.set(identity, interrupted), Error(errors.CANCELLED, place, f"await {text}"))


def in_transaction(session: SessionState) -> bool:
    """Whether SQLAlchemy refuses to begin a transaction on the session: any use of it has begun one."""
    return session.transaction == OPEN or session.pending or session.begun == 1


def known_transaction(session: SessionState) -> bool | None:
    """What `session.in_transaction()` says; None if that is open."""
    if session.transaction == CLOSED:
        return False
    if in_transaction(session) or session.transaction in BROKEN:
        return True
    if session.transaction == ENTRY:
        return session.found
    return False if session.transaction == NONE else None


def is_active(session: SessionState) -> bool | None:
    """What `session.is_active` says; None if that is open.

    A failed flush or commit makes it False. A statement that fails leaves it True, although the database refuses all
    further ones.
    """
    if session.transaction in (NONE, OPEN, CLOSED):
        return True
    if session.transaction == INACTIVE:
        return False
    if session.transaction not in BROKEN or session.witness.failed is None:
        return None
    kind, method = _failed_kind(session)
    if session.pending or kind in (ops.FLUSH, ops.COMMIT):
        return False if session.transaction == FAILED else None
    return True if kind in (ops.EXECUTE, ops.READ, ops.QUERY) or method in ops.QUERY_WRITES else None


def loses_nothing(session: SessionState) -> bool:
    """Whether a commit() goes through and loses nothing: a statement has failed, and nothing was written before.

    The database is told to end the transaction, and no more; a failed flush() is what makes commit() itself fail.
    """
    return _is_by_statement(session) and not session.dirty


def _is_by_statement(session: SessionState) -> bool:
    """Whether a statement has failed, and no flush before it."""
    kind, method = _failed_kind(session)
    return (kind in (ops.EXECUTE, ops.QUERY) or method in ops.QUERY_WRITES) and not session.pending


def _failed_kind(session: SessionState) -> tuple[str | None, str]:
    """The kind of the operation that has failed, and its method: `Order.query.filter().delete()` is a query."""
    owner, method = failed_method(session)
    is_query = owner.rpartition(".")[2] == "query"
    return ops.QUERY if is_query else ops.SESSION_METHODS.get(method), method


def released(session: SessionState) -> SessionState:
    """The session after a savepoint: released, or rolled back to if anything has failed in it."""
    return session._replace(
        transaction=OPEN if session.transaction in BROKEN else session.transaction,
        pending=False,
        savepoints=session.savepoints - 1,
    )


def _pending(session: SessionState, mark: Mark) -> SessionState:
    """With something to be written at the next flush."""
    return session._replace(dirty=True, pending=True).mark(wrote=session.witness.wrote or mark)


def _ended(session: SessionState) -> int:
    return 2 if session.begun else 0


def leaks(session: SessionState) -> bool:
    """Whether a connection may be out: something was sent and the transaction was not ended."""
    return session.transaction in (OPEN, FAILED, SUSPECT)
