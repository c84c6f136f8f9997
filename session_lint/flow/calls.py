"""Calls: operations on sessions, functions of the project by their contracts, and everything else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from session_lint import ir
from session_lint.findings import Confidence
from session_lint.flow import errors, result
from session_lint.flow import operations as ops
from session_lint.flow.contracts import Contract, compose
from session_lint.flow.effects import Effects
from session_lint.flow.errors import Error
from session_lint.flow.outcome import Outcome
from session_lint.flow.result import SessionInfo
from session_lint.flow.state import BROKEN, CLOSED, ENTRY, NONE, OPEN, SUSPECT, Mark, SessionState, State, States
from session_lint.flow.values import (
    ASYNC_CONNECTION,
    CONNECTION,
    Borrowed,
    ClassValue,
    Closure,
    Coroutine,
    Engine,
    ExternalValue,
    Factory,
    Function,
    Generator,
    Instance,
    Items,
    Manager,
    Method,
    Opened,
    Path,
    Query,
    Registry,
    Session,
    SessionClass,
    SessionType,
    Transaction,
    Value,
)
from session_lint.project import shapes
from session_lint.project import sqlalchemy_names as names
from session_lint.project.modules import ClassRef, FunctionRef

if TYPE_CHECKING:

    Pairs = list[tuple[State, Value]]

Arguments = tuple[tuple["str | None", Value, ir.Expr], ...]

_NEVER_RETURN = {
    "sys.exit": "SystemExit",
    "os._exit": "SystemExit",
    "exit": "SystemExit",
    "quit": "SystemExit",
    "flask.abort": "werkzeug.exceptions.HTTPException",
    "flask_restful.abort": "werkzeug.exceptions.HTTPException",
    "quart.abort": "werkzeug.exceptions.HTTPException",
    "werkzeug.exceptions.abort": "werkzeug.exceptions.HTTPException",
    "bottle.abort": "HTTPError",
    "pytest.fail": "Failed",
    "pytest.skip": "Skipped",
}
_STORING = frozenset(
    "append add put put_nowait insert extend setdefault register push enter_context callback send".split()
)
_FACTORY_NAME = re.compile(
    r"^_*(session_?local|async_?session_?local|session_?maker|session_?factory|async_session(_maker|_factory)?|"
    r"(create|make|new|open)_(\w+_)?session|Session|AsyncSession|db_session_factory|_session_factory|_session_maker)$",
    re.IGNORECASE,
)
_KEEPING = ("begin", "begin_nested", "close", "__enter__", "__aenter__", "execution_options", "no_autoflush")
"""What may be asked of a session that has no name yet: it gets one, or another rule speaks of it."""

_CONSUMING = ("list", "len", "sorted", "set", "tuple", "dict", "sum", "max", "min", "enumerate", "iter", "next", "bool")
_MAX_DEPTH = 3


class Calls(Effects):
    """Applies calls to states."""

    def evaluate(
        self, node: ir.Expr | None, state: State, outcome: Outcome, purpose: str = "", calm: bool = False
    ) -> Pairs:
        raise NotImplementedError

    def lookup(self, path: Path, state: State) -> Value:
        raise NotImplementedError

    def attribute(self, value: Value, name: str, path: Path) -> Value:
        raise NotImplementedError

    def materialise(self, value: Value, state: State, path: Path, place: ir.Place, origin: str) -> tuple[State, Value]:
        raise NotImplementedError

    def hand_over(self, value: Value, state: State) -> State:
        raise NotImplementedError

    def enter_value(
        self, value: Value, state: State, place: ir.Place, name: str, outcome: Outcome
    ) -> tuple[State, Value]:
        raise NotImplementedError

    def not_awaited(self, value: Coroutine, state: State) -> None:
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------ the call

    def call(self, node: ir.Call, state: State, outcome: Outcome, purpose: str, calm: bool) -> Pairs:
        pairs: Pairs = []
        for after, callee in self._callee(node.function, state, outcome, purpose):
            for ready, arguments in self._arguments(node, after, outcome, calm):
                pairs += self._apply(callee, node, arguments, ready, outcome, purpose, calm)
        return distinct(pairs)

    def _callee(self, node: ir.Expr, state: State, outcome: Outcome, purpose: str) -> Pairs:
        if isinstance(node, ir.Name):
            if len(node.path) == 1:
                return [(state, self.lookup(node.path, state))]
            owner = self.lookup(node.path[:-1], state)
            if owner is None and node.path not in state.variables:
                state, owner = self.shaped_attribute(node.path[:-1], state)
                if owner is None:
                    return [(state, self.lookup(node.path, state))]
            if isinstance(owner, Coroutine):
                self.not_awaited(owner, state)
                return [(state, None)]
            if isinstance(owner, (Borrowed, Opened, Registry)) and not (
                isinstance(owner, Registry) and node.path[-1] == "configure"
            ):
                origin = result.ATTRIBUTE if len(node.path) > 2 else result.SHARED
                place = self.statement.place if self.statement is not None else ir.NOWHERE
                state, owner = self.materialise(owner, state, node.path[:-1], place, origin)
            if node.path in state.variables:
                return [(state, state.variables[node.path])]
            return [(state, self.attribute(owner, node.path[-1], node.path))]
        if isinstance(node, ir.Attribute):
            pairs: Pairs = []
            for after, base in self.evaluate(node.base, state, outcome, "attribute"):
                if isinstance(base, Coroutine):
                    self.not_awaited(base, after)
                    base = None
                if isinstance(base, Registry):
                    after, base = self.materialise(base, after, (), _place(node), result.AMBIENT)
                if isinstance(base, Session) and isinstance(node.base, ir.Call) and after.sessions[base.identity].owned:
                    self._temporary(node, base, after, purpose)
                pairs.append((after, self.attribute(base, node.name, ())))
            return pairs
        return self.evaluate(node, state, outcome, "called")

    def _temporary(self, node: ir.Attribute, session: Session, state: State, purpose: str) -> None:
        """`Session().query(...)`: nobody can close that session any more."""
        info = self.flow.sessions[session.identity]
        place = _place(node)
        if info.origin == result.LOCAL and info.place == place and node.name not in _KEEPING:
            self.event(result.UNNAMED, place, session.identity, info.name, state.sessions[session.identity])

    def _arguments(self, node: ir.Call, state: State, outcome: Outcome, calm: bool) -> list[tuple[State, Arguments]]:
        pairs: list[tuple[State, Arguments]] = [(state, ())]
        for argument in node.arguments:
            pairs = [
                (after, (*known, (argument.name, value, argument.value)))
                for before, known in pairs
                for after, value in self.evaluate(argument.value, before, outcome, "item", calm)
            ]
            if len(pairs) > 1:
                unique = {
                    (after.key, tuple([value for _, value, _ in known])): (after, known) for after, known in pairs
                }
                pairs = list(unique.values())[: States.LIMIT]
        return pairs

    def _apply(
        self,
        callee: Value,
        node: ir.Call,
        arguments: Arguments,
        state: State,
        outcome: Outcome,
        purpose: str,
        calm: bool,
    ) -> Pairs:
        if isinstance(callee, Method):
            return self._method(callee, node, arguments, state, outcome, purpose)
        if isinstance(callee, (SessionClass, Factory)):
            name = self.label(node)
            state, identity = self.open(callee.type, node.place, state, name)
            if _joins_connection(node, arguments):
                # Its transaction is that of the connection: it commits nothing, and whoever began ends it.
                state = self.hand_over(Session(identity), state)
            return [(state, Session(identity))]
        if isinstance(callee, Registry):
            path = node.function.path if isinstance(node.function, ir.Name) else ()
            return [self.materialise(callee, state, path, node.place, result.AMBIENT)]
        if isinstance(callee, Function):
            state = self._lend_captured(arguments, state)
            return self._function(callee, node, arguments, state, outcome, purpose)
        if isinstance(callee, Closure):
            return self._closure(callee, node, arguments, state, outcome, purpose)
        if isinstance(callee, ClassValue):
            return [(state, self._construct(callee.reference, arguments))]
        return self._external(callee, node, arguments, state, outcome, purpose, calm)

    def label(self, node: ir.Call) -> str:
        """The call in the words of the code, without its arguments."""
        return f"{words(node.function)}()"

    # ------------------------------------------------------------------------------------ session methods

    def _method(
        self, callee: Method, node: ir.Call, arguments: Arguments, state: State, outcome: Outcome, purpose: str
    ) -> Pairs:
        owner, name = callee
        if isinstance(owner, Session):
            return self._session_method(owner, name, node, arguments, state, outcome, purpose)
        if isinstance(owner, Transaction):
            return self._transaction_method(owner, name, node, state, outcome)
        if isinstance(owner, Query):
            return self._query_method(owner, name, node, state, outcome)
        if isinstance(owner, Engine):
            return self._engine_method(owner, name, node, state, outcome)
        if isinstance(owner, Factory):
            if name == "begin":
                return [(state, Manager("open begin", Opened(owner.type), place=node.place))]
            return [(state, None)]
        if isinstance(owner, Generator):
            return self._generator_method(owner, name, node, state, outcome)
        if isinstance(owner, Manager) and owner.kind == "stack" and name in ("enter_context", "enter_async_context"):
            value = arguments[0][1] if arguments else None
            state, bound = self.enter_value(value, state, node.place, self.label(node), outcome)
            return [(self.hand_over(bound, state), bound)]
        for _, value, _ in arguments:
            state = self.hand_over(value, state)
        return [(state, None)]

    def _session_method(
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
        text = self.label(node)
        kind = ops.SESSION_METHODS.get(name, ops.NEUTRAL)
        if info.type.is_async and name in ops.COROUTINES and purpose in ("dropped", "attribute"):
            return [(state, Coroutine(None, text, node.place, identity))]
        if kind == ops.EXECUTE:
            statement = node.arguments[0].value if node.arguments else None
            kind = ops.WRITE if statement is not None and self._writes(statement) else ops.READ
        if kind == ops.QUERY:
            return [(state, Query(identity))]
        if kind in (ops.BEGIN, ops.SAVEPOINT) and (purpose == "with" or (name == "begin" and purpose == "item")):
            return [(state, Transaction(identity, kind == ops.SAVEPOINT))]
        if name in ("__enter__", "__aenter__"):
            return [(state, owner)]
        if name == "execution_options" and info.type.role == "connection":
            if any([argument.value == ir.Constant("AUTOCOMMIT") for argument in node.arguments]):
                session = state.sessions[identity]
                state = state.set(identity, session._replace(handed=True))
            return [(state, owner)]
        if name in ("__exit__", "__aexit__"):
            kind = ops.CLOSE
        if name in ops.MAY_FIND_NOTHING:
            outcome.raises.add(state, Error("sqlalchemy.exc.NoResultFound", node.place, text))
        after = self.operate(state, identity, kind, node.place, text, outcome)
        if name == "run_sync":
            after = after.set(identity, after.sessions[identity]._replace(handed=True))
        if kind in (ops.BEGIN, ops.SAVEPOINT):
            return [(after, Transaction(identity, kind == ops.SAVEPOINT))]
        if name == "connection":
            return [(after, None)]
        if info.type.is_async and name in ops.COROUTINES and purpose == "assigned":
            return [(after, Coroutine(None, text, node.place, identity))]
        return [(after, None)]

    def _writes(self, statement: ir.Expr) -> bool:
        """Whether a statement that is executed changes rows."""
        if isinstance(statement, ir.Constant):
            first = str(statement.value).split(" ", 1)[0].lower()
            return first in ("insert", "update", "delete", "truncate", "merge", "create", "drop", "alter")
        if isinstance(statement, ir.Call):
            said = words(statement.function).split(".")
            if said[-1] in ("text", "TextClause") and statement.arguments:
                return self._writes(statement.arguments[0].value)
            if said[0] in self.writing_names() or any([word in names.WRITING_STATEMENTS for word in said]):
                return True
            base = statement.function
            while isinstance(base, (ir.Attribute, ir.Call)):
                base = base.base if isinstance(base, ir.Attribute) else base.function
                if isinstance(base, ir.Name) and base.path[-1] in names.WRITING_STATEMENTS:
                    return True
            return isinstance(base, ir.Name) and self._writes(base)
        if isinstance(statement, ir.Name) and len(statement.path) == 1:
            return statement.path[0] in self.writing_names()
        return False

    def writing_names(self) -> frozenset[str]:
        """Local variables that hold an INSERT, UPDATE or DELETE."""
        if self._writing_names is None:
            self._writing_names = frozenset()
            found = set()
            for statement in ir.statements(self.function.body):
                if isinstance(statement, ir.Assign) and statement.value is not None:
                    for target in statement.targets:
                        if isinstance(target, ir.Name) and isinstance(statement.value, ir.Call):
                            if target.path[0] not in words(statement.value.function).split(".") and self._writes(
                                statement.value
                            ):
                                found.add(target.path[0])
            self._writing_names = frozenset(found)
        return self._writing_names

    _writing_names: frozenset[str] | None = None

    def _transaction_method(
        self, owner: Transaction, name: str, node: ir.Call, state: State, outcome: Outcome
    ) -> Pairs:
        session = state.sessions.get(owner.identity)
        if session is None:
            return [(state, None)]
        if owner.is_nested:
            if name == "rollback":
                restored = session._replace(transaction=OPEN) if session.transaction in BROKEN else session
                return [(state.set(owner.identity, restored), None)]
            if name == "commit":
                return [(self.operate(state, owner.identity, ops.FLUSH, node.place, self.label(node), outcome), None)]
            return [(state, None)]
        kind = {"commit": ops.COMMIT, "rollback": ops.ROLLBACK, "close": ops.ROLLBACK}.get(name)
        if kind is None:
            return [(state, None)]
        return [(self.operate(state, owner.identity, kind, node.place, self.label(node), outcome), None)]

    def _query_method(self, owner: Query, name: str, node: ir.Call, state: State, outcome: Outcome) -> Pairs:
        if name not in ops.QUERY_READS and name not in ops.QUERY_WRITES:
            return [(state, owner)]
        kind = ops.READ if name in ops.QUERY_READS else ops.WRITE
        text = self.label(node)
        after = self.operate(state, owner.identity, kind, node.place, text, outcome)
        if name in ops.MAY_FIND_NOTHING:
            outcome.raises.add(after, Error("sqlalchemy.exc.NoResultFound", node.place, text))
        return [(after, None)]

    def _engine_method(self, owner: Engine, name: str, node: ir.Call, state: State, outcome: Outcome) -> Pairs:
        kind = ASYNC_CONNECTION if owner.is_async else CONNECTION
        if name == "begin":
            return [(state, Manager("open begin", Opened(kind), place=node.place))]
        if name in ("connect", "raw_connection"):
            state, identity = self.open(kind, node.place, state, self.label(node))
            return [(state, Session(identity))]
        return [(state, None)]

    def _generator_method(self, owner: Generator, name: str, node: ir.Call, state: State, outcome: Outcome) -> Pairs:
        if name in ("__next__", "__anext__", "send", "asend"):
            return [self.next_of(owner, node, state)]
        yielded = self.project.statics.yielded(owner.reference)
        if (
            name in ops.SESSION_METHODS
            and isinstance(yielded, (Borrowed, Registry))
            and name not in ("close", "aclose")
        ):
            self.event(result.GENERATOR_USED, node.place, (), self.label(node), None, owner.reference)
        return [(state, None)]

    def next_of(self, generator: Generator | Manager, node: ir.Call, state: State) -> tuple[State, Value]:
        """`next(get_db())`: the session comes out, and the generator is gone unless someone keeps it."""
        assert generator.reference is not None
        value = self.project.statics.yielded(generator.reference)
        inline = generator.place != ir.NOWHERE and _inside(generator.place, node.place)
        if isinstance(generator, Manager):
            self.event(result.MANAGER_ITERATED, node.place, (), self.label(node), None, generator.reference)
        elif isinstance(value, (Borrowed, Registry)) and inline:
            self.event(result.NEXT, node.place, (), self.label(node), None, generator.reference)
        if isinstance(value, Borrowed):
            name = f"{generator.reference.function.name}()"
            state, identity = self.open(value.type, node.place, state, name, result.ITERATED)
            session = state.sessions[identity]
            return state.set(identity, session._replace(owned=False)), Session(identity)
        return state, value

    # --------------------------------------------------------------------------------- project's functions

    def _function(
        self, callee: Function, node: ir.Call, arguments: Arguments, state: State, outcome: Outcome, purpose: str
    ) -> Pairs:
        reference = callee.reference
        function = reference.function
        statics = self.project.statics
        bindings = self._bind(callee, arguments)
        if function.is_generator:
            static = statics.returned(reference)
            if isinstance(static, Manager):
                return [(state, static._replace(value=callee.receiver, place=node.place, bindings=bindings))]
            if statics.is_manager(reference):
                return [(state, Manager("provider", callee.receiver, reference, (), node.place, bindings))]
            return [(state, Generator(reference, node.place))]
        label = self.label(node)
        touched = [value.identity for _, value in bindings if isinstance(value, Session)]
        if touched:
            self.flow.calls.append(result.Handing(reference, node.place, tuple(touched)))
        if function.is_async and purpose in ("dropped", "attribute"):
            identity = touched[0] if touched else None
            if identity is None and isinstance(callee.receiver, Instance):
                identity = () if self.project.holds_session(callee.receiver.reference) else None
            return [(state, Coroutine(None, label, node.place, identity) if identity is not None else None)]
        contract = self.project.contract(reference)
        if contract is None:
            return self._unknown(node, arguments, state, outcome, label, False)
        self.cancellation_known = function.is_async
        given: Path | None = None
        if contract.returned is not None:
            root = contract.returned.identity
            state, given = self._root(root, contract, dict(bindings), callee.receiver, state, node.place)
        unknown = self._unknown_to(contract, reference, bindings)
        for value in unknown:
            if isinstance(value, Session):
                state = self._lend(value, node, label, False, state, outcome)
        returned = self.apply_contract(contract, dict(bindings), callee.receiver, node.place, label, state, outcome)
        for value in unknown:
            if not isinstance(value, Session):
                returned = [self._lend_indirectly(value, node, label, after) for after in returned]
        value = self._result(callee, bindings)
        if contract.returned is not None and given is not None and given in state.sessions:
            value = contract.returned._replace(identity=given)
        pairs: Pairs = []
        for after in returned:
            if isinstance(value, Opened):
                after, identity = self.open(value.type, node.place, after, label)
                pairs.append((after, Session(identity)))
            elif isinstance(value, Borrowed):
                path = (*_path(node.function), "()")
                pairs.append(self.materialise(value, after, path, node.place, result.ATTRIBUTE))
            elif isinstance(value, Registry):
                pairs.append(self.materialise(value, after, (label,), node.place, result.AMBIENT))
            elif function.is_async and purpose == "assigned" and touched:
                pairs.append((after, Coroutine(value, label, node.place, touched[0])))
            else:
                pairs.append((after, value))
        return pairs

    def _result(self, callee: Function, bindings: tuple[tuple[str, Value], ...]) -> Value:
        value = self.project.statics.returned(callee.reference)
        held = [given for _, given in bindings if _carries(given)]
        if isinstance(value, Instance) and held and not value.fields and self.project.holds_session(value.reference):
            # `get_repositories(session)`: the object that comes back works with the session that went in.
            return value._replace(fields=tuple([("?", session) for given in held for session in _direct(given)]))
        return value

    def _unknown_to(
        self, contract: Contract, reference: FunctionRef, bindings: tuple[tuple[str, Value], ...]
    ) -> list[Value]:
        """The arguments that are or hold a session without the callee knowing it: it may use them in any way."""
        unknown: list[Value] = []
        parameters = {parameter.name: parameter for parameter in reference.function.parameters}
        for name, value in bindings:
            if not _carries(value) or any([path[0] == name for path in contract.known]):
                continue
            if isinstance(value, Instance):
                parameter = parameters.get(name)
                if parameter is not None and self.project.parameter(reference, parameter)[0] is not None:
                    continue
            unknown.append(value)
        return unknown

    def _lend_indirectly(self, value: Value, node: ir.Call, label: str, state: State) -> State:
        """The callee gets an object that works with the session, and may use it if all goes well."""
        mark = Mark(node.place, f"{label} may use it here")
        for owner in _direct(value):
            if owner.identity not in state.sessions:
                continue
            session = state.sessions[owner.identity]
            used = OPEN if session.transaction in (ENTRY, NONE) else session.transaction
            lent = session._replace(transaction=used, touched=True, handed=True)
            state = state.set(owner.identity, lent.mark(used=session.witness.used or mark))
        return state

    def _bind(self, callee: Function, arguments: Arguments) -> tuple[tuple[str, Value], ...]:
        """Which parameter gets which value."""
        parameters = list(callee.reference.function.parameters)
        owner = callee.reference.function.owner
        if owner and parameters and not _has_decorator(callee.reference.function, "staticmethod"):
            if callee.receiver is not None or _has_decorator(callee.reference.function, "classmethod"):
                parameters = parameters[1:]
        bound: dict[str, Value] = {}
        position = 0
        for name, value, _ in arguments:
            if name is None:
                while position < len(parameters) and parameters[position].kind == "keyword":
                    position += 1
                if position < len(parameters) and parameters[position].kind == "positional":
                    bound[parameters[position].name] = value
                    position += 1
            elif name not in ("*", "**"):
                bound[name] = value
        return tuple(bound.items())

    def apply_contract(
        self,
        contract: Contract,
        bindings: dict[str, Value],
        receiver: Value,
        place: ir.Place,
        label: str,
        state: State,
        outcome: Outcome,
    ) -> list[State]:
        """The states after a call that returns; its failures go to the outcome."""
        identities: dict[Path, Path] = {}
        for root in contract.roots:
            state, identity = self._root(root, contract, bindings, receiver, state, place)
            if identity is not None and identity in state.sessions:
                identities[root] = identity
        for root in contract.first_uses:
            if root in identities:
                identity = identities[root]
                session = state.sessions[identity]
                checked = self._check_use(session, self.flow.sessions[identity], ops.READ, place, label, state, outcome)
                if not session.touched:
                    self.flow.first_uses.add(identity)
                state = state.set(identity, checked)
        states = []
        always = {
            root
            for root in contract.roots
            if all([dict(way.sessions).get(root, SessionState()).commits for way in contract.ways if way.error is None])
        }
        for way in contract.ways:
            after = state
            for root, effect in way.sessions:
                if root in identities:
                    identity = identities[root]
                    after = after.set(identity, compose(after.sessions[identity], effect, place, label))
                    if effect.commits:
                        self.event(
                            result.COMMITTED,
                            place,
                            identity,
                            label,
                            after.sessions[identity],
                            "callee" if root in always else "callee, perhaps",
                        )
                    elif effect.dirty:
                        self.event(result.WROTE, place, identity, label, after.sessions[identity], "callee")
            if way.error is None:
                states.append(after)
            else:
                outcome.raises.add(after, Error(way.error, place, label))
        unique = {after.key: after for after in states}
        return list(unique.values())

    def _root(
        self, root: Path, contract: Contract, bindings: dict[str, Value], receiver: Value, state: State, place: ir.Place
    ) -> tuple[State, Path | None]:
        """The caller's session behind a callee's path."""
        if root[0] == "~":
            info = contract.infos[root]
            if root not in state.sessions:
                state = self.track(info._replace(place=place), SessionState(), state)
            return state, root
        if root[0] == contract.me:
            value = receiver
        elif root[0] in bindings:
            value = bindings[root[0]]
        else:
            return state, None
        for index, name in enumerate(root[1:]):
            path = value.path if isinstance(value, Instance) else ()
            value = self.attribute(value, name, (*path, name))
            if isinstance(value, Borrowed) and index == len(root) - 2:
                if not path:
                    return state, None
                state, value = self.materialise(value, state, (*path, name), place, result.ATTRIBUTE)
        if isinstance(value, Registry):
            state, value = self.materialise(value, state, root, place, result.AMBIENT)
        return state, value.identity if isinstance(value, Session) else None

    def _closure(
        self, callee: Closure, node: ir.Call, arguments: Arguments, state: State, outcome: Outcome, purpose: str
    ) -> Pairs:
        """A nested function is run in place: it sees our variables."""
        function = callee.function
        if function.is_generator or self.depth >= _MAX_DEPTH or (function.is_async and purpose == "dropped"):
            return self._unknown(node, arguments, state, outcome, self.label(node), False)
        for after, value in self.project.inline(
            self, function, dict(self._bind_plain(function, arguments)), state, outcome
        ):
            return [(after, value)]
        return []

    def _bind_plain(self, function: ir.Function, arguments: Arguments) -> list[tuple[str, Value]]:
        positional = [parameter.name for parameter in function.parameters if parameter.kind == "positional"]
        bound = list(zip(positional, [value for name, value, _ in arguments if name is None]))
        return bound + [(name, value) for name, value, _ in arguments if name not in (None, "*", "**")]  # type: ignore[misc]

    def _construct(self, reference: ClassRef, arguments: Arguments) -> Value:
        """An object of a class of the project, with the sessions that it was given."""
        fields = []
        if any([_carries(value) for _, value, _ in arguments]):
            stored = self.project.constructor(reference)
            position = 0
            for name, value, _ in arguments:
                if name is None:
                    name = stored.positional[position] if position < len(stored.positional) else None
                    position += 1
                if name is not None and _carries(value):
                    fields += [(field, value) for field in stored.fields.get(name, (name,))]
        return Instance(reference, (), tuple(sorted(fields)) if fields else ())

    # ------------------------------------------------------------------------------------- everything else

    def _external(
        self,
        callee: Value,
        node: ir.Call,
        arguments: Arguments,
        state: State,
        outcome: Outcome,
        purpose: str,
        calm: bool,
    ) -> Pairs:
        name = callee.name if isinstance(callee, ExternalValue) else ".".join(_path(node.function))
        first = arguments[0][1] if arguments else None
        last = name.rpartition(".")[2]
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
        if name in _NEVER_RETURN:
            outcome.raises.add(state, Error(_NEVER_RETURN[name], node.place, self.label(node)))
            return []
        if callee is None and last in ("rollback", "close"):
            state = self._finish_inner(_path(node.function), last, node, state, outcome)
        if name in _CONSUMING and isinstance(first, Coroutine):
            self.not_awaited(first, state)
        value = None
        if isinstance(callee, ExternalValue):
            value = self.project.statics.call(self.module, callee, node)
            if isinstance(value, Opened):
                state, identity = self.open(value.type, node.place, state, self.label(node))
                return [(state, Session(identity))]
            if value is not None:
                return [(state, value)]
        calm = calm or self._is_calm(node.function, last)
        pairs = self._unknown(node, arguments, state, outcome, self.label(node), calm)
        if last in ("scalar_one", "one", "get_one"):
            outcome.raises.add(state, Error("sqlalchemy.exc.NoResultFound", node.place, self.label(node)))
        return pairs

    def exception_types(self, node: ir.Expr | None) -> tuple[str, ...]:
        raise NotImplementedError

    def _finish_inner(self, path: Path, method: str, node: ir.Call, state: State, outcome: Outcome) -> State:
        """`dao.rollback()` where `dao.db` is the session: an object is asked to finish what it holds."""
        kind = ops.ROLLBACK if method == "rollback" else ops.CLOSE
        for identity in list(state.sessions):
            if len(path) > 1 and len(identity) >= len(path) and identity[: len(path) - 1] == path[:-1]:
                state = self.operate(state, identity, kind, node.place, self.label(node), outcome)
        return state

    def _is_calm(self, function: ir.Expr, last: str) -> bool:
        if isinstance(function, ir.Name):
            if len(function.path) == 1:
                return last in ops.CALM_FUNCTIONS or last[:1].isupper()
            return bool(ops.CALM_OBJECTS.intersection(function.path[:-1])) or last in ops.CALM_METHODS
        return last in ops.CALM_METHODS

    def _unknown(
        self, node: ir.Call, arguments: Arguments, state: State, outcome: Outcome, label: str, calm: bool
    ) -> Pairs:
        """A call that can't be seen: it may raise, and do anything to the sessions that it is given."""
        last = label.removesuffix("()").rpartition(".")[2]
        state = self._lend_captured(arguments, state)
        given = [value for _, value, _ in arguments if _carries(value)]
        if last in ops.CALM_FUNCTIONS or ops.CALM_OBJECTS.intersection(_path(node.function)[:-1]):
            given = []  # `isinstance(session, ...)`, `logger.info("%s", session)`
        receiver = self._receiver(node.function, state)
        if not given and receiver is not None:
            # A method that can't be seen, of an object that works with our session.
            for session in _direct(receiver):
                state = self._lend(session, node, label, False, state, outcome)
            return [(state, None)]
        if not given:
            if not calm:
                outcome.raises.add(state, Error(errors.ANY, node.place, label))
            return [(state, None)]
        constructs = last[:1].isupper()
        stores = last in _STORING or constructs
        closes = any([word in label.lower() for word in ops.CLOSING_WORDS])
        for value in given:
            if stores or not _direct(value):
                state = self.hand_over(value, state)
                continue
            for session in _direct(value):
                state = self._lend(session, node, label, closes, state, outcome)
        if not calm and not constructs:
            outcome.raises.add(state, Error(errors.ANY, node.place, label))
        return [(state, None)]

    def _receiver(self, function: ir.Expr, state: State) -> Value:
        """The object with a session in it that a method is called on."""
        if isinstance(function, ir.Name) and len(function.path) > 1:
            for length in range(len(function.path) - 1, 0, -1):
                value = state.variables.get(function.path[:length])
                if isinstance(value, Instance) and _carries(value):
                    return value
        return None

    def _lend_captured(self, arguments: Arguments, state: State) -> State:
        """`run(lambda: work(session))`: whoever calls the function uses the session, and may commit it."""
        for _, value, _ in arguments:
            if isinstance(value, Closure):
                # A generator expression or lambda may run later, or never.
                for name in names_in(value.function):
                    held = state.variables.get((name,))
                    for session in _direct(held):
                        if session.identity not in state.sessions:
                            continue
                        known = state.sessions[session.identity]
                        used = OPEN if known.transaction in (ENTRY, NONE) else known.transaction
                        state = state.set(session.identity, known._replace(transaction=used, touched=True, handed=True))
        return state

    def _lend(self, owner: Session, node: ir.Call, label: str, closes: bool, state: State, outcome: Outcome) -> State:
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
        session = self._check_use(session, info, ops.READ, node.place, label, state, outcome)
        mark = Mark(node.place, f"{label} uses {info.name} here")
        after = session._replace(
            transaction=OPEN if session.transaction in (ENTRY, NONE, CLOSED) else session.transaction,
            touched=True,
            handed=True,
        ).mark(used=session.witness.used or mark)
        broken = after._replace(transaction=SUSPECT).mark(
            failed=Mark(node.place, f"{label} may fail here"), swallowed=None
        )
        outcome.raises.add(state.set(identity, broken), Error(errors.DATABASE, node.place, label))
        outcome.raises.add(state.set(identity, broken), Error(errors.INTEGRITY, node.place, label))
        return state.set(identity, after)

    def shaped_attribute(self, path: Path, state: State) -> tuple[State, Value]:
        """`self.request.db`: a session that some framework has put there, if its use leaves no other choice."""
        if len(path) < 2 or not shapes.named_like_session(path[-1]):
            return state, None
        statics = self.project.statics
        seen = statics.usage(self.flow.reference).get(path)
        kind = shapes.recognise(path[-1], seen, statics.uses_sqlalchemy(self.module))
        if kind is None or seen is None or not seen.methods & shapes.ONLY_DATABASES:
            return state, None
        place = self.statement.place if self.statement is not None else ir.NOWHERE
        if path[-2:] == ("request", "db") and self.project.imports("zope.sqlalchemy", "pyramid_tm", "pyramid"):
            info = SessionInfo(path, ".".join(path), result.AMBIENT, kind, place, None, "pyramid")
            if path not in state.sessions:
                state = self.track(info, SessionState(), state)
            return state.bind(path, Session(path)), Session(path)
        return self.materialise(Borrowed(kind), state, path, place, result.ATTRIBUTE)

    def shaped(self, target: ir.Expr, node: ir.Expr | None, state: State) -> tuple[State, Value]:
        """`x = something_unknown()`: a session, if what is done with x leaves no other choice."""
        call = node.value if isinstance(node, ir.Await) else node
        if not isinstance(target, ir.Name) or len(target.path) != 1 or not isinstance(call, ir.Call):
            return state, None
        statics = self.project.statics
        seen = statics.usage(self.flow.reference).get(target.path)
        kind = shapes.recognise(target.path[0], seen, statics.uses_sqlalchemy(self.module))
        if kind is None:
            return state, None
        callee = _path(call.function)
        if callee and _FACTORY_NAME.match(callee[-1]) and statics.uses_sqlalchemy(self.module):
            state, identity = self.open(kind, call.place, state, target.path[0])
            return state, Session(identity)
        unsure = SessionType(kind.role, kind.is_async, Confidence.LIKELY)
        return self.materialise(Borrowed(unsure), state, (target.path[0], "="), call.place, result.ATTRIBUTE)


