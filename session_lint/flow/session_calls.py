"""Calls of what the analysis follows: sessions, transactions, queries, engines and generators of sessions."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from session_lint import ir
from session_lint.flow import operations as ops
from session_lint.flow import result
from session_lint.flow.effects import known_transaction
from session_lint.flow.errors import Error
from session_lint.flow.namesakes import Namesakes
from session_lint.flow.objects import known_since, sent
from session_lint.flow.outcome import Outcome
from session_lint.flow.sql_statements import SqlStatements, names_class
from session_lint.flow.state import (
    BROKEN,
    ENTRY,
    NONE,
    OPEN,
    RELEASED,
    Mark,
    Pairs,
    State,
)
from session_lint.flow.values import (
    OBJECT,
    ROWS,
    SCALARS,
    Arguments,
    Borrowed,
    ClassValue,
    ConnectionOf,
    Coroutine,
    Engine,
    Generator,
    Loaded,
    Manager,
    Method,
    Opened,
    Path,
    Query,
    Registry,
    Session,
    Transaction,
    Truth,
    Value,
    connection_of,
)
from session_lint.ir_queries import (
    asks_for_autocommit,
    call_place,
    call_text,
    path_of,
    uncalled,
)
from session_lint.project.modules import ClassRef, FunctionRef

if TYPE_CHECKING:
    from session_lint.project.link import Project

_KEEPING = (
    *("begin", "begin_nested", "close", "__enter__", "__aenter__", "execution_options", "no_autoflush"),
    *("get_bind", "bind", "info", "is_active"),
)
"""What may be asked of a session that has no name yet: it gets one, another rule speaks of it, or nothing is sent."""

_GIVES = {"execute": ROWS, "scalars": SCALARS, "scalar": OBJECT, "exec": SCALARS}
"""What a statement that selects mapped objects gives, by the method that sends it."""

_OF_COLUMNS = frozenset({"with_entities", "add_columns", "add_column", "add_entity", "values"})
"""Methods of queries that ask for something else than mapped objects."""

_CONNECTIONS = (("connection",), ("conn",), ("_connection",), ("_conn",))
_DRIVER = ("connection", "driver_connection", "dbapi_connection")
"""What SQLAlchemy's connections call the driver's own."""

_OF_MIGRATION = ("op", "get_bind")
"""Alembic opens the connection of a migration, and closes it."""


class SessionCalls(Namesakes):
    """Applies methods of sessions, and of what sessions, engines and session generators return."""

    def __init__(self, project: Project, reference: FunctionRef, depth: int) -> None:
        super().__init__(project, reference, depth)
        self._statements = SqlStatements(self.function)

    def session_method(
        self,
        owner: Session,
        name: str,
        node: ir.Call,
        arguments: Arguments,
        state: State,
        outcome: Outcome,
        purpose: str,
    ) -> Pairs:
        identity = owner.identity
        info = self.flow.sessions[identity]
        text = call_text(node)
        kind = ops.SESSION_METHODS.get(name, ops.NEUTRAL)
        if name == "merge" and ir.Argument("load", ir.Constant(False)) in node.arguments:
            kind = ops.NEUTRAL  # The object comes from a cache, and counts as unchanged.
        if info.type.is_async and name in ops.COROUTINES and purpose in ops.NEVER_AWAITED:
            return [(state, Coroutine(None, text, node.place, identity))]
        if info.type.is_async and (
            (name in ops.COROUTINES and purpose == "returned" and self.function.is_async)
            or (kind in (ops.BEGIN, ops.SAVEPOINT) and purpose == "dropped")
        ):
            # Who awaits the function gets the coroutine, and takes it for what it would give.
            self.not_awaited(Coroutine(None, text, node.place, identity), state)
            return [(state, None)]
        for _, value, _ in arguments:
            if isinstance(value, Coroutine):  # no session takes one
                self.not_awaited(value, state)
        if kind == ops.EXECUTE:
            statement = node.arguments[0].value if node.arguments else ir.UNKNOWN
            kind = ops.WRITE if self._statements.changes_rows(statement) else ops.READ
            ends = self._statements.ends_transaction(statement)
            if ends == "ROLLBACK":
                kind = ops.ROLLBACK  # The server does the same, whoever sends it.
            elif ends == "COMMIT":
                after = self.operate(state, identity, kind, node.place, text, outcome)
                # Whether the next statement begins a transaction is the driver's: psycopg2's does not.
                return [(after.set(identity, after.sessions[identity]._replace(dirty=False, handed=True)), None)]
        if kind == ops.QUERY:
            asked = node.arguments[0].value if len(node.arguments) == 1 else None
            is_class = asked is not None and names_class(asked)
            return [(state, Query(identity, is_class, self._model(asked, state) if is_class else None))]
        if kind == ops.BEGIN and ir.Argument("nested", ir.Constant(True)) in node.arguments:
            kind = ops.SAVEPOINT
        if kind == ops.BEGIN and not any([argument.name == "subtransactions" for argument in node.arguments]):
            self.begin(state, identity, node.place, text)
        if kind in (ops.BEGIN, ops.SAVEPOINT) and (purpose == "with" or (name == "begin" and purpose == "item")):
            return [(state, Transaction(identity, kind == ops.SAVEPOINT))]
        if name in ("__enter__", "__aenter__"):
            return [(state, owner)]
        if name == "execution_options" and info.type.role == "connection":
            if asks_for_autocommit(node):
                session = state.sessions[identity]
                state = state.set(identity, session._replace(handed=True))
            return [(state, owner)]
        if name in ("__exit__", "__aexit__"):
            kind = ops.CLOSE
        if name in ops.MAY_FIND_NOTHING:
            outcome.raises.add(state, Error("sqlalchemy.exc.NoResultFound", node.place, text))
        gives = self._loaded(owner, name, node, state)
        if _innermost(identity) in state.variables and kind in (ops.COMMIT, ops.ROLLBACK):
            return self.transaction_method(Transaction(identity, True), name, node, state, outcome)
        if kind == ops.COMMIT and (savepoint := self._savepoint_around(identity, state)):
            session = state.sessions[identity]
            self.event(result.COMMIT_IN_SAVEPOINT, node.place, identity, text, session, savepoint)
        after = self.operate(state, identity, kind, node.place, text, outcome)
        if kind == ops.ROLLBACK:
            after = self.rolled_back_too(identity, after)
        if name == "add" and node.arguments:
            after = self.adopt(node.arguments[0].value, identity, after)
        elif kind in (ops.CLOSE, ops.REMOVE) or name == "expunge_all":
            after = self.disown(identity, after)
            after = _emptied(identity, after) if name == "expunge_all" else after
        elif name == "expunge" and node.arguments:
            after = self.disown(identity, after, path_of(node.arguments[0].value))
        if name == "run_sync":
            after = after.set(identity, after.sessions[identity]._replace(handed=True))
        if kind == ops.SAVEPOINT and purpose in ("dropped", "assigned") and self._ends_innermost:
            after = after.bind(_innermost(identity), Transaction(identity, True))
        if kind in (ops.BEGIN, ops.SAVEPOINT):
            return [(after, Transaction(identity, kind == ops.SAVEPOINT))]
        if name == "connection":
            return [(after, ConnectionOf(identity))]
        if name == "in_transaction":
            return self._whether_in_transaction(identity, after)
        if info.type.is_async and name in ops.COROUTINES and purpose == "assigned":
            return [(after, Coroutine(gives, text, node.place, identity))]
        return [(after, gives)]

    def _whether_in_transaction(self, identity: Path, state: State) -> Pairs:
        session = state.sessions[identity]
        known = known_transaction(session)
        if known is None and session.transaction == ENTRY:
            return [(state.set(identity, session._replace(found=found)), Truth(found)) for found in (True, False)]
        return [(state, None if known is None else Truth(known))]

    @cached_property
    def _ends_innermost(self) -> bool:
        """Whether `session.commit()` and `rollback()` end a savepoint that was begun before, as in SQLAlchemy 1."""
        return self.project.versions.is_sqlalchemy_1(self.module.path) and not self.project.switches_on("future")

    def _loaded(self, owner: Session, name: str, node: ir.Call, state: State) -> Loaded | None:
        """The mapped objects that a method of a session gives."""
        if self.flow.sessions[owner.identity].type.role != "session" or not node.arguments:
            return None
        since = known_since(state.sessions[owner.identity])
        first = node.arguments[0].value
        if name in ("get", "get_one"):
            return Loaded(owner.identity, OBJECT, since, model=self._model(first, state))
        kind = _GIVES.get(name)
        selected = self._statements.selected(first) if kind is not None else None
        if kind is None or selected is None:
            return None
        return Loaded(owner.identity, kind, since, model=self._model(selected, state))

    def _model(self, node: ir.Expr | None, state: State) -> ClassRef | None:
        """The class that is asked for, if the project defines it."""
        value = self.lookup(node.path, state) if isinstance(node, ir.Name) else None
        return value.reference if isinstance(value, ClassValue) else None

    def _savepoint_around(self, identity: Path, state: State) -> str:
        """The variable that holds a savepoint which a handler around the statement rolls back, if there is one."""
        held = [path for path, value in state.variables.items() if value == Transaction(identity, True)]
        for frame in self.frames:
            if held and frame.kind == "try" and isinstance(frame.node, ir.Try):
                bodies = [handler.body for handler in frame.node.handlers]
                called = [path_of(call.function) for body in bodies for call in self.project.table.bodies.calls(body)]
                for path in held:
                    if (*path, "rollback") in called:
                        return ".".join(path)
        return ""

    def transaction_method(self, owner: Transaction, name: str, node: ir.Call, state: State, outcome: Outcome) -> Pairs:
        session = state.sessions.get(owner.identity)
        if session is None:
            return [(state, None)]
        if owner.is_nested:
            if name == "rollback":
                restored = session._replace(transaction=OPEN) if session.transaction in BROKEN else session
                state = state.set(owner.identity, restored)
            elif name == "commit":
                state = self.operate(state, owner.identity, ops.FLUSH, node.place, call_text(node), outcome)
            if name in ("commit", "rollback", "close") and self._is_of_block(node):
                ended = Mark(node.place, f"{call_text(node)} ends the transaction here")
                state = state.set(
                    owner.identity, state.sessions[owner.identity]._replace(begun=RELEASED).mark(ended=ended)
                )
            innermost = _innermost(owner.identity)
            is_over = innermost in state.variables and name in ("commit", "rollback")
            state = state.forget([innermost]) if is_over else state
            path = path_of(node.function)[:-1] if name == "commit" else ()
            if state.variables.get(path) == owner:
                state = state.bind(path, owner._replace(is_over=True))
            return [(state, None)]
        kind = {"commit": ops.COMMIT, "rollback": ops.ROLLBACK, "close": ops.ROLLBACK}.get(name)
        if kind is None:
            return [(state, None)]
        return [(self.operate(state, owner.identity, kind, node.place, call_text(node), outcome), None)]

    def _is_of_block(self, call: ir.Call) -> bool:
        """Whether a method is called of what a `with` statement around it has begun: `with ... as savepoint:`."""
        held = ir.Name(path_of(call.function)[:-1])
        blocks = [frame.node for frame in self.frames if isinstance(frame.node, ir.With)]
        # Before 1.4, nothing kept anybody from going on.
        return any([item.target == held for block in blocks for item in block.items]) and not self._ends_innermost

    def query_method(self, owner: Query, name: str, node: ir.Call, state: State, outcome: Outcome) -> Pairs:
        if name not in ops.QUERY_READS and name not in ops.QUERY_WRITES:
            return [(state, owner._replace(gives_objects=False) if name in _OF_COLUMNS else owner)]
        kind = ops.READ if name in ops.QUERY_READS else ops.WRITE
        text = call_text(node)
        gives = sent(owner, name, state.sessions[owner.identity])
        after = self.operate(state, owner.identity, kind, node.place, text, outcome)
        if name in ops.MAY_FIND_NOTHING:
            outcome.raises.add(after, Error("sqlalchemy.exc.NoResultFound", node.place, text))
        return [(after, gives)]

    def engine_method(self, owner: Engine, name: str, node: ir.Call, state: State, outcome: Outcome) -> Pairs:
        if name == "execution_options":
            return [(state, owner._replace(autocommit=owner.autocommit or asks_for_autocommit(node)))]
        kind = connection_of(owner)
        if name == "begin":
            return [(state, Manager("open begin", Opened(kind), place=node.place))]
        if name in ("connect", "raw_connection"):
            state, identity = self.open(kind, node.place, state, call_text(node))
            return [(state, Session(identity))]
        return [(state, None)]

    def committing_each(self, driver: Path, state: State) -> State:
        """`connection.connection.set_isolation_level(0)`: the driver commits each statement itself."""
        value = self.lookup(driver, state)
        owner = value.owner if isinstance(value, Method) and value.name in _DRIVER else None
        if not isinstance(owner, Session) or owner.identity not in state.sessions:
            return state
        return state.set(owner.identity, state.sessions[owner.identity]._replace(handed=True))

    def joins_connection(self, arguments: Arguments) -> bool:
        """`Session(bind=connection)`, `AsyncConnection(engine, sync_connection=connection)`: on one that others end."""
        return any(
            [
                name == "sync_connection" or (name in (None, "bind") and self._is_connection(value, node))
                for name, value, node in arguments
            ]
        )

    def _is_connection(self, value: Value, node: ir.Expr) -> bool:
        if isinstance(value, Session):
            return True
        assigned = [
            statement.value
            for statement in self.project.table.bodies.statements(self.function.body)
            if isinstance(statement, ir.Assign) and statement.value is not None and node in statement.targets
        ]
        paths = [_path_behind(each) for each in (node, *assigned)]
        return any([path[-2:] == _OF_MIGRATION or path[-1:] in _CONNECTIONS for path in paths])

    def generator_method(self, owner: Generator, name: str, node: ir.Call, state: State, outcome: Outcome) -> Pairs:
        if name in ("__next__", "__anext__", "send", "asend"):
            return [self.next_of(owner, node, state)]
        yielded = self.project.statics.results.yielded(owner.reference)
        if (
            name in ops.SESSION_METHODS
            and isinstance(yielded, (Borrowed, Registry))
            and name not in ("close", "aclose")
        ):
            self.event(result.GENERATOR_USED, node.place, (), call_text(node), None, owner.reference)
        return [(state, None)]

    def next_of(self, generator: Generator | Manager, node: ir.Call, state: State) -> tuple[State, Value]:
        """`next(get_db())`: the session comes out, and the generator is gone unless someone keeps it."""
        assert generator.reference is not None
        value = self.project.statics.results.yielded(generator.reference)
        inline = generator.place != ir.NOWHERE and ir.within(generator.place, node.place)
        if isinstance(generator, Manager):
            self.event(result.MANAGER_ITERATED, node.place, (), call_text(node), None, generator.reference)
        elif isinstance(value, (Borrowed, Registry)) and inline:
            opened = (f"@{node.place[0]}:{node.place[1]}",) if isinstance(value, Borrowed) else ()
            self.event(result.NEXT, node.place, opened, call_text(node), None, generator.reference)
        if isinstance(value, Borrowed):
            name = f"{generator.reference.function.name}()"
            state, identity = self.open(value.type, node.place, state, name, result.ITERATED)
            session = state.sessions[identity]
            return state.set(identity, session._replace(owned=False)), Session(identity)
        return state, value

    def note_temporary(self, node: ir.Attribute, session: Session, state: State, purpose: str) -> None:
        """`Session().query(...)`: nobody can close that session any more."""
        info = self.flow.sessions[session.identity]
        place = call_place(node)
        if info.origin == result.LOCAL and info.place == place and node.name not in _KEEPING:
            self.event(result.UNNAMED, place, session.identity, info.name, state.sessions[session.identity])


def _path_behind(node: ir.Expr) -> Path:
    """The name of what is called or asked; `await conn.execution_options()` is `conn`."""
    while isinstance(node, ir.Await):
        node = node.value
    path = path_of(uncalled(node))
    return path[:-1] if path[-1:] == ("execution_options",) else path


def _innermost(identity: Path) -> Path:
    """The variable that stands for a savepoint which the session itself ends, as SQLAlchemy 1 does it."""
    return ("<savepoint>", *identity)


def _emptied(identity: Path, state: State) -> State:
    """`session.expunge_all()` before anything was flushed: nothing is left to be written."""
    session = state.sessions[identity]
    if session.transaction not in (NONE, ENTRY):
        return state
    return state.set(identity, session._replace(dirty=False, pending=False).mark(wrote=None))
