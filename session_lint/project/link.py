"""The link stage: all modules of the project together, and what is known of each function."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from functools import cached_property

from session_lint import ir
from session_lint.findings import Confidence
from session_lint.flow.contracts import Contract
from session_lint.flow.effects import is_active
from session_lint.flow.errors import is_drivers
from session_lint.flow.operations import COROUTINES
from session_lint.flow.result import FunctionFlow
from session_lint.flow.state import SessionState
from session_lint.flow.values import Borrowed, ClassValue, Dependency, Function, Instance, Value
from session_lint.ir_queries import decorator_name, last_name, path_of
from session_lint.project import shapes
from session_lint.project.aliases import Aliases
from session_lint.project.bodies import Body
from session_lint.project.call_graph import CallGraph
from session_lint.project.committers import Committers
from session_lint.project.databases import aborts_transactions
from session_lint.project.decorators import Decorators
from session_lint.project.dependencies import Dependencies
from session_lint.project.entry_points import EntryPoints
from session_lint.project.kept import KeptSessions
from session_lint.project.lifetimes import Lifetimes
from session_lint.project.modules import ClassRef, External, FunctionRef, Module, SymbolTable
from session_lint.project.ownership import Ownership
from session_lint.project.parking import Parking
from session_lint.project.profiles import Profiles
from session_lint.project.provider import Provider
from session_lint.project.scopes import Scopes
from session_lint.project.splits import Splits
from session_lint.project.sqlalchemy_names import weaker
from session_lint.project.statics import Statics
from session_lint.project.summaries import Constants, Summaries
from session_lint.project.swallows import Swallows
from session_lint.project.versions import Versions
from session_lint.settings import Settings

_PASSES = 4
"""How many functions that only hand a parameter on are followed."""


class Project:
    """The linked project."""

    def __init__(
        self,
        modules: list[Module],
        settings: Settings,
        files: Iterable[str] = (),
        packages: Iterable[str] = (),
        is_whole: bool = True,
    ) -> None:
        """files, packages: see `SymbolTable`.

        is_whole: whether most of it will be judged, so that it pays to work out all flows at once.
        """
        self.settings = settings
        self.is_whole = is_whole
        self.table = SymbolTable(modules, files, packages)
        self.statics = Statics(self.table, settings)
        self.constructors = self.statics.constructors
        self.aliases = Aliases(self)
        self.summaries = Summaries(self)
        self.decorators = Decorators(self)
        self.call_graph = CallGraph(self)
        self.dependencies = Dependencies(self)
        self.versions = Versions(settings)
        self.ownership = Ownership(self)
        self.entry_points = EntryPoints(self)
        self.committers = Committers(self)
        self.kept = KeptSessions(self)
        self.lifetimes = Lifetimes(self)
        self.scopes = Scopes(self)
        self.parking = Parking(self)
        self.profiles = Profiles(self)
        self.splits = Splits(self)
        self.swallows = Swallows(self)
        self._locals: dict[int, dict[str, Value]] = {}
        self._holders: dict[int, bool] = {}
        self._imports: dict[tuple[str, ...], bool] = {}
        self._switches: dict[str, bool] = {}
        self._zope: bool | None = None
        self._lineages: dict[str, tuple[str, ...] | None] = {}
        self.failures: list[tuple[FunctionRef, str]] = []
        self.notes: list[str] = []

    def functions(self, module: Module) -> Iterator[FunctionRef]:
        for function in module.functions.values():
            yield FunctionRef(module, function)

    # ------------------------------------------------------------------------------------------ on demand

    def flow(self, reference: FunctionRef) -> FunctionFlow | None:
        """The function's flow; None while it is being worked out."""
        return self.summaries.flow(reference)

    def contract(self, reference: FunctionRef, constants: Constants = ()) -> Contract | None:
        """The function's contract; None if it is not known."""
        return self.summaries.contract(reference, constants)

    def provider(self, reference: FunctionRef, constants: Constants = ()) -> Provider:
        """What a session generator does at its end."""
        if self.profiles.is_provider(reference):
            return Provider(seen=True, may_commit=True)
        return self.summaries.provider(reference, constants)

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
            value, dependency = self.statics.annotations.annotated(module, parameter.annotation)
        if parameter.default is not None:
            default = self.statics.expression(module, parameter.default)
            if isinstance(default, Dependency):
                dependency = default
        if dependency is not None and dependency.provider is None and isinstance(value, Instance):
            dependency = dependency._replace(provider=ClassValue(value.reference))  # `users: Users = Depends()`
        if dependency is not None and value is None:
            value = self._provided_value(dependency.provider)
        if isinstance(value, Borrowed) and not value.type.is_async and self._is_awaited(reference, parameter):
            value = Borrowed(weaker(value.type._replace(is_async=True), Confidence.LIKELY))
        return value, dependency

    def _is_awaited(self, reference: FunctionRef, parameter: ir.Parameter) -> bool:
        """`async def load(db: Session): await db.execute(...)`: an AsyncSession, whatever the annotation says.

        What may be either, a union or a type variable, stays what it is.
        """
        declared = parameter.annotation
        if not reference.function.is_async or not isinstance(declared, ir.Name):
            return False
        seen = self.statics.usage(reference).get((parameter.name,))
        is_one = isinstance(self.table.resolve(reference.module, declared.path), External)
        return is_one and seen is not None and bool(seen.awaited & COROUTINES)

    def passed_on(self, reference: FunctionRef, parameter: ir.Parameter, depth: int = _PASSES) -> Value:
        """What an untyped parameter must be, because it is handed to a function that says or shows what it takes."""
        if not shapes.named_like_session(parameter.name):
            return None
        for call in self.table.bodies.calls(reference.function.body):
            for position, argument in enumerate(call.arguments):
                if argument.value == ir.Name((parameter.name,)) and argument.name not in ("*", "**"):
                    value = self._taken(reference, call, argument.name, position, depth)
                    if isinstance(value, Borrowed):
                        return Borrowed(weaker(value.type, Confidence.LIKELY))
        return None

    def _taken(self, reference: FunctionRef, node: ir.Call, name: str | None, position: int, depth: int) -> Value:
        callee = self.statics.expression(reference.module, node.function, self.statics.results.locals(reference))
        if not isinstance(callee, Function):
            return None
        module, function = callee.reference
        parameters = list(function.parameters)
        if callee.receiver is not None or "classmethod" in map(decorator_name, function.decorators):
            parameters = parameters[1:]
        for index, taken in enumerate(parameters):
            if taken.name == name or (name is None and index == position):
                value = self.parameter(callee.reference, taken)[0]
                if value is not None or taken.annotation is not None or not depth:
                    return value
                used = self.statics.usage(callee.reference).get((taken.name,))
                kind = shapes.recognise(taken.name, used, self.statics.uses_sqlalchemy(module))
                return Borrowed(kind) if kind else self.passed_on(callee.reference, taken, depth - 1)
        return None

    def _provided_value(self, provider: Value) -> Value:
        if isinstance(provider, Function):
            if provider.reference.function.is_generator:
                return self.statics.results.yielded(provider.reference)
            returned = self.statics.results.returned(provider.reference)
            return Borrowed(returned.type) if hasattr(returned, "type") else returned  # type: ignore[union-attr]
        if isinstance(provider, Instance):
            call = self.table.method(provider.reference, "__call__")
            return self.statics.results.yielded(call) if call is not None and call.function.is_generator else None
        return None

    def all_flows(self) -> Iterator[FunctionFlow]:
        """The flows of all functions, in the order of the source."""
        for module in self.table.modules:
            for reference in self.functions(module):
                flow = self.flow(reference)
                if flow is not None:
                    yield flow

    def flows(self, references: Iterable[FunctionRef]) -> Iterator[FunctionFlow]:
        """The flows of some functions, in the order of the source."""
        wanted = set(references)
        for reference in sorted(wanted, key=lambda each: self._order[each]):
            flow = self.flow(reference)
            if flow is not None:
                yield flow

    @cached_property
    def _order(self) -> dict[FunctionRef, int]:
        references = [reference for module in self.table.modules for reference in self.functions(module)]
        return {reference: number for number, reference in enumerate(references)}

    def imports(self, *packages: str) -> bool:
        """Whether any module of the project imports one of the packages."""
        if packages not in self._imports:
            self._imports[packages] = any([module.imports_any(*packages) for module in self.table.modules])
        return self._imports[packages]

    def switches_on(self, keyword: str) -> bool:
        """Whether any call of the project, or a dict of options, has `keyword=True`, or is given it afterwards.

        `autocommit`: it makes sessions that begin nothing by themselves; `future`: such as those of SQLAlchemy 2.
        """
        if keyword not in self._switches:
            bodies = [body for module in self.table.modules for body in self.bodies(module)]
            parts = (part for body in bodies for part in self.table.bodies.expressions(body))
            self._switches[keyword] = any(_switches_on(part, keyword) for part in parts) or any(
                _puts_in(statement, keyword) for body in bodies for statement in self.table.bodies.statements(body)
            )
        return self._switches[keyword]

    def begins_nothing(self, path: str) -> bool:
        """Whether the project makes sessions with `autocommit=True`, which only SQLAlchemy 1 knows.

        What fails outside of a begin() block of theirs takes a transaction of its own along.
        """
        return self._makes_autocommit and not self.versions.is_sqlalchemy_2(path)

    @cached_property
    def _makes_autocommit(self) -> bool:
        bodies = [body for module in self.table.modules for body in self.bodies(module)]
        return (
            any(_makes_autocommit(part) for body in bodies for part in self.table.bodies.expressions(body))
            or any(_puts_in(each, _AUTOCOMMIT) for body in bodies for each in self.table.bodies.statements(body))
            or any(_hands_on_autocommit(each) for module in self.table.modules for each in self.functions(module))
        )

    def is_committed_by_zope(self) -> bool:
        """Whether sessions are registered with zope.sqlalchemy: then nobody but its transaction manager commits."""
        if self._zope is None:
            self._zope = any(
                isinstance(part, ir.Name) and ".".join(part.path).endswith("sqlalchemy.register")
                for module in self.table.modules
                if module.imports_any("zope")
                for part in self.expressions(module)
            ) or self.imports("zope.sqlalchemy")
        return self._zope

    @cached_property
    def keeps_after_commit(self) -> bool:
        """Whether the project makes a session that leaves what it has committed as it is: `expire_on_commit=False`."""
        bodies = (body for module in self.table.modules for body in self.bodies(module))
        calls = (call for body in bodies for call in self.table.bodies.calls(body))
        return any(ir.Argument("expire_on_commit", ir.Constant(False)) in call.arguments for call in calls)

    @cached_property
    def aborts_transactions(self) -> bool:
        """Whether a statement that fails may abort its transaction in the project's database."""
        return aborts_transactions(self)

    def outlives(self, session: SessionState) -> bool:
        """Whether a failed session's transaction goes on: a statement has failed, no flush, and aborts nothing."""
        return not self.aborts_transactions and is_active(session) is True

    def bodies(self, module: Module) -> list[Body]:
        """What a module runs when it is imported, and the bodies of its functions."""
        return [module.tree.body, *[function.body for function in module.functions.values()]]

    def expressions(self, module: Module) -> Iterator[ir.Expr]:
        """All expressions of a module, and of its functions."""
        for body in self.bodies(module):
            yield from self.table.bodies.expressions(body)

    def flow_in_begin(self, reference: FunctionRef, constants: Constants) -> FunctionFlow:
        """The function's flow when the session that it is handed is in a begin() block."""
        from session_lint.flow.interpreter import Interpreter

        return Interpreter(self, reference).run(1, constants)

    def enclosing(self, reference: FunctionRef) -> FunctionRef | None:
        """The function around a nested one."""
        outer = reference.function.qualname.rpartition(".")[0]
        while outer and outer not in reference.module.functions:
            outer = outer.rpartition(".")[0]  # a class in between
        return FunctionRef(reference.module, reference.module.functions[outer]) if outer else None

    def locals(self, reference: FunctionRef) -> dict[str, Value]:
        """The local variables of a function as a nested one sees them."""
        key = id(reference.function)
        if key not in self._locals:
            self._locals[key] = {}
            known = dict(self.statics.results.locals(reference))
            for parameter in reference.function.parameters:
                value, _ = self.parameter(reference, parameter)
                if value is not None:
                    known[parameter.name] = value
            self._locals[key] = known
        return self._locals[key]

    def lineage(self, name: str) -> tuple[str, ...] | None:
        """The names of all classes that an exception class of the project inherits from; None if it is none of its.

        A driver's class is none of SQLAlchemy's: what a driver raises arrives wrapped.
        A module that mentions neither sessions nor SQLAlchemy is not read: its classes inherit from nothing of theirs.
        """
        if name not in self._lineages:
            self._lineages[name] = self._find_lineage(name)
        return self._lineages[name]

    @cached_property
    def _unwraps_errors(self) -> bool:
        """Whether a listener to `handle_error` raises the driver's own exception in the place of SQLAlchemy's."""
        statements = self.table.bodies.statements
        raised = [
            path_of(statement.exception)
            for module in self.table.modules
            for function in module.functions.values()
            for statement in statements(function.body)
            if isinstance(statement, ir.Raise) and statement.exception is not None
        ]
        return any([path[-1:] == ("original_exception",) for path in raised])

    def _find_lineage(self, name: str) -> tuple[str, ...] | None:
        last = name.rpartition(".")[2]
        if self.means_failure(name):
            return (name, "SQLAlchemyError")
        if is_drivers(name):
            return None if self._unwraps_errors else ()
        for module in self.table.modules:
            definition = module.classes.get(last)
            if definition is not None and name in (f"{module.name}.{last}", last):
                found = [
                    symbol.name if isinstance(symbol, External) else getattr(symbol, "definition", definition).name
                    for symbol in self.table.ancestors(ClassRef(module, definition))
                ]
                return (*found, *[base.path[-1] for base in definition.bases if isinstance(base, ir.Name)])
        return () if "." in name and self.table.is_unread(name) else None

    def means_failure(self, name: str) -> bool:
        """Whether the settings say that a class is raised where a statement has failed."""
        return any([name == said or name.endswith(f".{said}") for said in self.settings.exceptions])

    def works_with_sessions(self, reference: FunctionRef, depth: int = 3) -> bool:
        """Whether the function has a session, or calls one that has."""
        flow = self.flow(reference)
        if flow is None or flow.sessions or depth == 0:
            return flow is not None and bool(flow.sessions)
        local = self.statics.results.locals(reference)
        for call in self.table.bodies.calls(reference.function.body):
            value = self.statics.expression(reference.module, call.function, local)
            if isinstance(value, Function) and self.works_with_sessions(value.reference, depth - 1):
                return True
        return False

    def holds_session(self, reference: ClassRef) -> bool:
        """Whether objects of the class keep a session."""
        key = id(reference.definition)
        if key not in self._holders:
            fields = self.statics.fields.of(reference).values()
            self._holders[key] = any([isinstance(value, Borrowed) for value in fields])
        return self._holders[key]


