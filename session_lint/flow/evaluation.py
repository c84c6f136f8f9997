"""Expressions: what they do to the state, and what they are worth."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint import ir
from session_lint.findings import Confidence
from session_lint.flow import errors, result
from session_lint.flow import operations as ops
from session_lint.flow.calls import distinct, words
from session_lint.flow.errors import Error
from session_lint.flow.managers import Managers
from session_lint.flow.outcome import Outcome
from session_lint.flow.result import SessionInfo
from session_lint.flow.state import ENTRY, NONE, OPEN, Mark, SessionState, State, States
from session_lint.flow.values import (
    Borrowed,
    ClassValue,
    Closure,
    Const,
    Coroutine,
    Dependency,
    Engine,
    Extension,
    ExternalValue,
    Factory,
    Generator,
    Instance,
    Items,
    Manager,
    Method,
    ModuleValue,
    Opened,
    Path,
    Query,
    Registry,
    Session,
    SessionType,
    Transaction,
    Truth,
    Value,
)
from session_lint.project import shapes
from session_lint.project.modules import ClassRef, External, FunctionRef, VariableRef
from session_lint.project.statics import decorator_name

Pairs = list[tuple[State, Value]]


class Evaluation(Managers):
    """Evaluates the expressions of one function."""

    def __init__(self, project: object, reference: FunctionRef, depth: int) -> None:
        super().__init__(project, reference, depth)  # type: ignore[arg-type]
        self.outer_names: set[str] = set()
        self.local_names: set[str] = {parameter.name for parameter in self.function.parameters}
        for statement in ir.statements(self.function.body):
            if isinstance(statement, ir.Scope):
                self.outer_names.update(statement.names)
            else:
                self.local_names.update(_bound_names(statement))
        self.local_names -= self.outer_names
        self.entry_begun = 0
        self._captures: dict[int, frozenset[tuple[Path, str]]] = {}

    # ---------------------------------------------------------------------------------------------- entry

    def entry_states(self) -> list[State]:
        """What the parameters hold when the function is entered."""
        statics = self.project.statics
        state = State({}, {})
        optional: Path | None = None
        usage = statics.usage(self.flow.reference)
        for index, parameter in enumerate(self.function.parameters):
            path = (parameter.name,)
            if index == 0 and self.function.owner and self.function.owner in self.module.classes:
                if not any([decorator_name(decorator) == "staticmethod" for decorator in self.function.decorators]):
                    owner = ClassRef(self.module, self.module.classes[self.function.owner])
                    is_class = any(
                        [decorator_name(decorator) == "classmethod" for decorator in self.function.decorators]
                    )
                    state = state.bind(path, ClassValue(owner) if is_class else Instance(owner, path, ()))
                    continue
            value, dependency = self.project.parameter(self.flow.reference, parameter)
            if value is None and parameter.kind in ("positional", "keyword") and not _is_foreign_type(parameter):
                kind = shapes.recognise(parameter.name, usage.get(path), statics.uses_sqlalchemy(self.module))
                value = Borrowed(kind) if kind else self.project.passed_on(self.flow.reference, parameter)
            if isinstance(value, Borrowed):
                state = self._parameter(path, value, dependency, state)
                if parameter.default == ir.Constant(None) and not self.project.is_injected(
                    self.flow.reference, parameter
                ):
                    optional = path
            elif value is not None:
                state = state.bind(path, value if not isinstance(value, Instance) else value._replace(path=path))
        if optional is None:
            return [state]
        return [state, state.bind(optional, Const(None))]

    def _parameter(self, path: Path, value: Borrowed, dependency: Dependency | None, state: State) -> State:
        origin, provider, begun, framework = result.PARAMETER, None, self.entry_begun, ""
        if dependency is not None:
            origin = result.INJECTED
            provider = self.project.provider_of(dependency.provider)
            if provider is not None:
                begun = self.project.provider(provider).begun
        info = SessionInfo(path, path[-1], origin, value.type, self.function.place, provider, framework)
        entry = SessionState(begun=begun)
        return self.track(info, entry, state).bind(path, Session(path))

    # ---------------------------------------------------------------------------------------------- lookup

    def lookup(self, path: Path, state: State) -> Value:
        """What a dotted path holds; may need `materialise` to become a tracked session."""
        for length in range(len(path), 0, -1):
            if path[:length] in state.variables:
                value = state.variables[path[:length]]
                for index in range(length, len(path)):
                    value = self.attribute(value, path[index], path[: index + 1])
                return value
        if path[0] in self.local_names:
            return None
        return self._free(path)

    def _free(self, path: Path) -> Value:
        """A name from around the function: an enclosing function's, or the module's."""
        statics = self.project.statics
        enclosing = self.project.enclosing(self.flow.reference)
        while enclosing is not None:
            local = self.project.locals(enclosing)
            if path[0] in local:
                value = local[path[0]]
                for attribute in path[1:]:
                    value = statics.attribute(value, attribute)
                return Borrowed(value.type) if isinstance(value, Opened) else value
            enclosing = self.project.enclosing(enclosing)
        return statics.name(self.module, path)

    def attribute(self, value: Value, name: str, path: Path) -> Value:
        if isinstance(value, (Session, Transaction, Query, Registry, Factory, Engine, Generator)):
            if isinstance(value, Session) and name == "sync_session":
                return value
            return Method(value, name)
        if isinstance(value, Extension) and name != "session":
            return self.project.statics.attribute(value, name)
        found = self.project.statics.attribute(value, name)
        if isinstance(found, Instance) and isinstance(value, Instance) and value.path:
            return found._replace(path=path)
        return found

    def materialise(self, value: Value, state: State, path: Path, place: ir.Place, origin: str) -> tuple[State, Value]:
        """Turn a static value into a session of this state."""
        if isinstance(value, Opened):
            name = path[-1] if path else "a session"
            symbol = self.project.table.resolve(self.module, path) if path and path[0] not in self.local_names else None
            if isinstance(symbol, VariableRef):
                return self._shared(symbol, value, state, place)
            state, identity = self.open(value.type, place, state, name)
            return state, Session(identity)
        if isinstance(value, Borrowed):
            identity = path or (f"@{place[0]}:{place[1]}",)
            if identity not in state.sessions:
                state = self.track(
                    SessionInfo(identity, ".".join(path), origin, value.type, place), SessionState(), state
                )
            return state, Session(identity)
        if isinstance(value, Registry):
            identity = ("~", *value.identity)
            if identity not in state.sessions:
                kind = SessionType("session", value.is_async, Confidence.CERTAIN)
                name = ".".join(path) or "session"
                info = SessionInfo(identity, name, result.AMBIENT, kind, place, None, value.framework)
                state = self.track(info, SessionState(), state)
            return state, Session(identity)
        return state, value

    def _shared(self, symbol: VariableRef, value: Opened, state: State, place: ir.Place) -> tuple[State, Value]:
        identity = ("~", symbol.module.name, symbol.name)
        if identity not in state.sessions:
            info = SessionInfo(identity, symbol.name, result.SHARED, value.type, place)
            state = self.track(info, SessionState(), state)
        return state, Session(identity)

    # ------------------------------------------------------------------------------------------- evaluating

    def evaluate(
        self, node: ir.Expr | None, state: State, outcome: Outcome, purpose: str = "", calm: bool = False
    ) -> Pairs:
        """Evaluate an expression: the states after it and its value in each.

        purpose: what becomes of the value ("dropped", "assigned", "returned", "awaited", "with", ...).
        calm: a failure of its calls is not worth a way out, as in `raise HTTPException(...)`.
        """
        if node is None or isinstance(node, ir.Constant):
            value = node.value if node is not None else None
            return [(state, Const(value) if value is None or value is True or value is False else None)]
        if isinstance(node, ir.Name):
            return [self._name(node, state)]
        if isinstance(node, ir.Call):
            return self.call(node, state, outcome, purpose, calm)
        if isinstance(node, ir.Await):
            return self._await(node, state, outcome)
        if isinstance(node, ir.Attribute):
            return self._attribute(node, state, outcome, purpose)
        if isinstance(node, (ir.Boolean, ir.Not, ir.Compare)):
            return self._condition(node, state, outcome)
        if isinstance(node, ir.Conditional):
            pairs: Pairs = []
            for after, verdict in self.test(node.test, state, outcome):
                if verdict is not False:
                    pairs += self.evaluate(node.then, after, outcome, purpose)
                if verdict is not True:
                    pairs += self.evaluate(node.other, after, outcome, purpose)
            return distinct(pairs)
        if isinstance(node, ir.Walrus):
            return [
                (self.rebind(node.target.path, value, after, self.statement), value)
                for after, value in self.evaluate(node.value, state, outcome, "assigned")
            ]
        if isinstance(node, ir.Yield):
            return self._yield(node, state, outcome)
        if isinstance(node, ir.Lambda):
            return [(self.define(node.function, state), Closure(node.function))]
        if isinstance(node, ir.Comprehension):
            return self._comprehension(node, state, outcome)
        if isinstance(node, ir.Collection):
            return self._sequence(node.items, state, outcome, keep=node.kind in ("tuple", "list"))
        if isinstance(node, ir.Subscript):
            pairs = self._sequence((node.base, *node.items), state, outcome)
            return [(after, None) for after, _ in pairs]
        return [(after, None) for after, _ in self._sequence(node.parts, state, outcome)]

    def _name(self, node: ir.Name, state: State) -> tuple[State, Value]:
        held = state.variables.get(node.path[:1])
        if len(node.path) > 1 and isinstance(held, Coroutine) and node.path[1] not in ("close", "send", "throw"):
            self.not_awaited(held, state)
        value = self.lookup(node.path, state)
        if isinstance(value, (Borrowed, Opened)):
            origin = result.ATTRIBUTE if len(node.path) > 1 else result.SHARED
            place = _place_of(self.statement)
            return self.materialise(value, state, node.path, place, origin)
        return state, value

    def _sequence(self, nodes: tuple[ir.Expr, ...], state: State, outcome: Outcome, keep: bool = False) -> Pairs:
        pairs: list[tuple[State, tuple[Value, ...]]] = [(state, ())]
        for node in nodes:
            pairs = [
                (after, (*values, value))
                for before, values in pairs
                for after, value in self.evaluate(node, before, outcome, "item")
            ]
            if len(pairs) > 1:
                pairs = list({(after.key, values): (after, values) for after, values in pairs}.values())[: States.LIMIT]
        return [
            (after, Items(values) if keep and any([v is not None for v in values]) else None) for after, values in pairs
        ]

    def _attribute(self, node: ir.Attribute, state: State, outcome: Outcome, purpose: str) -> Pairs:
        pairs: Pairs = []
        for after, base in self.evaluate(node.base, state, outcome, "attribute"):
            if isinstance(base, Coroutine):
                self.not_awaited(base, after)
                base = None
            if isinstance(base, Session) and node.name == "no_autoflush":
                pairs.append((after, Manager("null", base, place=_call_place(node))))
                continue
            pairs.append((after, self.attribute(base, node.name, ())))
        return pairs

    def _await(self, node: ir.Await, state: State, outcome: Outcome) -> Pairs:
        pairs: Pairs = []
        self.cancellation_known = False
        evaluated = self.evaluate(node.value, state, outcome, "awaited")
        known, self.cancellation_known = self.cancellation_known, False
        for after, value in evaluated:
            if not known and not isinstance(value, (Session, Transaction)):
                outcome.raises.add(after, Error(errors.CANCELLED, node.place, f"await {words(node.value)}"))
            pairs.append((after, value.value if isinstance(value, Coroutine) else value))
        return pairs

    def _yield(self, node: ir.Yield, state: State, outcome: Outcome) -> Pairs:
        pairs: Pairs = []
        for after, value in self.evaluate(node.value, state, outcome, "yielded"):
            if isinstance(value, Registry):
                after, value = self.materialise(value, after, (), node.place, result.AMBIENT)
            identities = [item.identity for item in _sessions_in(value)]
            for identity in identities:
                session = after.sessions[identity]
                self.event(result.YIELDED, node.place, identity, "yield", session, after.thrown)
                used = Mark(node.place, "whoever gets it uses it here")
                lent = session._replace(
                    transaction=OPEN if session.transaction in (NONE, OPEN, ENTRY) else session.transaction,
                    dirty=True,
                    touched=True,
                    handed=True,
                ).mark(used=used)
                after = after.set(identity, lent)
            if not identities:
                self.event(result.YIELDED, node.place, (), "yield", None, after.thrown)
            text = "the code that uses it" if identities else "the consumer"
            outcome.raises.add(after, Error(errors.ANY, node.place, text, by_yield=True))
            outcome.raises.add(after, Error(errors.ABANDONED, node.place, text, by_yield=True))
            if self.function.is_async:
                outcome.raises.add(after, Error(errors.CANCELLED, node.place, text, by_yield=True))
            pairs.append((after, None))
        return pairs

    def _comprehension(self, node: ir.Comprehension, state: State, outcome: Outcome) -> Pairs:
        states = [state]
        for generator in node.generators:
            following = []
            for before in states:
                for after, value in self.evaluate(generator.iterable, before, outcome, "iterated"):
                    following += list(self.iterate(value, after, self.statement, outcome))
            states = [after.bind(path, None) for after in following for path in _paths(generator.target)] or following
            for condition in generator.conditions:
                states = [after for before in states for after, _ in self.evaluate(condition, before, outcome)]
        if node.kind == "generator":
            return [(after, None) for after in states]
        final = [after for before in states for after, _ in self._sequence(node.elements, before, outcome)]
        return [(after, None) for after in final]

    # ------------------------------------------------------------------------------------------ conditions

    def _condition(self, node: ir.Expr, state: State, outcome: Outcome) -> Pairs:
        if isinstance(node, ir.Boolean):
            pairs: Pairs = []
            for after, value in self.evaluate(node.left, state, outcome):
                truth = _truth(value)
                decided = truth is not None and truth == (node.operator == "or")
                if decided or truth is None:
                    pairs.append((after, value))
                if not decided:
                    pairs += self.evaluate(node.right, after, outcome)
            return distinct(pairs)
        return [
            (after, Const(verdict) if verdict is not None else None)
            for after, verdict in self.test(node, state, outcome)
        ]

    def test(self, node: ir.Expr, state: State, outcome: Outcome) -> list[tuple[State, bool | None]]:
        """Evaluate a condition: the states after it and the verdict in each, None where it is open."""
        if isinstance(node, ir.Not):
            return [
                (after, None if verdict is None else not verdict)
                for after, verdict in self.test(node.value, state, outcome)
            ]
        if isinstance(node, ir.Boolean):
            return self._test_boolean(node, state, outcome)
        if isinstance(node, ir.Compare):
            return self._test_compare(node, state, outcome)
        pairs: list[tuple[State, bool | None]] = []
        for after, value in self.evaluate(node, state, outcome, "tested"):
            verdict = _truth(value)
            if verdict is None and value is None and isinstance(node, ir.Name) and self._asked_often(node.path):
                # The same question comes again: remember the answer, as in `if own: ... finally: if own: ...`.
                pairs += [(after.bind(node.path, Truth(True)), True), (after.bind(node.path, Truth(False)), False)]
            else:
                pairs.append((after, verdict))
        return pairs

    def _asked_often(self, path: Path) -> bool:
        """Whether a plain variable decides more than once, and is not set in between."""
        if self._questions is None:
            self._questions = {}
            for statement in ir.statements(self.function.body):
                test = statement.test if isinstance(statement, (ir.If, ir.While)) else None
                for part in ir.expressions(test) if test is not None else ():
                    if isinstance(part, ir.Name) and len(part.path) == 1:
                        self._questions[part.path] = self._questions.get(part.path, 0) + 1
        return self._questions.get(path, 0) > 1

    _questions: dict[Path, int] | None = None

    def _test_boolean(self, node: ir.Boolean, state: State, outcome: Outcome) -> list[tuple[State, bool | None]]:
        stop = node.operator == "or"
        result_: list[tuple[State, bool | None]] = []
        for after, verdict in self.test(node.left, state, outcome):
            if verdict is stop:
                result_.append((after, stop))
                continue
            for last, other in self.test(node.right, after, outcome):
                if verdict is None and other is not stop:
                    other = None
                result_.append((last, other))
            if verdict is None and _calls(node.right):
                result_.append((after, None))
        return list({(after.key, verdict): (after, verdict) for after, verdict in result_}.values())

    def _test_compare(self, node: ir.Compare, state: State, outcome: Outcome) -> list[tuple[State, bool | None]]:
        pairs: list[tuple[State, bool | None]] = []
        for middle, left in self.evaluate(node.left, state, outcome, "tested"):
            for after, right in self.evaluate(node.right, middle, outcome, "tested"):
                verdict = None
                if isinstance(right, Const) and left is not None:
                    if isinstance(left, Truth):
                        verdict = False if left.value and not right.value else None
                    elif isinstance(left, Const):
                        verdict = left.value is right.value
                    elif right.value is None:
                        verdict = False
                if verdict is not None and node.operator in ("is not", "!="):
                    verdict = not verdict
                pairs.append((after, verdict))
        return pairs

    # ------------------------------------------------------------------------------------------- variables

    def name_session(self, value: Value, target: ir.Expr | None) -> None:
        """A session is called in messages what the code calls it, rather than what opened it."""
        if isinstance(value, Session) and isinstance(target, ir.Name):
            info = self.flow.sessions[value.identity]
            if info.origin == result.LOCAL and info.name.endswith(")"):
                self.flow.sessions[value.identity] = info._replace(name=".".join(target.path))

    def _is_conditional(self, path: Path) -> bool:
        return False

    def rebind(self, path: Path, value: Value, state: State, node: ir.Stmt | None) -> State:
        """Give a local variable a value; an open session that loses its only name is lost."""
        self.name_session(value, ir.Name(path))
        old = state.variables.get(path)
        if isinstance(old, Session) and old != value and old.identity in state.sessions:
            session = state.sessions[old.identity]
            others = [known for known, held in state.variables.items() if known != path and old in _contents(held)]
            if (
                session.owned
                and not others
                and not self._is_conditional(path)
                and session.transaction in (OPEN, "failed")
                and not session.handed
            ):
                self.event(result.OVERWRITTEN, _place_of(node), old.identity, path[-1], session)
        return state.bind(path, value)

    def attribute_written(self, path: Path, holder: Value, state: State, node: ir.Stmt) -> State:
        """`thread.title = title`: if the object belongs to a session, that session has something to write."""
        if isinstance(holder, (Instance, Session, ClassValue, ModuleValue, ExternalValue)):
            return state
        return state

    def hand_over(self, value: Value, state: State) -> State:
        """Whoever gets the value is responsible for the sessions in it."""
        for item in _sessions_in(value):
            session = state.sessions.get(item.identity)
            if session is not None:
                state = state.set(item.identity, session._replace(owned=False, handed=True))
        return state

    def define(self, definition: ir.Function | ir.Class, state: State) -> State:
        """A nested function or class: what it captures and closes is not this function's to close any more."""
        if isinstance(definition, ir.Class):
            return state
        for path, method in self._captured(definition):
            value = state.variables.get(path)
            if isinstance(value, Session) and method in ("close", "remove", "aclose", "__exit__"):
                state = self.hand_over(value, state)
        if definition.name != "<lambda>":
            state = state.bind((definition.name,), Closure(definition))
        return state

    def _captured(self, definition: ir.Function) -> frozenset[tuple[Path, str]]:
        key = id(definition)
        if key not in self._captures:
            found = shapes.usage([definition.body])
            self._captures[key] = frozenset([(path, method) for path, seen in found.items() for method in seen.methods])
        return self._captures[key]

    def iterate(self, value: Value, state: State, node: ir.Stmt | None, outcome: Outcome) -> Iterator[State]:
        """`for x in value`."""
        if isinstance(value, Query):
            yield self.operate(state, value.identity, ops.READ, _place_of(node), "the query", outcome)
        else:
            yield state

    def not_awaited(self, value: Coroutine, state: State) -> None:
        identity = value.touches or ()
        self.event(result.NOT_AWAITED, value.place, identity, value.label, state.sessions.get(identity))

    def exception_types(self, node: ir.Expr | None) -> tuple[str, ...]:
        """The dotted names of the classes that a handler catches."""
        if node is None:
            return ("BaseException",)
        if isinstance(node, ir.Collection):
            return tuple([name for item in node.items for name in self.exception_types(item)])
        if isinstance(node, ir.Name):
            symbol = self.project.table.resolve(self.module, node.path)
            if isinstance(symbol, VariableRef):
                value = symbol.assignment.value
                if isinstance(value, ir.Collection):
                    return tuple([".".join(item.path) for item in value.items if isinstance(item, ir.Name)])
            return (self.dotted(node.path),)
        return ("?",)

    def dotted(self, path: Path) -> str:
        """The absolute name of a class, as far as it is known."""
        symbol = self.project.table.resolve(self.module, path)
        if isinstance(symbol, ClassRef):
            return f"{symbol.module.name}.{symbol.definition.qualname}"
        if isinstance(symbol, External):
            return symbol.name
        return ".".join(path)




