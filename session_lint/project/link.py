"""The link stage: all modules of the project together, and what is known of each function.

Flows, contracts and providers are worked out when they are first asked for and kept. A function that is
reached again while it is being worked out (recursion) is judged as if nothing were known of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from session_lint import ir
from session_lint.findings import Confidence
from session_lint.flow.contracts import Contract, contract_of
from session_lint.flow.result import COMMITTED, INJECTED, PARAMETER, FunctionFlow, SessionInfo
from session_lint.flow.state import BROKEN, OPEN
from session_lint.flow.values import Borrowed, Dependency, Function, Instance, Path, Value
from session_lint.ir_queries import own_expressions
from session_lint.project import shapes
from session_lint.project.modules import ClassRef, External, FunctionRef, Module, SymbolTable
from session_lint.project.provider import UNSEEN, Provider, provider_of
from session_lint.project.sqlalchemy_names import weaker
from session_lint.project.statics import Statics
from session_lint.settings import Settings

if TYPE_CHECKING:
    pass

_MAX_CHAIN = 40
"""How many functions deep contracts are followed; Python's own stack is the limit behind it."""

_INJECTING = ("provide_session", "with_session", "transactional", "db_injector", "inject_session", "session_scope")


class Constructor(NamedTuple):
    """positional: parameter names of a class's `__init__`. fields: which attributes keep which parameter."""

    positional: tuple[str, ...]
    fields: dict[str, tuple[str, ...]]


