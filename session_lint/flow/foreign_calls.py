"""Calls of what can't be seen: the standard library's, known packages', and everything else."""

from __future__ import annotations

import re

from session_lint import ir
from session_lint.flow import errors
from session_lint.flow import operations as ops
from session_lint.flow.calm import is_calm
from session_lint.flow.errors import Error
from session_lint.flow.objects import CHANGING
from session_lint.flow.outcome import Outcome
from session_lint.flow.session_calls import SessionCalls
from session_lint.flow.state import (
    CLOSED,
    ENTRY,
    NONE,
    OPEN,
    SUSPECT,
    Mark,
    Pairs,
    State,
)
from session_lint.flow.values import (
    JOINED,
    Arguments,
    Closure,
    Const,
    Coroutine,
    ExternalValue,
    Factory,
    Function,
    Generator,
    Instance,
    Manager,
    Opened,
    Path,
    Query,
    Registry,
    Session,
    Truth,
    Value,
    carries_session,
    direct_sessions,
)
from session_lint.ir_queries import (
    call_text,
    last_name,
    me_of,
    path_of,
    uncalled,
)
from session_lint.project import sqlalchemy_names as names
from session_lint.project.modules import ModuleRef
from session_lint.source import entry_words

_NEVER_RETURN = {
    "sys.exit": "SystemExit",
    "os._exit": "SystemExit",
    "exit": "SystemExit",
    "quit": "SystemExit",
    "bottle.abort": "HTTPError",
    "pytest.fail": "Failed",
    "pytest.skip": "Skipped",
}
_HTTP_EXCEPTION = "werkzeug.exceptions.HTTPException"
"""What `abort()` of Flask raises, and of whatever is built on it or like it."""
_RETRY = "celery.exceptions.Retry"
_MANAGERS = frozenset({"transaction", "tm", "manager"})
"""Under these names one has the transaction manager that zope.sqlalchemy registers all sessions with."""
_STORING = frozenset(
    "append appendleft add put put_nowait insert extend setdefault register push enter_context callback send".split()
)
_SETTING = (".set()", "setattr()")
_SETTER = re.compile(r"set_(\w+_)?(session|db|connection|conn)")
_MAKER = re.compile(r"(^|_)(factory|cls|klass|class)$")
"""`self.worker_factory(session)`, `repository_class(session)`: what they make keeps what it is given."""
_ASKING = ("inspect", "object_session", "async_object_session", "close_all_sessions", "make_url")
"""Functions of SQLAlchemy that do more than to build a statement."""


def _builds(name: str) -> bool:
    """`sqlalchemy.select`, and the methods of what it gives: statements and their parts, of which none can fail."""
    package, _, rest = name.partition(".")
    path = rest.partition("(")[0].split(".")
    # Not the methods of classes: `Inspector.from_engine()` asks the database.
    is_function = all([part[:1].islower() for part in path])
    return package in ("sqlalchemy", "sqlmodel") and is_function and path[-1] not in _ASKING


def _answers_with_error(callee: Value, node: ir.Call) -> bool:
    """`abort(...)` of a web framework, or `api.abort(404)`: unlike `transaction.abort()`, it never returns."""
    if last_name(node.function) != "abort":
        return False
    if isinstance(callee, ExternalValue) and callee.name.endswith(".abort") and "(" not in callee.name:
        return not callee.name.startswith("transaction.")
    status = node.arguments[0].value if node.arguments else None
    return isinstance(status, ir.Constant) and isinstance(status.value, int)


_ITERATING = frozenset("list tuple set frozenset sorted dict sum max min any all enumerate zip map filter".split())
_CONSUMING = ("list", "len", "sorted", "set", "tuple", "dict", "sum", "max", "min", "enumerate", "iter", "next", "bool")