def distinct(pairs: Pairs) -> Pairs:
    """Each pair of state and value once, and not more than can be followed."""
    if len(pairs) < 2:
        return pairs
    return list({(state.key, value): (state, value) for state, value in pairs}.values())[: States.LIMIT]


def names_in(function: ir.Function) -> set[str]:
    """The names that a nested function mentions."""
    found: set[str] = set()
    for statement in ir.statements(function.body):
        if isinstance(statement, ir.Define) and isinstance(statement.definition, ir.Function):
            found |= names_in(statement.definition)
            continue
        for part in ir.expressions(statement):
            if isinstance(part, ir.Name):
                found.add(part.path[0])
            elif isinstance(part, ir.Lambda):
                found |= names_in(part.function)
    return found - {parameter.name for parameter in function.parameters}


def _joins_connection(node: ir.Call, arguments: Arguments) -> bool:
    """`Session(bind=connection)`: a session on somebody else's transaction."""
    for argument, (name, value, _) in zip(node.arguments, arguments):
        if name in (None, "bind"):
            if isinstance(value, Session):
                return True
            path = _path(argument.value.function if isinstance(argument.value, ir.Call) else argument.value)
            if path and path[-1] in ("connection", "conn", "_connection", "_conn"):
                return True
    return False


def _carries(value: Value) -> bool:
    """Whether a value is or holds a session."""
    if isinstance(value, (Session, Transaction, Query)):
        return True
    if isinstance(value, Items):
        return any([_carries(item) for item in value.items])
    if isinstance(value, Instance):
        return any([_carries(item) for _, item in value.fields])
    return isinstance(value, Method) and isinstance(value.owner, Session)


