"""What names stand for, as far as the text of the project says it: types, factories, fields, return values.

This is a small evaluator, no type checker: it knows just enough to tell sessions, and what makes, holds or
hands them on, from everything else.
"""

from __future__ import annotations

import functools

from session_lint import ir
from session_lint.findings import Confidence
from session_lint.flow.values import (
    Borrowed,
    ClassValue,
    Dependency,
    Engine,
    Extension,
    ExternalValue,
    Factory,
    Function,
    Generator,
    Instance,
    Items,
    Manager,
    ModuleValue,
    Opened,
    Path,
    Registry,
    SessionClass,
    SessionType,
    Value,
)
from session_lint.ir_queries import own_expressions
from session_lint.project import shapes
from session_lint.project import sqlalchemy_names as names
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
from session_lint.settings import Settings

_GENERATOR_TYPES = ("Generator", "AsyncGenerator", "Iterator", "AsyncIterator", "Iterable", "AsyncIterable")
_WRAPPERS = ("Optional", "Union", "ClassVar", "Final", "Annotated", "Type", "type", "Awaitable")
_COROUTINES = ("inlineCallbacks", "coroutine", "gen_test", "asyncio_coroutine")
"""Decorators that make a coroutine of a generator function."""

_CACHED = ("lru_cache", "cache", "cached_property", "cached", "singleton")


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
        self._returns: dict[int, Value] = {}
        self._yields: dict[int, Value] = {}
        self._fields: dict[int, dict[str, Value]] = {}
        self.kept: dict[int, dict[str, str]] = {}
        """By class: the attributes that hold a session which the class opens itself, "class" or "instance" wide."""
        self._usage: dict[int, dict[Path, shapes.Usage]] = {}
        self._uses_sqlalchemy: dict[int, bool] = {}
        self._busy: set[object] = set()

    # -------------------------------------------------------------------------------------------- symbols

    def name(self, module: Module, path: Path) -> Value:
        """What a dotted path means at the module's level."""
        key = (id(module), path)
        if key not in self._names:
            value = self._name(module, path)
            if self._busy:
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
        if key in self._busy:
            return None
        self._busy.add(key)
        assignment = symbol.assignment
        value = self.expression(symbol.module, assignment.value) if assignment.value is not None else None
        if value is None and assignment.annotation is not None:
            value = self.instance(symbol.module, assignment.annotation)
        if isinstance(value, (Registry, Extension)) and value.identity == ("?",):
            value = value._replace(identity=key)
        self._busy.discard(key)
        self._symbols[key] = value
        return value

    def external(self, name: str) -> Value:
        """What a name that the project does not define stands for."""
        found = self.extra_types.get(name)
        if found:
            return SessionClass(found)
        return names.session_class(name) or ExternalValue(name)

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
                    return value
                if symbol.name in names.EXTENSIONS or symbol.name in names.REGISTRIES:
                    return ExternalValue(symbol.name)
        return ClassValue(reference)

    def attribute(self, value: Value, name: str) -> Value:
        if isinstance(value, Extension):
            if name == "session":
                return Registry((*value.identity, "session"), False, "flask")
            return Engine(False, Confidence.CERTAIN) if name in ("engine", "get_engine") else None
        if isinstance(value, ModuleValue) and isinstance(value.reference, ModuleRef):
            return self.name(value.reference.module, (name,))
        if isinstance(value, ExternalValue):
            return self.external(f"{value.name}.{name}")
        if isinstance(value, (Instance, ClassValue)):
            carried = value.fields if isinstance(value, Instance) else ()
            for field, known in carried:
                if field == name:
                    return known
            method = self.table.method(value.reference, name)
            if method is not None:
                if _is_property(method.function):
                    return self._carrying(self.returned(method), carried)
                return Function(method, value if isinstance(value, Instance) else None)
            found = self.fields(value.reference).get(name)
            if isinstance(found, Borrowed):
                # Somewhere in the object is a session; a field that holds one is most likely that one.
                return next((known for field, known in carried if field == "?"), found)
            return self._carrying(found, carried)
        return None

    def _carrying(self, value: Value, fields: tuple[tuple[str, Value], ...]) -> Value:
        """An object that is reached through another one works with the sessions of that one, if it keeps any."""
        if isinstance(value, Instance) and fields and not value.fields and not value.path:
            if any([isinstance(kept, Borrowed) for kept in self.fields(value.reference).values()]):
                return value._replace(fields=tuple([("?", held) for _, held in fields]))
        return value

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
        function = self.expression(module, node.function, local)
        if function is None and isinstance(node.function, ir.Attribute):
            base = self.expression(module, node.function.base, local)
            if isinstance(base, Factory) and node.function.name == "configure":
                return base
        return self.call(module, function, node, local)

    def call(self, module: Module, function: Value, node: ir.Call, local: dict[str, Value] | None = None) -> Value:
        """What calling something returns (for a coroutine function: what awaiting the call returns)."""
        if isinstance(function, SessionClass):
            return Opened(function.type)
        if isinstance(function, Factory):
            return Opened(function.type)
        if isinstance(function, Registry):
            return function
        if isinstance(function, Function):
            return self.returned(function.reference)
        if isinstance(function, ClassValue):
            return Instance(function.reference, (), ())
        if isinstance(function, ExternalValue):
            return self._external_call(module, function.name, node, local)
        return None

    def _external_call(self, module: Module, name: str, node: ir.Call, local: dict[str, Value] | None) -> Value:
        if name in names.SESSION_FACTORIES:
            return Factory(self._factory_type(module, name, node, local))
        if name in names.REGISTRIES:
            return Registry(("?",), names.REGISTRIES[name], "")
        if name in names.ENGINE_MAKERS:
            return Engine(names.ENGINE_MAKERS[name], Confidence.CERTAIN)
        if name in names.EXTENSIONS:
            return Extension(("?",))
        if name in names.DEPENDS:
            return self.dependency(module, node, local)
        last = name.rpartition(".")[2]
        first = self.expression(module, node.arguments[0].value, local) if node.arguments else None
        if name in names.CONTEXT_MANAGERS and isinstance(first, Function):
            return ManagerMaker(first)
        if last in ("NewType", "TypeVar") and len(node.arguments) > 1:
            return self.expression(module, node.arguments[1].value, local)
        if last in ("partial", "cast", "cached", "run_sync") and node.arguments:
            return first if last == "partial" else None
        return None

    def _factory_type(self, module: Module, name: str, node: ir.Call, local: dict[str, Value] | None) -> SessionType:
        is_async = names.SESSION_FACTORIES[name]
        for argument in node.arguments:
            if argument.name == "class_":
                value = self.expression(module, argument.value, local)
                if isinstance(value, SessionClass):
                    return value.type
        return SessionType("session", is_async, Confidence.CERTAIN)

    def dependency(self, module: Module, node: ir.Call, local: dict[str, Value] | None = None) -> Value:
        """`Depends(f, scope=...)`."""
        provider, scope = None, ""
        for argument in node.arguments:
            if argument.name in (None, "dependency"):
                provider = self.expression(module, argument.value, local)
            elif argument.name == "scope" and isinstance(argument.value, ir.Constant):
                scope = str(argument.value.value)
        return Dependency(provider, scope)

    # ---------------------------------------------------------------------------------------------- types

    def instance(self, module: Module, annotation: ir.Expr) -> Value:
        """What a variable of that type holds."""
        return self.annotated(module, annotation)[0]

    def annotated(self, module: Module, annotation: ir.Expr, depth: int = 0) -> tuple[Value, Dependency | None]:
        """What a variable of that type holds, and the dependency that `Annotated` names."""
        if depth > 8:
            return None, None
        if isinstance(annotation, ir.Subscript):
            return self._generic(module, annotation, depth)
        if not isinstance(annotation, ir.Name):
            return None, None
        symbol = self.table.resolve(module, annotation.path)
        if isinstance(symbol, VariableRef):
            assigned = symbol.assignment.value
            if isinstance(assigned, (ir.Subscript, ir.Name)):
                return self.annotated(symbol.module, assigned, depth + 1)
        value = self.name(module, annotation.path)
        return self._instance_of(value), None

    def _instance_of(self, value: Value) -> Value:
        if isinstance(value, SessionClass):
            return Borrowed(value.type)
        if isinstance(value, ClassValue):
            return Instance(value.reference, (), ())
        if isinstance(value, ExternalValue):
            if value.name in names.ENGINE_CLASSES:
                return Engine(names.ENGINE_CLASSES[value.name], Confidence.CERTAIN)
            if value.name in names.SESSION_FACTORIES:
                return Factory(SessionType("session", names.SESSION_FACTORIES[value.name], Confidence.CERTAIN))
            if value.name in names.REGISTRIES:
                return Registry((value.name,), names.REGISTRIES[value.name], "")
            if value.name in names.EXTENSIONS:
                return Extension((value.name,))
        return None

    def _generic(self, module: Module, node: ir.Subscript, depth: int) -> tuple[Value, Dependency | None]:
        last = node.base.path[-1] if isinstance(node.base, ir.Name) else ""
        if last in _WRAPPERS:
            dependency = None
            for item in node.items[1:]:
                if last == "Annotated" and isinstance(item, ir.Call):
                    found = self.expression(module, item)
                    dependency = found if isinstance(found, Dependency) else dependency
            for item in node.items[:1] if last == "Annotated" else node.items:
                value, inner = self.annotated(module, item, depth + 1)
                if value is not None:
                    return value, dependency or inner
            return None, dependency
        if last in ("sessionmaker", "async_sessionmaker", "scoped_session", "async_scoped_session"):
            return self.annotated(module, node.base, depth + 1)
        if last == "Callable" and node.items:
            value, _ = self.annotated(module, node.items[-1], depth + 1)
            if isinstance(value, Borrowed):
                return Factory(names.weaker(value.type, Confidence.LIKELY)), None
        if last not in _GENERATOR_TYPES:
            return self.annotated(module, node.base, depth + 1)
        return None, None

    def yielded_type(self, module: Module, annotation: ir.Expr | None) -> Value:
        """X of `Generator[X, ...]`, `AsyncIterator[X]` and the like."""
        if isinstance(annotation, ir.Subscript) and isinstance(annotation.base, ir.Name) and annotation.items:
            if annotation.base.path[-1] in _GENERATOR_TYPES:
                return self.instance(module, annotation.items[0])
        return None

    # ------------------------------------------------------------------------------------------- functions

    def is_manager(self, reference: FunctionRef) -> bool:
        """Whether a function is decorated as a context manager."""
        for decorator in reference.function.decorators:
            value = self.expression(reference.module, decorator)
            if isinstance(value, ExternalValue) and value.name in names.CONTEXT_MANAGERS:
                return True
            if isinstance(decorator, ir.Name) and decorator.path[-1] in ("contextmanager", "asynccontextmanager"):
                return True
        return False

    def returned(self, reference: FunctionRef) -> Value:
        """What calling the function gives (awaited, if it is a coroutine function)."""
        key = id(reference.function)
        if key in self._returns:
            return self._returns[key]
        if key in self._busy:
            return None
        self._busy.add(key)
        value = self._returned(reference)
        self._busy.discard(key)
        self._returns[key] = value
        return value

    def _returned(self, reference: FunctionRef) -> Value:
        function = reference.function
        if function.is_generator:
            if self.is_manager(reference):
                return Manager("provider", None, reference)
            if any([decorator_name(decorator) in _COROUTINES for decorator in function.decorators]):
                return None
            return Generator(reference, ir.NOWHERE)
        local = self.locals(reference)
        values = []
        for statement in ir.statements(function.body):
            if isinstance(statement, ir.Return) and statement.value not in (None, ir.Constant(None)):
                values.append(self.expression(reference.module, statement.value, local))
        declared = self.instance(reference.module, function.returns) if function.returns is not None else None
        known = [value for value in values if value is not None]
        if any([decorator_name(decorator) in _CACHED for decorator in function.decorators]):
            known = [Borrowed(value.type) if isinstance(value, Opened) else value for value in known]
        if known and all([value == known[0] for value in known]) and len(known) == len(values):
            return known[0]
        for value in known:
            if isinstance(value, (Opened, Borrowed)):
                # Sometimes a new one, sometimes an old one: whoever gets it can't know that it must close it.
                return Borrowed(value.type)
        return known[0] if known else declared

    def yielded(self, reference: FunctionRef) -> Value:
        """What a generator function yields, by its type and its body."""
        key = id(reference.function)
        if key in self._yields:
            return self._yields[key]
        self._yields[key] = None
        declared = self.yielded_type(reference.module, reference.function.returns)
        if declared is None:
            local = self.locals(reference)
            for statement in ir.statements(reference.function.body):
                for node in own_expressions(statement):
                    if isinstance(node, ir.Yield) and node.value is not None and not node.is_from:
                        value = self.expression(reference.module, node.value, local)
                        if value is None and isinstance(node.value, ir.Name):
                            value = self._shape(reference, node.value.path)
                        declared = declared or (Borrowed(value.type) if isinstance(value, Opened) else value)
                    elif isinstance(node, ir.Yield) and node.is_from and node.value is not None:
                        value = self.expression(reference.module, node.value, local)
                        if isinstance(value, Generator):
                            declared = declared or self.yielded(value.reference)
        self._yields[key] = declared
        return declared

    def _shape(self, reference: FunctionRef, path: Path) -> Value:
        seen = self.usage(reference).get(path)
        kind = shapes.recognise(path[-1], seen, self.uses_sqlalchemy(reference.module))
        return Borrowed(kind) if kind else None

    def locals(self, reference: FunctionRef) -> dict[str, Value]:
        """What the local variables of a function hold, whichever way control takes."""
        module, function = reference
        local: dict[str, Value] = {}
        for parameter in function.parameters:
            local[parameter.name] = self.instance(module, parameter.annotation) if parameter.annotation else None
        if function.owner and function.parameters:
            owner = module.classes.get(function.owner)
            if owner is not None:
                reference_ = ClassRef(module, owner)
                is_class = any([decorator_name(decorator) == "classmethod" for decorator in function.decorators])
                local[function.parameters[0].name] = (
                    ClassValue(reference_) if is_class else Instance(reference_, (), ())
                )
        for statement in ir.statements(function.body):
            if isinstance(statement, ir.Assign) and statement.value is not None:
                for target in statement.targets:
                    if isinstance(target, ir.Name) and len(target.path) == 1 and not local.get(target.path[0]):
                        local[target.path[0]] = self.expression(module, statement.value, local)
            elif isinstance(statement, ir.With):
                for item in statement.items:
                    if isinstance(item.target, ir.Name) and len(item.target.path) == 1:
                        entered = self.entered(module, self.expression(module, item.value, local))
                        local[item.target.path[0]] = Borrowed(entered.type) if isinstance(entered, Opened) else entered
            elif isinstance(statement, ir.Scope):
                for name in statement.names:
                    local.pop(name, None)
        return local

    def entered(self, module: Module, value: Value) -> Value:
        """What `with value as x` binds to x, as a static value."""
        if isinstance(value, Manager) and value.reference is not None:
            return self.yielded(value.reference)
        if isinstance(value, Instance):
            for name in ("__enter__", "__aenter__"):
                method = self.table.method(value.reference, name)
                if method is not None:
                    result = self.returned(method)
                    return result if result is not None else value
        return value

    # --------------------------------------------------------------------------------------------- classes

    def fields(self, reference: ClassRef) -> dict[str, Value]:
        """What the attributes of a class's objects hold: annotations, class variables, assignments to self."""
        key = id(reference.definition)
        if key in self._fields:
            return self._fields[key]
        self._fields[key] = {}
        fields: dict[str, Value] = {}
        for symbol in self.table.ancestors(reference):
            if isinstance(symbol, ClassRef):
                for name, value in self._own_fields(symbol).items():
                    fields.setdefault(name, value)
        self._fields[key] = fields
        return fields

    def _own_fields(self, reference: ClassRef) -> dict[str, Value]:
        module, definition = reference
        fields: dict[str, Value] = {}
        methods = []
        for statement in ir.statements(definition.body):
            if isinstance(statement, ir.Assign):
                for target in statement.targets:
                    if isinstance(target, ir.Name) and len(target.path) == 1:
                        value = self.expression(module, statement.value) if statement.value is not None else None
                        if isinstance(value, Dependency):
                            value = self.instance(module, statement.annotation) if statement.annotation else None
                        if value is None and statement.annotation is not None:
                            value = self.instance(module, statement.annotation)
                        if isinstance(value, Opened):
                            self.kept.setdefault(id(definition), {})[target.path[0]] = "class"
                        if value is not None:
                            fields[target.path[0]] = _settled(value, (module.name, definition.qualname, target.path[0]))
            elif isinstance(statement, ir.Define) and isinstance(statement.definition, ir.Function):
                methods.append(statement.definition)
        methods.sort(key=lambda method: method.name != "__init__")
        seen = shapes.usage([method.body for method in methods])
        for method in methods:
            if method.parameters:
                self._fields_of_method(reference, method, fields, seen)
        return fields

    def _fields_of_method(
        self, reference: ClassRef, method: ir.Function, fields: dict[str, Value], seen: dict[Path, shapes.Usage]
    ) -> None:
        module = reference.module
        local: dict[str, Value] | None = None
        me = method.parameters[0].name
        for statement in ir.statements(method.body):
            if not isinstance(statement, ir.Assign):
                continue
            for target in statement.targets:
                if not (isinstance(target, ir.Name) and len(target.path) == 2 and target.path[0] == me):
                    continue
                field = target.path[1]
                if fields.get(field) is not None:
                    continue
                if local is None:
                    local = {**self.locals(FunctionRef(module, method)), me: None}
                value = self.expression(module, statement.value, local)
                if value is None and statement.annotation is not None:
                    value = self.instance(module, statement.annotation)
                if value is None and not isinstance(statement.value, ir.Constant):
                    kind = shapes.recognise(field, seen.get((me, field)), self.uses_sqlalchemy(module))
                    value = Borrowed(kind) if kind else None
                if isinstance(value, Opened) and method.name == "__init__":
                    self.kept.setdefault(id(reference.definition), {})[field] = "instance"
                if value is not None:
                    fields[field] = _settled(value, (module.name, reference.definition.qualname, field))

    # ----------------------------------------------------------------------------------------------- usage

    def usage(self, reference: FunctionRef) -> dict[Path, shapes.Usage]:
        key = id(reference.function)
        if key not in self._usage:
            self._usage[key] = shapes.usage([reference.function.body])
        return self._usage[key]

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


def ManagerMaker(function: Function) -> Value:
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


def _settled(value: Value, identity: tuple[str, ...]) -> Value:
    """A session that is kept in an attribute is not new to those who find it there."""
    if isinstance(value, Opened):
        return Borrowed(value.type)
    if isinstance(value, (Registry, Extension)) and value.identity == ("?",):
        return value._replace(identity=identity)
    if isinstance(value, Items):
        return None
    return value


def decorator_name(decorator: ir.Expr) -> str:
    while isinstance(decorator, ir.Call):
        decorator = decorator.function
    if isinstance(decorator, ir.Name):
        return decorator.path[-1]
    return decorator.name if isinstance(decorator, ir.Attribute) else ""


def _is_property(function: ir.Function) -> bool:
    return any(
        [decorator_name(decorator) in ("property", "cached_property", "reify") for decorator in function.decorators]
    )