class ForeignCalls(SessionCalls):
    """Applies calls of what the project does not define: they may raise, and use the sessions that they are lent."""

    def foreign_call(
        self,
        callee: Value,
        node: ir.Call,
        arguments: Arguments,
        state: State,
        outcome: Outcome,
        purpose: str,
        calm: bool,
    ) -> Pairs:
        name = callee.name if isinstance(callee, ExternalValue) else ".".join(path_of(node.function))
        first = arguments[0][1] if arguments else None
        last = name.rpartition(".")[2]
        if last in CHANGING:
            state = self.note_change(node, last, state)
        if name in ("contextlib.closing", "contextlib.aclosing"):
            return [(state, Manager("closing", first, place=node.place))]
        if name == "contextlib.suppress":
            types = tuple([kind for _, _, item in arguments for kind in self.exception_types(item)])
            return [(state, Manager("suppress", None, types=types, place=node.place))]
        if name == "contextlib.nullcontext":
            return [(state, Manager("null", first, place=node.place))]
        if name in ("contextlib.ExitStack", "contextlib.AsyncExitStack"):
            return [(state, Manager("stack", None, place=node.place))]
        if name in ("next", "anext") and isinstance(first, (Generator, Manager)) and first.reference is not None:
            return [self.next_of(first, node, state)]
        if name in names.CASTS and len(arguments) == 2 and (value := arguments[1][1]) is not None:
            return [(state, value)]
        if name == "super":
            me = self.lookup((me_of(self.function),), state)
            return [(state, me if isinstance(me, Session) else self.project.statics.parent(me))]
        kind = _NEVER_RETURN.get(name, _HTTP_EXCEPTION if _answers_with_error(callee, node) else "")
        kind = kind or (_RETRY if self._asks_for_another_try(node, state) else "")
        if kind:
            outcome.raises.add(state, Error(kind, node.place, call_text(node)))
            return []
        ends = last in ("rollback", "close") or (last == "remove" and not arguments)
        if ends and (callee is None or isinstance(callee, ExternalValue)):
            state = self._finish_inner(path_of(node.function), last, node, state, outcome)
        if last == "abort" and _MANAGERS.intersection(name.split(".")[-2:-1]) and self.project.is_committed_by_zope():
            for identity in list(state.sessions):
                state = self.operate(state, identity, ops.ROLLBACK, node.place, call_text(node), outcome)
            return [(state, None)]
        if name == "isinstance" and isinstance(first, Truth) and first.error and len(node.arguments) == 2:
            verdict = errors.caught(first.error, self.exception_types(node.arguments[1].value), self.project.lineage)
            return [(state, None if verdict == "maybe" else Const(verdict == "always"))]
        if name in _CONSUMING and isinstance(first, Coroutine):
            self.not_awaited(first, state)
        if name in _ITERATING and isinstance(first, Query):
            return [(self.operate(state, first.identity, ops.READ, node.place, call_text(node), outcome), None)]
        value = None
        if isinstance(callee, ExternalValue):
            value = self.project.statics.call(self.module, callee, node)
            if isinstance(value, Opened):
                state, identity = self.open(value.type, node.place, state, call_text(node))
                return [(state, Session(identity))]
            if isinstance(value, Factory) and self.joins_connection(arguments):
                value = Factory(value.type._replace(commits=JOINED))
            if isinstance(value, Registry):
                value = value._replace(identity=(self.module.name, f"@{node.place[0]}:{node.place[1]}"))
            if value is not None:
                return [(state, value)]
        if isinstance(callee, ExternalValue) and _builds(callee.name):
            if callee.name.startswith("sqlalchemy.event."):  # the session is not used, but listened to
                arguments = tuple([given for given in arguments if not isinstance(given[1], Session)])
            pairs = self.unknown_call(node, arguments, state, outcome, call_text(node), True)
            return [(after, ExternalValue(f"{callee.name}()")) for after, _ in pairs]
        if isinstance(callee, ExternalValue) and self.project.table.is_unread(callee.name):
            # A file that names no session: it asks the object for its results.
            arguments = tuple([given for given in arguments if not _is_done(given[1], state)])
        if purpose in ("assigned", "returned") and self._is_unread(callee, node):
            # With a session that is made for it alone it can do nothing but give it back: `checked(SessionLocal())`.
            for _, given, item in arguments:
                state = self.hand_over(given, state) if isinstance(item, ir.Call) else state
        asks_for_one = last in ("scalar_one", "one", "get_one")
        calm = calm or asks_for_one or is_calm(node)
        pairs = self.unknown_call(node, arguments, state, outcome, call_text(node), calm)
        if asks_for_one:
            outcome.raises.add(state, Error("sqlalchemy.exc.NoResultFound", node.place, call_text(node)))
        return pairs

    def _is_unread(self, callee: Value, node: ir.Call) -> bool:
        """Whether a function of the project is called which no word of sessions was found in."""
        if isinstance(callee, ExternalValue):
            return self.project.table.is_unread(callee.name)
        owner = path_of(node.function)[:-1]
        return callee is None and bool(owner) and isinstance(self.project.table.resolve(self.module, owner), ModuleRef)

    def _asks_for_another_try(self, node: ir.Call, state: State) -> bool:
        """`send.retry(exc=error)` of a Celery task, or `self.retry()` in one: it raises, so that the worker knows."""
        path = path_of(node.function)
        if len(path) != 2 or path[1] != "retry" or any([argument.name == "throw" for argument in node.arguments]):
            return False
        parameters = self.function.parameters
        owner = self.lookup(path[:1], state)
        task = owner.reference.function if isinstance(owner, Function) else self.function
        if task is self.function and not (parameters and parameters[0].name == path[0]) and path[0] != task.name:
            return False
        made = [uncalled(decorator) for decorator in task.decorators]
        return any([entry_words.is_job(path_of(decorator)) for decorator in made])

    def _finish_inner(self, path: Path, method: str, node: ir.Call, state: State, outcome: Outcome) -> State:
        """`dao.rollback()` where `dao.db` is the session: an object is asked to finish what it holds."""
        kind = ops.ROLLBACK if method == "rollback" else ops.CLOSE
        owner = path[:-1]
        given = self._given_by(owner, state) if owner else set()
        for identity in list(state.sessions):
            holds = (
                method != "remove" and bool(owner) and len(identity) > len(owner) and identity[: len(owner)] == owner
            )
            if holds or identity in given:
                state = self.operate(state, identity, kind, node.place, call_text(node), outcome)
        return state

    def _given_by(self, registry: Path, state: State) -> set[Path]:
        """`with Sessions() as session: ... Sessions.rollback()`: only a scoped_session can be called and asked."""
        given: set[Path] = set()
        for statement in self.project.table.bodies.statements(self.function.body):
            pairs: list[tuple[ir.Expr | None, ir.Expr | None]] = []
            if isinstance(statement, ir.With):
                pairs = [(item.target, item.value) for item in statement.items]
            elif isinstance(statement, ir.Assign):
                pairs = [(target, statement.value) for target in statement.targets]
            for target, value in pairs:
                session = state.variables.get(target.path) if isinstance(target, ir.Name) else None
                if isinstance(session, Session) and isinstance(value, ir.Call) and path_of(value.function) == registry:
                    given.add(session.identity)
        return given

    def unknown_call(
        self, node: ir.Call, arguments: Arguments, state: State, outcome: Outcome, label: str, calm: bool
    ) -> Pairs:
        """A call that can't be seen: it may raise, and do anything to the sessions that it is given."""
        last = label.removesuffix("()").rpartition(".")[2]
        state = self.lend_captured(arguments, state)
        given = [value for _, value, _ in arguments if carries_session(value)]
        constructs = last[:1].isupper() or _MAKER.search(last) is not None
        stores = constructs or _stores(label, arguments)
        is_calm = last in ops.CALM_FUNCTIONS and not stores
        if is_calm or ops.CALM_OBJECTS.intersection(path_of(node.function)[:-1]):
            given = []  # `isinstance(session, ...)`, `logger.info("%s", session)`
        receiver = self._receiver(node.function, state)
        if not given and receiver is not None:
            # A method that can't be seen, of an object that works with our session.
            for session in direct_sessions(receiver):
                state = self.lend(session, node, label, False, state, outcome)
            return [(state, None)]
        if not given:
            if not calm:
                outcome.raises.add(state, Error(errors.ANY, node.place, label))
            return [(state, None)]
        closes = any([word in label.lower() for word in ops.CLOSING_WORDS])
        for value in given:
            if stores or not direct_sessions(value):
                state = self.hand_over(value, state)
                continue
            keeps = not isinstance(value, Instance) or self._keeps(value)
            for session in direct_sessions(value):
                if (
                    keeps
                    or session.identity not in state.sessions
                    or state.sessions[session.identity].transaction != CLOSED
                ):
                    state = self.lend(session, node, label, closes, state, outcome)
        if not calm and not constructs:
            outcome.raises.add(state, Error(errors.ANY, node.place, label))
        return [(state, None)]

    def _keeps(self, value: Instance) -> bool:
        """Whether an object keeps the session that its constructor was given, which may be over by now."""
        kept = [name for given in self.project.constructors.of(value.reference).fields.values() for name in given]
        return self.project.holds_session(value.reference) or any([name in kept for name, _ in value.fields])

    def _receiver(self, function: ir.Expr, state: State) -> Value:
        """The object with a session in it that a method is called on."""
        if isinstance(function, ir.Name) and len(function.path) > 1:
            for length in range(len(function.path) - 1, 0, -1):
                value = state.variables.get(function.path[:length])
                if isinstance(value, Instance) and carries_session(value):
                    return value
        return None

    # --------------------------------------------------------------------------------------------- lending

    def lend_captured(self, arguments: Arguments, state: State) -> State:
        """`run(lambda: work(session))`: whoever calls the function uses the session, and may commit it."""
        for _, value, _ in arguments:
            if isinstance(value, Closure):
                # A generator expression or lambda may run later, or never.
                for name in self.project.table.bodies.names(value.function):
                    held = state.variables.get((name,))
                    for session in direct_sessions(held):
                        if session.identity not in state.sessions:
                            continue
                        known = state.sessions[session.identity]
                        used = OPEN if known.transaction in (ENTRY, NONE) else known.transaction
                        state = state.set(session.identity, known._replace(transaction=used, touched=True, handed=True))
        return state

    def lend(self, owner: Session, node: ir.Call, label: str, closes: bool, state: State, outcome: Outcome) -> State:
        """Whoever is called uses the session that it is given, may fail in it, and may finish it."""
        identity = owner.identity
        if identity not in state.sessions:
            return state
        session = state.sessions[identity]
        info = self.flow.sessions[identity]
        if closes:
            closed = self.operate(state, identity, ops.CLOSE, node.place, label, outcome)
            return closed.set(identity, closed.sessions[identity]._replace(handed=True))
        if not session.touched:
            self.flow.first_uses.add(identity)
        session = self.check_use(session, info, ops.READ, node.place, label, state, outcome)
        mark = Mark(node.place, f"{label} uses {info.name} here")
        after = session._replace(
            transaction=OPEN if session.transaction in (ENTRY, NONE, CLOSED) else session.transaction,
            touched=True,
            handed=True,
        ).mark(used=session.witness.used or mark)
        broken = after._replace(transaction=SUSPECT).failing(node.place, f"{label} may fail here")
        outcome.raises.add(state.set(identity, broken), Error(errors.DATABASE, node.place, label))
        outcome.raises.add(state.set(identity, broken), Error(errors.INTEGRITY, node.place, label))
        return state.set(identity, after)


def _stores(label: str, arguments: Arguments) -> bool:
    """Whether what is called keeps what it is given for somebody else, who closes it then."""
    if label.endswith(_SETTING):
        # `variable.set(session)` keeps it; `settings.set("name", value, session=session)` only works with it.
        return bool(arguments) and arguments[-1][0] is None and carries_session(arguments[-1][1])
    owner, _, name = label.removesuffix("()").rpartition(".")
    if owner and len(arguments) == 1 and _SETTER.fullmatch(name):
        return True  # `broker.set_session(session)`
    return name in _STORING


def _is_done(value: Value, state: State) -> bool:
    """Whether it is an object whose session is closed."""
    sessions = direct_sessions(value) if isinstance(value, Instance) else ()
    known = [state.sessions[session.identity] for session in sessions if session.identity in state.sessions]
    return bool(known) and all([session.transaction == CLOSED for session in known])
