"""Functions: what calling one gives, what a generator yields, what local variables hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from session_lint import ir
from session_lint.flow.values import (
    Borrowed,
    ClassValue,
    ExternalValue,
    Factory,
    Function,
    Generator,
    Instance,
    Manager,
    Opened,
    Path,
    Registry,
    Value,
)
from session_lint.ir_queries import decorator_name, last_name
from session_lint.project import shapes
from session_lint.project import sqlalchemy_names as names
from session_lint.project.modules import (
    ClassRef,
    FunctionRef,
    Module,
)

if TYPE_CHECKING:
    from session_lint.project.statics import Statics

_COROUTINES = ("inlineCallbacks", "coroutine", "gen_test", "asyncio_coroutine")
"""Decorators that make a coroutine of a generator function."""

CACHED = ("lru_cache", "cache", "cached_property", "cached", "singleton")


class Results:
    """Reads the project's functions. Answers are kept."""

    def __init__(self, statics: Statics) -> None:
        self._statics = statics
        self._returns: dict[int, Value] = {}
        self._yields: dict[int, Value] = {}

    def is_manager(self, reference: FunctionRef) -> bool:
        """Whether a function is decorated as a context manager."""
        for decorator in reference.function.decorators:
            value = self._statics.expression(reference.module, decorator)
            if isinstance(value, ExternalValue) and value.name in names.CONTEXT_MANAGERS:
                return True
            if isinstance(decorator, ir.Name) and decorator.path[-1] in ("contextmanager", "asynccontextmanager"):
                return True
        return False

    def given_by(self, function: Function) -> Value:
        """What a call gives: `cls(...)` and `self` are objects of the class that the method was called on."""
        value, receiver = self.returned(function.reference), function.receiver
        if isinstance(value, Instance) and isinstance(receiver, (Instance, ClassValue)):
            _, method = function.reference
            is_own = value.reference.definition.qualname == method.owner and bool(method.parameters)
            if is_own and receiver.reference != value.reference and self._gives_itself(method):
                return value._replace(reference=receiver.reference)
        return value

    def model_for(self, function: Function, model: ClassRef | None) -> ClassRef | None:
        """The class of what a method loads: `session.query(cls)` asks for the class that the method was called on."""
        module, method = function.reference
        receiver = function.receiver
        if model is None or not isinstance(receiver, ClassValue) or not method.owner or not method.parameters:
            return model
        if model.module is not module or model.definition.qualname != method.owner:
            return model
        me = method.parameters[0].name
        nodes = self._statics.table.bodies.expressions(method.body)
        asks = any([isinstance(node, ir.Name) and node.path[0] == me for node in nodes])
        return receiver.reference if asks else model

    def _gives_itself(self, method: ir.Function) -> bool:
        me = ir.Name((method.parameters[0].name,))
        for statement in self._statics.table.bodies.statements(method.body):
            if isinstance(statement, ir.Return):
                value = statement.value
                while isinstance(value, ir.Await):
                    value = value.value
                if value == me or (isinstance(value, ir.Call) and value.function == me):
                    return True
        return False

    def returned(self, reference: FunctionRef) -> Value:
        """What calling the function gives (awaited, if it is a coroutine function)."""
        key = id(reference.function)
        if key in self._returns:
            return self._returns[key]
        if key in self._statics.busy:
            return None
        self._statics.busy.add(key)
        value = self._returned(reference)
        self._statics.busy.discard(key)
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
        values = [
            self._statics.expression(reference.module, statement.value, local)
            for statement in self._statics.table.bodies.statements(function.body)
            if isinstance(statement, ir.Return) and statement.value not in (None, ir.Constant(None))
        ]
        declared = (
            self._statics.annotations.instance(reference.module, function.returns)
            if function.returns is not None
            else None
        )
        known = [value for value in values if value is not None]
        is_cached = any([decorator_name(decorator) in CACHED for decorator in function.decorators])
        if is_cached or self._keeps_what_it_returns(function):
            known = [Borrowed(value.type) if isinstance(value, Opened) else value for value in known]
        if known and all([value == known[0] for value in known]) and len(known) == len(values):
            return known[0]
        for value in known:
            if isinstance(value, (Opened, Borrowed)):
                # Sometimes a new one, sometimes an old one: whoever gets it can't know that it must close it.
                return Borrowed(value.type)
        return known[0] if known else declared

    def _keeps_what_it_returns(self, function: ir.Function) -> bool:
        """`CACHE[name] = session`, and `return session`: the next one who asks gets the same."""
        bodies = self._statics.table.bodies
        stored = bodies.stored(function.body)
        return any(
            isinstance(statement, ir.Return)
            and isinstance(statement.value, ir.Name)
            and statement.value.path[0] in stored
            for statement in (bodies.statements(function.body) if stored else ())
        )

    def yielded(self, reference: FunctionRef) -> Value:
        """What a generator function yields, by its type and its body."""
        key = id(reference.function)
        if key in self._yields:
            return self._yields[key]
        self._yields[key] = None
        declared = self._statics.annotations.yielded(reference.module, reference.function.returns)
        if declared is None:
            local = self.locals(reference)
            for node in self._statics.table.bodies.expressions(reference.function.body):
                if isinstance(node, ir.Yield) and node.value is not None and not node.is_from:
                    value = self._statics.expression(reference.module, node.value, local)
                    if value is None and isinstance(node.value, ir.Name):
                        value = self._shape(reference, node.value.path)
                    declared = declared or (Borrowed(value.type) if isinstance(value, Opened) else value)
                elif isinstance(node, ir.Yield) and node.is_from and node.value is not None:
                    value = self._statics.expression(reference.module, node.value, local)
                    if isinstance(value, Generator):
                        declared = declared or self.yielded(value.reference)
        self._yields[key] = declared
        return declared

    def _shape(self, reference: FunctionRef, path: Path) -> Value:
        seen = self._statics.usage(reference).get(path)
        kind = shapes.recognise(path[-1], seen, self._statics.uses_sqlalchemy(reference.module))
        return Borrowed(kind) if kind else None

    def locals(self, reference: FunctionRef) -> dict[str, Value]:
        """What the local variables of a function hold, whichever way control takes."""
        module, function = reference
        local: dict[str, Value] = {}
        for parameter in function.parameters:
            local[parameter.name] = (
                self._statics.annotations.instance(module, parameter.annotation) if parameter.annotation else None
            )
        if function.owner and function.parameters:
            owner = module.classes.get(function.owner)
            if owner is not None:
                owner_class = ClassRef(module, owner)
                is_class = any([decorator_name(decorator) == "classmethod" for decorator in function.decorators])
                local[function.parameters[0].name] = (
                    ClassValue(owner_class) if is_class else Instance(owner_class, (), ())
                )
        for statement in self._statics.table.bodies.statements(function.body):
            if isinstance(statement, ir.Assign) and statement.value is not None:
                for target in statement.targets:
                    if not isinstance(target, ir.Name) or len(target.path) > 1:
                        continue
                    known = local.get(target.path[0])
                    if not known or is_asynchronous(known):
                        value = self._statics.expression(module, statement.value, local)
                        value = value if value is not None else self._shaped(reference, target.path, statement.value)
                        if not known or is_twin(value, known):
                            local[target.path[0]] = self.made_here(reference, target, value)
            elif isinstance(statement, ir.With):
                for item in statement.items:
                    if isinstance(item.target, ir.Name) and len(item.target.path) == 1:
                        entered = self.entered(module, self._statics.expression(module, item.value, local))
                        if isinstance(entered, Opened):
                            entered = Borrowed(entered.type)
                        elif isinstance(entered, Registry) and isinstance(item.value, ir.Call):
                            entered = Borrowed(entered.type)  # `with Scoped() as session` closes it, whosever it is.
                        local[item.target.path[0]] = entered
            elif isinstance(statement, ir.Scope):
                for name in statement.names:
                    local.pop(name, None)
        return local

    def _shaped(self, reference: FunctionRef, path: Path, node: ir.Expr) -> Value:
        """`session = request.registry.sessionmaker()`: a session by the name of what makes it, and by its use."""
        if not isinstance(node, ir.Call) or not shapes.makes_sessions(last_name(node.function)):
            return None
        value = self._shape(reference, path) if self._statics.uses_sqlalchemy(reference.module) else None
        return Opened(value.type) if isinstance(value, Borrowed) else None

    def made_here(self, reference: FunctionRef, target: ir.Expr, value: Value) -> Value:
        """What a function holds in a variable of its own.

        A scoped_session that it only calls, once, goes with the function: what it made is left to whoever got it.
        """
        if not isinstance(value, Registry) or not isinstance(target, ir.Name) or not value.is_unnamed:
            return value
        bodies, body = self._statics.table.bodies, reference.function.body
        if any([isinstance(statement, (ir.Define, ir.Scope)) for statement in bodies.statements(body)]):
            return value  # Somebody else may know it, too.
        uses = [
            each.path for each in bodies.expressions(body) if isinstance(each, ir.Name) and each.path[0] in target.path
        ]
        calls = [call for call in bodies.calls(body) if call.function == target]
        others = [path for path in uses if path != (*target.path, "configure")]
        if len(target.path) > 1 or len(calls) != 1 or others != [target.path] * 2:
            return value
        return Factory(value.type)

    def entered(self, module: Module, value: Value) -> Value:
        """What `with value as x` binds to x, as a static value."""
        if isinstance(value, Manager) and value.reference is not None:
            return self.yielded(value.reference)
        if isinstance(value, Instance):
            for name in ("__enter__", "__aenter__"):
                method = self._statics.table.method(value.reference, name)
                if method is not None:
                    result = self.returned(method)
                    return result if result is not None else value
        return value


def is_asynchronous(value: Value) -> bool:
    return isinstance(value, (Factory, Opened)) and value.type.is_async


def is_twin(value: Value, known: Value) -> bool:
    """Whether it is the same without async: what must be awaited of either is not known, so nothing is asked of it."""
    return isinstance(value, (Factory, Opened)) and type(value) is type(known) and not value.type.is_async