def _truth(value: Value) -> bool | None:
    if isinstance(value, (Const, Truth)):
        return bool(value.value)
    if isinstance(value, (Session, Factory, Registry, Engine, Transaction)):
        return True
    return None


def _contents(value: Value) -> tuple[Value, ...]:
    if isinstance(value, Items):
        return value.items
    if isinstance(value, Instance):
        return tuple([held for _, held in value.fields])
    return (value,)


def _sessions_in(value: Value) -> list[Session]:
    """The sessions that a value is, holds or closes over."""
    if isinstance(value, Session):
        return [value]
    if isinstance(value, Items):
        return [session for item in value.items for session in _sessions_in(item)]
    if isinstance(value, Instance):
        return [session for _, item in value.fields for session in _sessions_in(item)]
    if isinstance(value, (Transaction, Query)):
        return [Session(value.identity)]
    if isinstance(value, (Manager, Coroutine)):
        return _sessions_in(value.value)
    if isinstance(value, Method) and value.name in ("close", "aclose", "remove"):
        return _sessions_in(value.owner)
    return []


def _bound_names(statement: ir.Stmt) -> Iterator[str]:
    targets: tuple[ir.Expr | None, ...] = ()
    if isinstance(statement, ir.Assign):
        targets = statement.targets
    elif isinstance(statement, ir.For):
        targets = (statement.target,)
    elif isinstance(statement, ir.With):
        targets = tuple([item.target for item in statement.items])
    elif isinstance(statement, ir.Define):
        yield statement.definition.name
    elif isinstance(statement, ir.Import):
        return
    for target in targets:
        for path in _paths(target):
            if len(path) == 1:
                yield path[0]
    for node in shapes.own_expressions(statement):
        if isinstance(node, ir.Walrus):
            yield node.target.path[0]


def _paths(target: ir.Expr | None) -> Iterator[Path]:
    if isinstance(target, ir.Name):
        yield target.path
    elif isinstance(target, ir.Collection):
        for item in target.items:
            yield from _paths(item)
    elif isinstance(target, ir.Opaque):
        for item in target.parts:
            yield from _paths(item)


def _calls(node: ir.Expr) -> bool:
    return any([isinstance(part, (ir.Call, ir.Await)) for part in ir.expressions(node)])


def _place_of(statement: ir.Stmt | None) -> ir.Place:
    return ir.NOWHERE if statement is None else statement.place  # type: ignore[no-any-return]


def _call_place(node: ir.Expr) -> ir.Place:
    for part in ir.expressions(node):
        if isinstance(part, ir.Call):
            return part.place
    return ir.NOWHERE


def _is_foreign_type(parameter: ir.Parameter) -> bool:
    """Whether the parameter is declared as something that can't be a session."""
    annotation = parameter.annotation
    while isinstance(annotation, ir.Subscript):
        annotation = annotation.items[0] if annotation.items else annotation.base
    if not isinstance(annotation, ir.Name):
        return False
    last = annotation.path[-1]
    return not last.lower().endswith(("session", "connection", "any", "object", "db"))
