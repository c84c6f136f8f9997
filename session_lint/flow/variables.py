"""Names and variables: what they hold, and who is responsible for the sessions in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from session_lint import ir
from session_lint.findings import Confidence
from session_lint.flow import result
from session_lint.flow.objects import Objects
from session_lint.flow.result import SessionInfo
from session_lint.flow.state import (
    OPEN,
    Pairs,
    SessionState,
    State,
)
from session_lint.flow.values import (
    STATEMENT,
    Answer,
    Borrowed,
    Closure,
    ConnectionOf,
    Const,
    Coroutine,
    Decorated,
    Engine,
    Extension,
    Factory,
    Generator,
    Instance,
    Method,
    ModelQuery,
    Opened,
    Path,
    Query,
    Registry,
    Session,
    SessionType,
    Transaction,
    Value,
    contents,
    sessions_in,
)
from session_lint.ir_queries import (
    me_of,
    path_of,
    place_of,
)
from session_lint.project import shapes
from session_lint.project.decorators import decorated_name
from session_lint.project.entry_points import is_route
from session_lint.project.keywords import keyword_of
from session_lint.project.modules import ClassRef, External, FunctionRef, VariableRef
from session_lint.project.outside import KEEPERS
from session_lint.project.parking import key_of, shown

if TYPE_CHECKING:
    from session_lint.project.link import Project

_IN_REQUEST = tuple([f"{name}." for name in KEEPERS])
_LASTING = frozenset(("app", "application"))
"""What lives as long as the process is the business of `project/kept.py`."""


def _called(path: Path) -> str:
    """A path in the words of the code; of `get()` its last part is "()", of `x = get()` it is "="."""
    return ".".join([part for part in path if part != "="]).replace(".()", "()")


class Variables(Objects):
    """Looks names up, binds them, and knows who is responsible for the sessions that they hold."""

    def __init__(self, project: Project, reference: FunctionRef, depth: int) -> None:
        super().__init__(project, reference, depth)
        self.outer_names: set[str] = set()
        self.local_names: set[str] = {parameter.name for parameter in self.function.parameters}
        self.local_names.update(project.table.bodies.bound(self.function.body))
        for statement in project.table.bodies.statements(self.function.body):
            if isinstance(statement, ir.Scope):
                self.outer_names.update(statement.names)
        self.local_names -= self.outer_names
        self._free_names: dict[Path, Value] = {}
        self._captures: dict[int, frozenset[tuple[Path, str]]] = {}

    # ---------------------------------------------------------------------------------------------- lookup

    def lookup(self, path: Path, state: State) -> Value:
        """What a dotted path holds; may need `materialise` to become a tracked session."""
        variables = state.variables
        for length in range(len(path), 0, -1):
            if path[:length] in variables:
                value = variables[path[:length]]
                for index in range(length, len(path)):
                    value = self.attribute(value, path[index], path[: index + 1])
                return value
        if path[0] in self.local_names:
            return None
        if path not in self._free_names:
            self._free_names[path] = self._free(path)
        return self._free_names[path]

    def _free(self, path: Path) -> Value:
        """A name from around the function: an enclosing function's, or the module's."""
        statics = self.project.statics
        enclosing = self.project.enclosing(self.flow.reference)
        if enclosing is not None and len(path) == 1 and path[0] == decorated_name(self.project, self.flow.reference):
            return Decorated(path[0])
        while enclosing is not None:
            local = self.project.locals(enclosing)
            if path[0] in local and local[path[0]] is not None:
                value = local[path[0]]
                for attribute in path[1:]:
                    value = statics.attribute(value, attribute)
                return Borrowed(value.type) if isinstance(value, Opened) else value
            enclosing = self.project.enclosing(enclosing)
        return statics.name(self.module, path)

    def origin_of(self, path: Path) -> str:
        """Where a session comes from that this function reaches without having been given it."""
        if len(path) > 1:
            return result.ATTRIBUTE
        enclosing = self.project.enclosing(self.flow.reference)
        while enclosing is not None:
            if self.project.locals(enclosing).get(path[0]) is not None:
                return result.CAPTURED
            enclosing = self.project.enclosing(enclosing)
        return result.SHARED

    def attribute(self, value: Value, name: str, path: Path) -> Value:
        if value is None:
            return None
        if isinstance(value, (Session, Transaction, Query, ConnectionOf, Registry, Factory, Engine, Generator, Answer)):
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
            identity = self.shortest(path) or (f"@{place[0]}:{place[1]}",)
            if identity not in state.sessions:
                info = SessionInfo(identity, _called(identity), origin, value.type, place)
                state = self.track(self._with_provider(info), SessionState(), state)
            return state, Session(identity)
        if isinstance(value, Registry):
            identity = ("~", *value.identity)
            if identity not in state.sessions:
                name = ".".join(path) or "session"
                origin = result.CURRENT if value.is_current else result.AMBIENT
                name = f"{name}()" if value.is_current and path[-1:] == ("get",) else name
                info = SessionInfo(identity, name, origin, value.type, place, None, value.framework)
                state = self.track(info, SessionState(handed=value.commits == STATEMENT), state)
            return state, Session(identity)
        if isinstance(value, ModelQuery):
            state, session = self.materialise(value.registry, state, value.registry.identity[-2:], place, origin)
            return state, Query(session.identity, True, value.model) if isinstance(session, Session) else None
        return state, value

    def _with_provider(self, info: SessionInfo) -> SessionInfo:
        """With the dependency behind `service.session`, if that is what has made the service."""
        if info.origin != result.ATTRIBUTE or len(info.identity) < 2:
            return info
        provider = self.project.dependencies.session_behind(self.flow.reference, info.identity[0])
        return info if provider is None else info._replace(origin=result.INJECTED, provider=provider)

    def shortest(self, path: Path) -> Path:
        """`self.users.db` is `self.db`, if that is what the object has made `self.users` of."""
        owner = self.own_class(path[0]) if len(path) > 2 else None
        return (path[0], *self.project.aliases.shortest(owner, path[1:])) if owner is not None else path

    def own_class(self, name: str) -> ClassRef | None:
        """The class that the function is a method of, if that is what it calls its object."""
        reference: FunctionRef | None = self.flow.reference
        while reference is not None and not reference.function.owner:
            reference = self.project.enclosing(reference)
        definition = reference.module.classes.get(reference.function.owner or "") if reference is not None else None
        if reference is None or definition is None or name != me_of(reference.function):
            return None
        return ClassRef(reference.module, definition)

    def kept_transaction(self, path: Path, state: State) -> tuple[State, Value]:
        """`self.transaction`, if that is what `self.connection.begin()` has given."""
        owner = self.own_class(path[0]) if len(path) == 2 else None
        begun = self.project.aliases.begun(owner, path[1]) if owner is not None else None
        if begun is None:
            return state, None
        whose = (path[0], begun[0])
        value = self.lookup(whose, state)
        if isinstance(value, Borrowed):
            state, value = self.materialise(value, state, whose, place_of(self.statement), result.ATTRIBUTE)
        return state, Transaction(value.identity, begun[1]) if isinstance(value, Session) else None

    def _shared(self, symbol: VariableRef, value: Opened, state: State, place: ir.Place) -> tuple[State, Value]:
        identity = ("~", symbol.module.name, symbol.name)
        if identity not in state.sessions:
            info = SessionInfo(identity, symbol.name, result.SHARED, value.type, place)
            state = self.track(info, SessionState(handed=value.type.commits == STATEMENT), state)
        return state, Session(identity)

    # ---------------------------------------------------------------------------------------------- shapes

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
        profile = self.project.profiles.of_attribute(self.flow.reference, path)
        if profile is not None:
            info = SessionInfo(path, ".".join(path), result.AMBIENT, kind, place, None, profile.name)
            if path not in state.sessions:
                state = self.track(info, SessionState(), state)
            return state.bind(path, Session(path)), Session(path)
        return self.materialise(Borrowed(kind), state, path, place, result.ATTRIBUTE)

    def shaped(self, target: ir.Expr, node: ir.Expr | None, state: State) -> Pairs:
        """`x = something_unknown()`: a session, if what is done with x leaves no other choice."""
        call = node.value if isinstance(node, ir.Await) else node
        if not isinstance(target, ir.Name) or len(target.path) != 1:
            return [(state, None)]
        keyword = keyword_of(call, self.packed)
        is_stored = isinstance(call, ir.Subscript) and bool(key_of(call)) and self._is_parameter(call.base)
        if not keyword and not isinstance(call, ir.Call) and not is_stored:
            return [(state, None)]
        statics = self.project.statics
        seen = statics.usage(self.flow.reference).get(target.path)
        kind = shapes.recognise(target.path[0], seen, statics.uses_sqlalchemy(self.module))
        if kind is None or seen is None:
            return [(state, None)]
        if keyword:
            return self._given_by_keyword(keyword, kind, call, state)
        place = place_of(self.statement)
        if isinstance(call, ir.Call):
            name, place = (path_of(call.function) or (key_of(call.function),))[-1], call.place
            if shapes.makes_sessions(name) and statics.uses_sqlalchemy(self.module):
                state, identity = self.open(kind, place, state, target.path[0])
                return [(state, Session(identity))]
        elif not seen.methods & shapes.ONLY_DATABASES:
            return [(state, None)]
        unsure = SessionType(kind.role, kind.is_async, Confidence.LIKELY)
        return [self.materialise(Borrowed(unsure), state, (target.path[0], "="), place, result.ATTRIBUTE)]

    def _is_parameter(self, node: ir.Expr) -> bool:
        names = [parameter.name for parameter in self.function.parameters]
        return isinstance(node, ir.Name) and node.path[0] in names

    def _given_by_keyword(self, keyword: str, kind: SessionType, node: ir.Expr | None, state: State) -> Pairs:
        """What the caller has given by keyword: a session, or nothing."""
        identity: Path = (keyword,)
        info = SessionInfo(identity, keyword, result.PARAMETER, kind, self.function.place)
        given = state if identity in state.sessions else self.track(info, SessionState(), state)
        pairs: Pairs = [(given, Session(identity))]
        return pairs if isinstance(node, ir.Subscript) else [*pairs, (state, Const(None))]

    # --------------------------------------------------------------------------------------------- binding

    def name_session(self, value: Value, target: ir.Expr | None) -> None:
        """A session is called in messages what the code calls it, rather than what opened it."""
        if isinstance(value, Session) and isinstance(target, ir.Name):
            info = self.flow.sessions[value.identity]
            if info.origin == result.LOCAL and info.name.endswith(")"):
                self.flow.sessions[value.identity] = info._replace(name=".".join(target.path))

    def rebind(self, path: Path, value: Value, state: State, node: ir.Stmt | None) -> State:
        """Give a local variable a value; an open session that loses its only name is lost."""
        self.name_session(value, ir.Name(path))
        old = state.variables.get(path)
        if isinstance(old, Session) and old != value and old.identity in state.sessions:
            session = state.sessions[old.identity]
            others = [known for known, held in state.variables.items() if known != path and old in contents(held)]
            if session.owned and not others and session.transaction in (OPEN, "failed") and not session.handed:
                self.event(result.OVERWRITTEN, place_of(node), old.identity, path[-1], session)
        return state.bind(path, value)

    def hand_over(self, value: Value, state: State) -> State:
        """Whoever gets the value is responsible for the sessions in it."""
        for item in sessions_in(value):
            session = state.sessions.get(item.identity)
            if session is not None:
                state = state.set(item.identity, session._replace(owned=False, handed=True))
        return state

    def store(self, value: Value, target: ir.Expr, state: State, node: ir.Stmt) -> State:
        """Put a value into an object. Whoever has the object is responsible for the sessions in it."""
        if isinstance(value, Session) and value.identity in state.sessions and self._is_anothers(target):
            session, info = state.sessions[value.identity], self.flow.sessions[value.identity]
            if session.owned and info.origin == result.LOCAL:
                self.event(result.PARKED, node.place, value.identity, shown(target), session, key_of(target))
            usage = self.project.statics.usage(self.flow.reference).get(path_of(target))
            if usage is not None and usage.methods & {"close", "aclose"}:
                return state  # and closed through it, by this function itself
        return self.hand_over(value, state)

    def _is_anothers(self, target: ir.Expr) -> bool:
        """`request.state.db`, `context["db"]`, `g.db`: an object that the function was given, or that of a request."""
        base = target.base if isinstance(target, ir.Subscript) else target
        path = path_of(base)
        given = [item.name for item in self.function.parameters if item.kind not in ("*", "**")]
        if not path or not key_of(target) or not _LASTING.isdisjoint(path):
            return False
        is_given = path[0] in given and path[0] != me_of(self.function)
        return is_given or path[0] == "g" or self.dotted(path).startswith(_IN_REQUEST)

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
            found = shapes.usage(self.project.table.bodies, [definition.body])
            self._captures[key] = frozenset([(path, method) for path, seen in found.items() for method in seen.methods])
        return self._captures[key]

    def not_awaited(self, value: Coroutine, state: State) -> None:
        identity = value.touches or ()
        self.event(result.NOT_AWAITED, value.place, identity, value.label, state.sessions.get(identity))

    def note_returned(self, value: Value, state: State) -> None:
        """`return save(user, session)` in a route."""
        if isinstance(value, Coroutine) and self.is_answer(value.touches or ()):
            self.not_awaited(value, state)

    def is_answer(self, identity: Path) -> bool:
        """Whether a framework awaits the function, and not what that returns: its answer, which touches a session."""
        info = self.flow.sessions.get(identity)
        is_injected = info is not None and info.origin == result.INJECTED
        return self.function.is_async and (is_injected or is_route(self.function))

    # ---------------------------------------------------------------------------------------------- classes

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