def _direct(value: Value) -> list[Session]:
    if isinstance(value, Session):
        return [value]
    if isinstance(value, (Query, Transaction)):
        return [Session(value.identity)]
    if isinstance(value, Instance):
        return [session for _, item in value.fields for session in _direct(item)]
    if isinstance(value, Items):
        return [session for item in value.items for session in _direct(item)]
    return []


def words(node: ir.Expr) -> str:
    if isinstance(node, ir.Name):
        return ".".join(node.path)
    if isinstance(node, ir.Attribute):
        base = node.base
        while isinstance(base, ir.Await):
            base = base.value
        return (
            f"{words(base)}.{node.name}" if isinstance(base, (ir.Name, ir.Attribute, ir.Call)) else f"(...).{node.name}"
        )
    if isinstance(node, ir.Call):
        return f"{words(node.function)}()"
    return "(...)"


def _path(node: ir.Expr) -> Path:
    if isinstance(node, ir.Name):
        return node.path
    return (node.name,) if isinstance(node, ir.Attribute) else ()


def _place(node: ir.Expr) -> ir.Place:
    for part in ir.expressions(node):
        if isinstance(part, ir.Call):
            return part.place
    return ir.NOWHERE


def _inside(inner: ir.Place, outer: ir.Place) -> bool:
    return (inner[0], inner[1]) >= (outer[0], outer[1]) and (inner[2], inner[3]) <= (outer[2], outer[3])


def _has_decorator(function: ir.Function, name: str) -> bool:
    return any([isinstance(item, ir.Name) and item.path[-1] == name for item in function.decorators])