def allow_deep_recursion() -> None:
    """The interpreter recurses over nested code and chains of calls."""
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 6000))


def _switches_on(part: ir.Expr, keyword: str) -> bool:
    """`sessionmaker(engine, autocommit=True)`, `SQLAlchemy(app, session_options={"autocommit": True})`."""
    if isinstance(part, ir.Call):
        return ir.Argument(keyword, ir.Constant(True)) in part.arguments
    pairs = zip(part.keys, part.items, strict=False) if isinstance(part, ir.Collection) else ()
    return (keyword, ir.Constant(True)) in pairs


_AUTOCOMMIT = "autocommit"
_MAKERS = ("sessionmaker", "Session", "create_session", "SQLAlchemy")


def _makes_autocommit(part: ir.Expr) -> bool:
    is_made = not isinstance(part, ir.Call) or last_name(part.function) in _MAKERS
    return is_made and _switches_on(part, _AUTOCOMMIT)


def _hands_on_autocommit(reference: FunctionRef) -> bool:
    """`def get_session(autocommit=True): return facade.get_session(autocommit=autocommit)`."""
    function = reference.function
    is_default = any([each.name == _AUTOCOMMIT and each.default == ir.Constant(True) for each in function.parameters])
    given = ir.Argument(_AUTOCOMMIT, ir.Name((_AUTOCOMMIT,)))
    calls = [part for part in ir.expressions(function.body) if isinstance(part, ir.Call)] if is_default else []
    return any([given in call.arguments and "session" in last_name(call.function).lower() for call in calls])


def _puts_in(statement: ir.Stmt, keyword: str) -> bool:
    """`options["autocommit"] = True`."""
    if not isinstance(statement, ir.Assign) or statement.value != ir.Constant(True):
        return False
    items = [target.items for target in statement.targets if isinstance(target, ir.Subscript)]
    return (ir.Constant(keyword),) in items