class Project:
    """The linked project."""

    def __init__(self, modules: list[Module], settings: Settings) -> None:
        self.settings = settings
        self.table = SymbolTable(modules)
        self.statics = Statics(self.table, settings)
        self._flows: dict[int, FunctionFlow | None] = {}
        self._contracts: dict[int, Contract] = {}
        self._providers: dict[int, Provider] = {}
        self._locals: dict[int, dict[str, Value]] = {}
        self._constructors: dict[int, Constructor] = {}
        self._holders: dict[int, bool] = {}
        self._callers: dict[int, list[tuple[FunctionRef, Path]]] | None = None
        self._users: dict[int, list[tuple[FunctionRef, str]]] | None = None
        self._imports: dict[tuple[str, ...], bool] = {}
        self._begun: set[int] | None = None
        self._parts: dict[int, bool] = {}
        self._chain = 0
        self.failures: list[tuple[FunctionRef, str]] = []
        self.notes: list[str] = []

    def functions(self, module: Module) -> Iterator[FunctionRef]:
        for function in module.functions.values():
            yield FunctionRef(module, function)

    # ------------------------------------------------------------------------------------------ on demand

    def flow(self, reference: FunctionRef) -> FunctionFlow | None:
        """The function's flow; None while it is being worked out."""
        from session_lint.flow.interpreter import Interpreter

        key = id(reference.function)
        if key in self._flows:
            return self._flows[key]
        if self._chain >= _MAX_CHAIN:
            return None
        self._flows[key] = None
        self._chain += 1
        try:
            self._flows[key] = Interpreter(self, reference).run()
        except RecursionError:
            self.notes.append(
                f"{reference.module.path}: {reference.function.qualname} is nested too deeply to be judged"
            )
            self._flows[key] = FunctionFlow(reference, unresolved=True)
        except Exception as error:  # a bug of ours in one function must not cost the rest its findings
            self.failures.append((reference, f"{reference.function.qualname}: {type(error).__name__}: {error}"))
            self._flows[key] = FunctionFlow(reference, unresolved=True)
        finally:
            self._chain -= 1
            if self._flows[key] is None:
                del self._flows[key]
        return self._flows[key]

    def contract(self, reference: FunctionRef) -> Contract | None:
        """The function's contract; None if it is not known."""
        key = id(reference.function)
        if key not in self._contracts:
            flow = self.flow(reference)
            if flow is None or flow.unresolved:
                return None
            self._contracts[key] = contract_of(flow)
        return self._contracts[key]

    def provider(self, reference: FunctionRef) -> Provider:
        """What a session generator does at its end."""
        key = id(reference.function)
        if key not in self._providers:
            flow = self.flow(reference)
            if flow is None:
                return UNSEEN
            self._providers[key] = provider_of(flow)
        return self._providers[key]

    def provider_of(self, value: Value) -> FunctionRef | None:
        """The generator function behind `Depends(value)`."""
        if isinstance(value, Function) and value.reference.function.is_generator:
            return value.reference
        if isinstance(value, Instance):
            call = self.table.method(value.reference, "__call__")
            return call if call is not None and call.function.is_generator else None
        return None

    # -------------------------------------------------------------------------------------------- questions

    def parameter(self, reference: FunctionRef, parameter: ir.Parameter) -> tuple[Value, Dependency | None]:
        """What a parameter holds, by its type and its dependency."""
        module = reference.module
        value: Value = None
        dependency: Dependency | None = None
        if parameter.annotation is not None:
            value, dependency = self.statics.annotated(module, parameter.annotation)
        if parameter.default is not None:
            default = self.statics.expression(module, parameter.default)
            if isinstance(default, Dependency):
                dependency = default
        if dependency is not None and value is None:
            value = self._provided_value(dependency.provider)
        return value, dependency

    def passed_on(self, reference: FunctionRef, parameter: ir.Parameter) -> Value:
        """What an untyped parameter must be, because it is handed to a function that says what it takes."""
        if not shapes.named_like_session(parameter.name):
            return None
        for statement in ir.statements(reference.function.body):
            for node in own_expressions(statement):
                if isinstance(node, ir.Call):
                    for position, argument in enumerate(node.arguments):
                        if argument.value == ir.Name((parameter.name,)) and argument.name not in ("*", "**"):
                            value = self._taken(reference, node, argument.name, position)
                            if isinstance(value, Borrowed):
                                return Borrowed(weaker(value.type, Confidence.LIKELY))
        return None

    def _taken(self, reference: FunctionRef, node: ir.Call, name: str | None, position: int) -> Value:
        callee = self.statics.expression(reference.module, node.function, self.statics.locals(reference))
        if not isinstance(callee, Function):
            return None
        parameters = list(callee.reference.function.parameters)
        if callee.receiver is not None:
            parameters = parameters[1:]
        for index, taken in enumerate(parameters):
            if taken.name == name or (name is None and index == position):
                return self.parameter(callee.reference, taken)[0]
        return None

    def _provided_value(self, provider: Value) -> Value:
        if isinstance(provider, Function):
            if provider.reference.function.is_generator:
                return self.statics.yielded(provider.reference)
            returned = self.statics.returned(provider.reference)
            return Borrowed(returned.type) if hasattr(returned, "type") else returned  # type: ignore[union-attr]
        if isinstance(provider, Instance):
            call = self.table.method(provider.reference, "__call__")
            return self.statics.yielded(call) if call is not None and call.function.is_generator else None
        return None

    def callers(self, reference: FunctionRef) -> list[tuple[FunctionRef, Path]]:
        """The functions that call this one and pass it a session, and how they know that session."""
        if self._callers is None:
            self._callers = {}
            for flow in self.all_flows():
                for handing in flow.calls:
                    for identity in handing.identities:
                        self._callers.setdefault(id(handing.callee.function), []).append((flow.reference, identity))
        return self._callers.get(id(reference.function), [])

    def works_with(self, caller: FunctionRef, identity: Path) -> bool:
        """Whether a caller does more with its session than passing it on once."""
        flow = self.flow(caller)
        if flow is None or flow.sessions[identity].origin not in (PARAMETER, INJECTED):
            return True
        return identity in flow.direct or sum([identity in handing.identities for handing in flow.calls]) > 1

    def takes_part(self, reference: FunctionRef) -> bool:
        """Whether the function is only a part of its callers' unit of work: they all do more with the session."""
        key = id(reference.function)
        if key not in self._parts:
            self._parts[key] = True  # a cycle alone makes nobody responsible
            callers = self.callers(reference)
            self._parts[key] = bool(callers) and all(
                [self.works_with(caller, identity) or self.takes_part(caller) for caller, identity in callers]
            )
        return self._parts[key]

    def users_of(self, provider: FunctionRef) -> list[tuple[FunctionRef, str]]:
        """The functions that work with a provider's session, and what may fail in each."""
        if self._users is None:
            self._users = {}
            for flow in self.all_flows():
                for info in flow.sessions.values():
                    if info.provider is not None:
                        reason = _exposure(flow, info.identity)
                        if reason:
                            self._users.setdefault(id(info.provider.function), []).append((flow.reference, reason))
        found = self._users.get(id(provider.function), [])
        return sorted(found, key=lambda pair: (pair[0].module.path, pair[0].function.place))

    def all_flows(self) -> Iterator[FunctionFlow]:
        for module in self.table.modules:
            for reference in self.functions(module):
                flow = self.flow(reference)
                if flow is not None:
                    yield flow

    def is_injected(self, reference: FunctionRef, parameter: ir.Parameter) -> bool:
        """Whether a decorator fills the parameter, so that its default is never the value."""
        for decorator in reference.function.decorators:
            while isinstance(decorator, ir.Call):
                decorator = decorator.function
            if isinstance(decorator, ir.Name) and any([word in decorator.path[-1] for word in _INJECTING]):
                return True
        return False

    def imports(self, *packages: str) -> bool:
        """Whether any module of the project imports one of the packages."""
        if packages not in self._imports:
            self._imports[packages] = any([module.imports_any(*packages) for module in self.table.modules])
        return self._imports[packages]

    def is_begun_by_callers(self, reference: FunctionRef) -> bool:
        """Whether somebody calls the function with a session that was handed out inside a begin() block."""
        if self._begun is None:
            self._begun = self._find_begun()
        return id(reference.function) in self._begun

    def _find_begun(self) -> set[int]:
        """Follow the sessions that begin() blocks hand out down the calls."""
        begun: set[int] = set()
        waiting = list(self.all_flows())
        while waiting:
            reached: list[FunctionFlow] = []
            for flow in waiting:
                for handing in flow.calls:
                    if id(handing.callee.function) in begun:
                        continue
                    infos = [flow.sessions[identity] for identity in handing.identities if identity in flow.sessions]
                    if any([self._is_begun(flow, info, begun) for info in infos]):
                        begun.add(id(handing.callee.function))
                        found = self.flow(handing.callee)
                        reached += [found] if found is not None else []
            waiting = reached
        return begun

    def _is_begun(self, flow: FunctionFlow, info: SessionInfo, begun: set[int]) -> bool:
        if info.provider is not None:
            return self.provider(info.provider).begun > 0
        return info.origin == PARAMETER and id(flow.reference.function) in begun

    def flow_in_begin(self, reference: FunctionRef) -> FunctionFlow:
        """The function's flow when the session that it is handed is in a begin() block."""
        from session_lint.flow.interpreter import Interpreter

        return Interpreter(self, reference).run(begun=1)

    def enclosing(self, reference: FunctionRef) -> FunctionRef | None:
        """The function around a nested one."""
        outer = reference.function.qualname.rpartition(".")[0]
        function = reference.module.functions.get(outer)
        return FunctionRef(reference.module, function) if function is not None and outer else None

    def locals(self, reference: FunctionRef) -> dict[str, Value]:
        """The local variables of a function as a nested one sees them."""
        key = id(reference.function)
        if key not in self._locals:
            self._locals[key] = {}
            known = dict(self.statics.locals(reference))
            for parameter in reference.function.parameters:
                value, _ = self.parameter(reference, parameter)
                if value is not None:
                    known[parameter.name] = value
            self._locals[key] = known
        return self._locals[key]

    def ancestor_names(self, name: str) -> tuple[str, ...]:
        """The names of all classes that an exception class of the project inherits from."""
        last = name.rpartition(".")[2]
        found: list[str] = []
        for module in self.table.modules:
            definition = module.classes.get(last)
            if definition is not None and (f"{module.name}.{last}" == name or name == last):
                for symbol in self.table.ancestors(ClassRef(module, definition)):
                    found.append(
                        symbol.name if isinstance(symbol, External) else getattr(symbol, "definition", definition).name
                    )
                for base in definition.bases:
                    if isinstance(base, ir.Name):
                        found.append(base.path[-1])
                break
        return tuple(found)

    def holds_session(self, reference: ClassRef) -> bool:
        """Whether objects of the class keep a session."""
        key = id(reference.definition)
        if key not in self._holders:
            fields = self.statics.fields(reference).values()
            self._holders[key] = any([isinstance(value, Borrowed) for value in fields])
        return self._holders[key]

    def constructor(self, reference: ClassRef) -> Constructor:
        """Which attribute keeps which argument of a class's constructor."""
        key = id(reference.definition)
        if key not in self._constructors:
            self._constructors[key] = Constructor((), {})
            self._constructors[key] = self._constructor(reference)
        return self._constructors[key]

    def _constructor(self, reference: ClassRef) -> Constructor:
        method = self.table.method(reference, "__init__")
        if method is None:
            names = [
                target.path[0]
                for statement in reference.definition.body
                if isinstance(statement, ir.Assign) and statement.annotation is not None
                for target in statement.targets
                if isinstance(target, ir.Name)
            ]
            return Constructor(tuple(names), {name: (name,) for name in names})
        parameters = [parameter.name for parameter in method.function.parameters]
        me, names = (parameters[0], parameters[1:]) if parameters else ("", [])
        fields: dict[str, list[str]] = {}
        for statement in ir.statements(method.function.body):
            if (
                isinstance(statement, ir.Assign)
                and isinstance(statement.value, ir.Name)
                and len(statement.value.path) == 1
            ):
                for target in statement.targets:
                    if isinstance(target, ir.Name) and len(target.path) == 2 and target.path[0] == me:
                        fields.setdefault(statement.value.path[0], []).append(target.path[1])
            elif isinstance(statement, ir.Expression) and isinstance(statement.value, ir.Call):
                self._super_fields(reference, statement.value, fields)
        return Constructor(tuple(names), {name: tuple(kept) for name, kept in fields.items()})

    def _super_fields(self, reference: ClassRef, call: ir.Call, fields: dict[str, list[str]]) -> None:
        """`super().__init__(session)`: the base class keeps it."""
        function = call.function
        if not (
            isinstance(function, ir.Attribute) and function.name == "__init__" and isinstance(function.base, ir.Call)
        ):
            return
        for base in self.table.bases(reference):
            if isinstance(base, ClassRef):
                inherited = self.constructor(base)
                for position, argument in enumerate(call.arguments):
                    name = argument.name
                    if name is None and position < len(inherited.positional):
                        name = inherited.positional[position]
                    if name is not None and isinstance(argument.value, ir.Name) and len(argument.value.path) == 1:
                        fields.setdefault(argument.value.path[0], []).extend(inherited.fields.get(name, ()))


def _exposure(flow: FunctionFlow, identity: Path) -> str:
    """What in a function may leave its session in a transaction; empty if nothing does."""
    ways = [
        way
        for way in flow.exits
        if way.error is not None
        and identity in way.state.sessions
        and way.state.sessions[identity].transaction in (OPEN, *BROKEN)
        and way.state.sessions[identity].touched
    ]
    if not ways:
        return ""
    commits = {event.place for event in flow.events if event.kind == COMMITTED and event.identity == identity}
    telling = [way for way in ways if way.error is not None and way.error.place in commits] or ways
    error = min([way.error for way in telling if way.error is not None], key=lambda error: error.place)
    return f"{error.text} may fail"


def allow_deep_recursion() -> None:
    """The interpreter recurses over nested code and chains of calls."""
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 6000))
