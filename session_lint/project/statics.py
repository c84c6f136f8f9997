"""What names stand for, as far as the text of the project says it: types, factories, fields, return values.

This is a small evaluator, no type checker: it knows just enough to tell sessions, and what makes, holds or
hands them on, from everything else.
"""

from __future__ import annotations

import functools

from session_lint import ir
from session_lint.findings import Confidence
from session_lint.flow.values import (
    BLOCK,
    Borrowed,
    ClassValue,
    ContextVariable,
    Dependency,
    Engine,
    Extension,
    ExternalValue,
    Factory,
    Function,
    Instance,
    Items,
    Lender,
    ModelQuery,
    ModuleValue,
    Opened,
    Parent,
    Path,
    QueryProperty,
    Registry,
    SessionClass,
    SessionType,
    Value,
    connection_of,
    is_lasting,
    named,
    opened_with,
)
from session_lint.ir_queries import asks_for_autocommit, begins_nothing, has_decorator, is_property, last_name, path_of
from session_lint.project import shapes
from session_lint.project import sqlalchemy_names as names
from session_lint.project.annotations import Annotations
from session_lint.project.call_sites import CallSites
from session_lint.project.constructors import Constructors
from session_lint.project.fields import Fields
from session_lint.project.mixins import Mixins
from session_lint.project.modules import (
    ClassRef,
    External,
    FunctionRef,
    Module,
    ModuleRef,
    Symbol,
    SymbolTable,
    VariableRef,
)
from session_lint.project.outside import Outside
from session_lint.project.results import Results
from session_lint.settings import Settings

_SUPER = ir.Name(("super",))
_MAKING = ("__init__", "__new__", "__init_subclass__")
"""What these keep in the object is the constructors' business."""

ENDS = frozenset({"rollback", "close", "aclose", "reset", "remove"})


class Statics:
    """Answers what an expression, a type or a function's result is. Answers are kept."""

    def __init__(self, table: SymbolTable, settings: Settings) -> None:
        self.table = table
        self.extra_types = {
            **dict.fromkeys(settings.session_types, SessionType("session", False, Confidence.LIKELY)),
            **dict.fromkeys(settings.async_session_types, SessionType("session", True, Confidence.LIKELY)),
        }
        self._names: dict[tuple[int, Path], Value] = {}
        self._symbols: dict[tuple[str, str], Value] = {}
        self.annotations = Annotations(self)
        self.results = Results(self)
        self.constructors = Constructors(table)
        self.mixins = Mixins(table)
        self.fields = Fields(self)
        self.call_sites = CallSites(self)
        self.outside = Outside(self)
        self._usage: dict[int, dict[Path, shapes.Usage]] = {}
        self._uses_sqlalchemy: dict[int, bool] = {}
        self.busy: set[object] = set()
        """What is being worked out: who asks for it again meanwhile gets None, so that cycles end."""

    # -------------------------------------------------------------------------------------------- symbols

    def name(self, module: Module, path: Path) -> Value:
        """What a dotted path means at the module's level."""
        key = (id(module), path)
        if key not in self._names:
            value = self._name(module, path)
            if self.busy:
                return value
            self._names[key] = value
        return self._names[key]

    def _name(self, module: Module, path: Path) -> Value:
        outside: Value = None
        for length in range(len(path), 0, -1):
            symbol = self.table.resolve(module, path[:length])
            if symbol is None:
                continue
            if isinstance(symbol, External):
                # Nothing of that name; perhaps an attribute of something that the project does define.
                outside = outside or self.external(symbol.name)
                continue
            value = self.symbol(symbol)
            if length > 1 and isinstance(symbol, VariableRef) and "." in symbol.name:
                # What `app` is may say more about its attribute than what the module puts there.
                is_extended = isinstance(self.name(module, path[: length - 1]), Extension)
                if is_extended or not isinstance(value, (Registry, Factory)):
                    continue
            for attribute in path[length:]:
                value = self.attribute(value, attribute)
            return value
        return outside

    def symbol(self, symbol: Symbol) -> Value:
        if isinstance(symbol, FunctionRef):
            return Function(symbol, None)
        if isinstance(symbol, ClassRef):
            return self.class_value(symbol)
        if isinstance(symbol, ModuleRef):
            return ModuleValue(symbol)
        if isinstance(symbol, External):
            return self.external(symbol.name)
        return self._variable(symbol)

    def _variable(self, symbol: VariableRef) -> Value:
        key = (symbol.module.name, symbol.name)
        if key in self._symbols:
            return self._symbols[key]
        if key in self.busy:
            return None
        self.busy.add(key)
        assignment = symbol.assignment
        value = self.expression(symbol.module, assignment.value) if assignment.value is not None else None
        setter = symbol.module.setters.get(symbol.name)
        if value is None and setter is not None and isinstance(assignment.value, ir.Call):
            # `global session` in a function that makes its factory, too.
            local = self.results.locals(FunctionRef(symbol.module, setter))
            value = self.expression(symbol.module, assignment.value, local)
        if value is None and assignment.annotation is not None:
            value = self.annotations.instance(symbol.module, assignment.annotation)
        # `DB = db = SQLAlchemy()` is one, whatever it is called.
        first = path_of(assignment.targets[0]) if len(assignment.targets) > 1 else ()
        value = named(value, (key[0], first[0]) if len(first) == 1 else key)
        self.busy.discard(key)
        self._symbols[key] = value
        return value

    def external(self, name: str) -> Value:
        """What a name that the project does not define stands for."""
        found = self.extra_types.get(name)
        if found:
            return SessionClass(found)
        return names.session_class(name) or self.outside.of(name) or ExternalValue(name)

    def class_value(self, reference: ClassRef) -> Value:
        """A class of the project; one that derives from a session class is a session class."""
        dotted = f"{reference.module.name}.{reference.definition.qualname}"
        for extra, kind in self.extra_types.items():
            if dotted == extra or dotted.endswith(f".{extra}"):
                return SessionClass(kind)
        for symbol in self.table.ancestors(reference):
            if isinstance(symbol, External):
                value = self.external(symbol.name)
                if isinstance(value, SessionClass):
                    return (
                        SessionClass(value.type._replace(commits=BLOCK)) if self._commits_at_end(reference) else value
                    )
                if symbol.name in names.EXTENSIONS or symbol.name in names.REGISTRIES:
                    return ExternalValue(symbol.name)
        return ClassValue(reference)

    def _commits_at_end(self, reference: ClassRef) -> bool:
        """Whether a session class of the project commits at the end of a `with` block."""
        for name in ("__exit__", "__aexit__"):
            method = self.table.method(reference, name)
            if method is not None and method.function.parameters:
                seen = self.usage(method).get((method.function.parameters[0].name,))
                if seen is not None and "commit" in seen.methods:
                    return True
        return False

    def attribute(self, value: Value, name: str) -> Value:
        if value is None:
            return None
        if isinstance(value, Extension):
            if name == "session":
                return value.session
            if name == "Model":
                return QueryProperty(value.session)
            if name in names.OF_EXTENSION:
                return ExternalValue(names.OF_EXTENSION[name])
            return Engine(False, value.certainty) if name in ("engine", "get_engine") else None
        if isinstance(value, ContextVariable):
            return value.current if name == "get" else None
        if isinstance(value, ModuleValue) and isinstance(value.reference, ModuleRef):
            return self.name(value.reference.module, (name,))
        if isinstance(value, ExternalValue):
            return self.external(f"{value.name}.{name}")
        if isinstance(value, Parent):
            method = self.table.inherited_method(value.reference, name) if name not in _MAKING else None
            return Function(method, value.receiver) if method is not None else None
        if isinstance(value, (Instance, ClassValue)):
            carried = value.fields if isinstance(value, Instance) else ()
            for field, known in carried:
                if field == name:
                    return known
            method = self.table.method(value.reference, name)
            if method is not None:
                return self._of_method(method, value)
            found = self.fields.of(value.reference).get(name)
            if found is None and isinstance(value, ClassValue):
                found = self._of_metaclass(value.reference, name)
            if isinstance(found, Borrowed):
                # Somewhere in the object is a session; a field that holds one is most likely that one.
                return next((known for field, known in carried if field == "?"), found)
            if isinstance(found, QueryProperty):
                return ModelQuery(found.registry, value.reference)
            if found is None and name == "query":
                return self._query_of(value.reference)
            if found is None and (beside := self.mixins.method(value.reference, name)) is not None:
                return self._of_method(beside, value)
            return self._carrying(found, carried)
        return None

    def _of_method(self, method: FunctionRef, value: Instance | ClassValue) -> Value:
        """A method of an object or a class, or what it gives if it is a property."""
        if is_property(method.function):
            return self._carrying(self.results.returned(method), value.fields if isinstance(value, Instance) else ())
        is_bound = isinstance(value, Instance) or has_decorator(method.function, "classmethod")
        return Function(method, value if is_bound else None)

    def _of_metaclass(self, reference: ClassRef, name: str) -> Value:
        """`Database.session`, if the class's metaclass has a property of that name."""
        metaclass = self.expression(reference.module, reference.definition.metaclass)
        method = self.table.method(metaclass.reference, name) if isinstance(metaclass, ClassValue) else None
        return self.results.returned(method) if method is not None and is_property(method.function) else None

    def _query_of(self, reference: ClassRef) -> Value:
        """`Model.query`, if the model belongs to Flask-SQLAlchemy."""
        for symbol in self.table.ancestors(reference):
            if not isinstance(symbol, ClassRef):
                continue
            for base in symbol.definition.bases:
                # `db.Model`, or a name that the project has given it.
                path = path_of(base)
                owner = self.name(symbol.module, path[:-1]) if len(path) > 1 else None
                found = self.attribute(owner, path[-1]) if owner is not None else self.expression(symbol.module, base)
                if isinstance(found, QueryProperty):
                    return ModelQuery(found.registry, reference)
        return None

    def _carrying(self, value: Value, fields: tuple[tuple[str, Value], ...]) -> Value:
        """An object that is reached through another one works with the sessions of that one, if it keeps any."""
        if not isinstance(value, Instance) or not fields or value.fields or value.path:
            return value
        if not any([isinstance(kept, Borrowed) for kept in self.fields.of(value.reference).values()]):
            return value
        return value._replace(fields=tuple([("?", held) for _, held in fields]))

    # ------------------------------------------------------------------------------------------ expressions

    def expression(self, module: Module, node: ir.Expr | None, local: dict[str, Value] | None = None) -> Value:
        """What an expression evaluates to, without running anything."""
        if isinstance(node, ir.Name):
            if local and node.path[0] in local:
                value = local[node.path[0]]
                for attribute in node.path[1:]:
                    value = self.attribute(value, attribute)
                return value
            return self.name(module, node.path)
        if isinstance(node, ir.Attribute):
            return self.attribute(self.expression(module, node.base, local), node.name)
        if isinstance(node, ir.Await):
            return self.expression(module, node.value, local)
        if isinstance(node, ir.Call):
            return self._call(module, node, local)
        if isinstance(node, (ir.Boolean, ir.Conditional)):
            sides = (node.left, node.right) if isinstance(node, ir.Boolean) else (node.then, node.other)
            return self.expression(module, sides[0], local) or self.expression(module, sides[1], local)
        if isinstance(node, ir.Collection) and node.kind == "tuple":
            values = tuple([self.expression(module, item, local) for item in node.items])
            return Items(values) if any([value is not None for value in values]) else None
        if isinstance(node, ir.Subscript):
            base = self.expression(module, node.base, local)
            if isinstance(base, Items):
                return _item(base, node.items)
            return base if isinstance(base, (SessionClass, ExternalValue, ClassValue)) else None
        return None

    def _call(self, module: Module, node: ir.Call, local: dict[str, Value] | None) -> Value:
        if node.function == _SUPER and local:
            return self.parent(next(iter(local.values())))  # of the first parameter
        function = self.expression(module, node.function, local)
        # Asked by its name first: a chain of calls would otherwise be gone through twice for each of its links.
        if function is None and isinstance(node.function, ir.Attribute) and node.function.name == "configure":
            base = self.expression(module, node.function.base, local)
            if isinstance(base, Factory):
                return base
        if last_name(node.function) in ("connect", "execution_options", "query_property"):
            owner = self._owner(module, node.function, local)
            if last_name(node.function) == "query_property":
                return QueryProperty(owner) if isinstance(owner, Registry) else None
            if isinstance(owner, Engine) and last_name(node.function) == "connect":
                return Opened(connection_of(owner))
            if isinstance(owner, Engine):
                return owner._replace(autocommit=owner.autocommit or asks_for_autocommit(node))
        return self.call(module, function, node, local)

    def _owner(self, module: Module, method: ir.Expr, local: dict[str, Value] | None) -> Value:
        """What a method is called on."""
        if isinstance(method, ir.Attribute):
            return self.expression(module, method.base, local)
        path = path_of(method)[:-1]
        return self.expression(module, ir.Name(path), local) if path else None

    def parent(self, receiver: Value) -> Value:
        """What `super()` is in a method that was called on this."""
        return Parent(receiver.reference, receiver) if isinstance(receiver, (Instance, ClassValue)) else None

    def call(self, module: Module, function: Value, node: ir.Call, local: dict[str, Value] | None = None) -> Value:
        """What calling something returns (for a coroutine function: what awaiting the call returns)."""
        if function is None:
            return None
        if isinstance(function, SessionClass):
            if function.is_alias:
                return self.expression(module, node.arguments[0].value, local) if node.arguments else None
            return Opened(function.type)
        if isinstance(function, Factory):
            return Opened(function.type)
        if isinstance(function, Lender):
            return function.manager
        if isinstance(function, Registry):
            return function
        if isinstance(function, Instance):
            function = self.attribute(function, "__call__")
        if isinstance(function, Function):
            return self.results.given_by(function)
        if isinstance(function, ClassValue):
            return Instance(function.reference, (), self._kept(module, function.reference, node, local))
        if isinstance(function, ExternalValue):
            return self._external_call(module, function.name, node, local)
        return None

    def _external_call(self, module: Module, name: str, node: ir.Call, local: dict[str, Value] | None) -> Value:
        if name in names.SESSION_FACTORIES:
            return Factory(self._factory_type(module, name, node, local))
        if name in names.ENGINE_MAKERS:
            return Engine(names.ENGINE_MAKERS[name], Confidence.CERTAIN, asks_for_autocommit(node))
        if name in names.EXTENSIONS:
            return Extension(("?",))
        if name in names.DEPENDS:
            return self.dependency(module, node, local)
        if name in names.PROXIES and node.arguments:
            return self._proxied(module, node.arguments[0].value, local)
        if name in names.CASTS and len(node.arguments) == 2:
            wanted, given = [self.expression(module, argument.value, local) for argument in node.arguments]
            return Borrowed(wanted.type) if given is None and isinstance(wanted, SessionClass) else given
        last = name.rpartition(".")[2]
        first = self.expression(module, node.arguments[0].value, local) if node.arguments else None
        if name in names.REGISTRIES:
            made = Registry(("?",), names.REGISTRIES[name], "")
            return made._replace(commits=first.type.commits) if isinstance(first, Factory) else made
        if name in names.CONTEXT_MANAGERS and isinstance(first, Function):
            return _manager_maker(first)
        if last in ("NewType", "TypeVar"):
            # What a type variable stands for is at least its bound.
            bound = [argument.value for argument in node.arguments if argument.name == "bound"]
            bound += [argument.value for argument in node.arguments[1:] if argument.name is None]
            values = [self.expression(module, each, local) for each in bound]
            plain = [value for value in values if isinstance(value, SessionClass) and not value.type.is_async]
            value = (plain or values or [None])[0]
            return value._replace(is_alias=last == "NewType") if isinstance(value, SessionClass) else value
        if last in ("partial", "cast", "cached", "run_sync") and node.arguments:
            return first if last == "partial" else None
        return None

    def _kept(
        self, module: Module, reference: ClassRef, node: ir.Call, local: dict[str, Value] | None
    ) -> tuple[tuple[str, Value], ...]:
        """`Repository(db.session)`: the scoped session that a new object keeps. Others live no longer than a call."""
        if not node.arguments or not self.constructors.of(reference).fields:
            return ()
        values = [(item.name, self.expression(module, item.value, local)) for item in node.arguments]
        return self.constructors.kept(
            reference, [(name, value if is_lasting(value) else None) for name, value in values]
        )

    def _proxied(self, module: Module, maker: ir.Expr, local: dict[str, Value] | None) -> Value:
        """`LocalProxy(f)` is whatever `f()` finds: no new session for each use of it, or it would be of no use."""
        if isinstance(maker, ir.Lambda):
            value = self.results.returned(FunctionRef(module, maker.function))
        else:
            value = self.call(module, self.expression(module, maker, local), ir.Call(maker, (), ir.NOWHERE), local)
        # What it opens it must keep, in `flask.g` or the like.
        return ContextVariable(("?",), value.type).current if isinstance(value, (Opened, Borrowed)) else value

    def _factory_type(self, module: Module, maker: str, node: ir.Call, local: dict[str, Value] | None) -> SessionType:
        is_async = names.SESSION_FACTORIES[maker]
        kind = SessionType("session", is_async, Confidence.CERTAIN)
        values = [(argument.name, self.expression(module, argument.value, local)) for argument in node.arguments]
        for name, value in values:
            if name == "class_" and isinstance(value, SessionClass):
                kind = value.type
        return opened_with(kind, [value for _, value in values], begins_nothing(node))

    def dependency(self, module: Module, node: ir.Call, local: dict[str, Value] | None = None) -> Value:
        """`Depends(f, scope=..., use_cache=...)`."""
        provider, scope, cached = None, "", True
        for argument in node.arguments:
            if argument.name in (None, "dependency"):
                provider = self.expression(module, argument.value, local)
            elif argument.name == "scope" and isinstance(argument.value, ir.Constant):
                scope = str(argument.value.value)
            elif argument.name == "use_cache":
                cached = argument.value != ir.Constant(False)
        return Dependency(provider, scope, cached)

    # ----------------------------------------------------------------------------------------------- usage

    def usage(self, reference: FunctionRef) -> dict[Path, shapes.Usage]:
        key = id(reference.function)
        if key not in self._usage:
            self._usage[key] = shapes.usage(self.table.bodies, [reference.function.body])
        return self._usage[key]

    def ends(self, reference: FunctionRef, path: Path) -> bool:
        """Whether a function rolls back or closes the session that it knows by a path, whenever that may be."""
        seen = self.usage(reference).get(path)
        return seen is not None and bool(seen.methods & ENDS)

    def uses_sqlalchemy(self, module: Module) -> bool:
        """Whether the module imports SQLAlchemy, or a name from a module of the project that does."""
        key = id(module)
        if key not in self._uses_sqlalchemy:
            self._uses_sqlalchemy[key] = module.imports_any(*names.PACKAGES) or any(
                [
                    isinstance(self.name(module, (local,)), (Registry, Extension, Factory, SessionClass, Engine))
                    for local in module.imports
                ]
            )
        return self._uses_sqlalchemy[key]


def _manager_maker(function: Function) -> Value:
    """`contextmanager(f)`: a function whose result is a context manager."""
    return Function(FunctionRef(function.reference.module, _as_manager(function.reference.function)), function.receiver)


@functools.cache
def _as_manager(function: ir.Function) -> ir.Function:
    return function._replace(decorators=(*function.decorators, ir.Name(("contextmanager",))))


def _item(value: Items, index: tuple[ir.Expr, ...]) -> Value:
    number = index[0].value if len(index) == 1 and isinstance(index[0], ir.Constant) else None
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < len(value.items):
        return value.items[number]
    return None
