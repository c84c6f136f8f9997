"""Decorators of the project: which wrapper a decorated function is called through, and what that hands in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from session_lint import ir
from session_lint.flow.result import LENT
from session_lint.flow.values import Borrowed, Function
from session_lint.ir_queries import path_of
from session_lint.project import shapes
from session_lint.project.modules import FunctionRef, Module

if TYPE_CHECKING:
    from session_lint.project.link import Project

_INJECTING = ("provide_session", "with_session", "transactional", "db_injector", "inject_session", "session_scope")
"""What decorators that can't be seen are called when they fill in a session."""


class Decorators:
    """Reads the project's decorators. Answers are kept."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._wrappers: dict[int, tuple[FunctionRef, ...]] = {}
        self._of_decorator: dict[int, FunctionRef | None] = {}
        self._injected: dict[int, dict[str, FunctionRef | None]] = {}

    def wrappers(self, reference: FunctionRef) -> tuple[FunctionRef, ...]:
        """The functions that stand around a decorated one and work with sessions, the outermost first."""
        key = id(reference.function)
        if key not in self._wrappers:
            self._wrappers[key] = ()  # a decorator that decorates its own wrapper with itself
            found = [self._wrapper(reference.module, decorator) for decorator in reference.function.decorators]
            self._wrappers[key] = tuple([wrapper for wrapper in found if wrapper is not None])
        return self._wrappers[key]

    def _wrapper(self, module: Module, decorator: ir.Expr) -> FunctionRef | None:
        while isinstance(decorator, ir.Call):
            decorator = decorator.function
        value = self._project.statics.expression(module, decorator)
        if not isinstance(value, Function) or value.reference.function.is_generator:
            return None
        key = id(value.reference.function)
        if key not in self._of_decorator:
            self._of_decorator[key] = self._find(value.reference)
        return self._of_decorator[key]

    def _find(self, decorator: FunctionRef) -> FunctionRef | None:
        """The nested function that calls what is decorated, if it has anything to do with sessions."""
        prefix = f"{decorator.function.qualname}."
        for qualname, function in decorator.module.functions.items():
            if qualname.startswith(prefix) and not function.is_generator:
                reference = FunctionRef(decorator.module, function)
                name = decorated_name(self._project, reference)
                around = self._around(reference, name) if name is not None else None
                if around is not None:
                    flow = self._project.flow(around)
                    return around if flow is not None and flow.sessions else None
        return None

    def _around(self, reference: FunctionRef, name: str) -> FunctionRef | None:
        """The function that calls what is decorated: the nested one, or one that it passes it to."""
        wanted = ir.Name((name,))
        for call in self._project.table.bodies.calls(reference.function.body):
            if call.function == wanted:
                return reference
            if any([argument.value == wanted for argument in call.arguments]):
                value = self._project.statics.expression(reference.module, call.function)
                if isinstance(value, Function) and not value.reference.function.is_generator:
                    flow = self._project.flow(value.reference)
                    if flow is not None and any([event.kind == LENT for event in flow.events]):
                        return value.reference
        return None

    def keeps_coroutine(self, module: Module, decorator: ir.Expr) -> bool:
        """Whether a decorator of the project leaves a coroutine function one: what it returns is an `async def`.

        It may return a plain function besides if it asks which of the two it has been given.
        """
        depth = 0
        while isinstance(decorator, ir.Call):
            decorator, depth = decorator.function, depth + 1
        value = self._project.statics.expression(module, decorator)
        if not isinstance(value, Function):
            return False
        made = value.reference
        for _ in range(depth):
            inner = self._returned(made)
            if len(inner) != 1 or inner[0] is None:
                return False
            made = FunctionRef(made.module, inner[0])
        kept = [item is not None and item.is_async and not item.is_generator for item in self._returned(made)]
        asks = any(
            [
                path_of(call.function)[-1:] == ("iscoroutinefunction",)
                for call in self._project.table.bodies.calls(made.function.body)
            ]
        )
        return any(kept) if asks else bool(kept) and all(kept)

    def _returned(self, reference: FunctionRef) -> list[ir.Function | None]:
        """The nested functions that a function returns; None for anything else."""
        module, function = reference
        values: list[ir.Expr | None] = []
        for statement in self._project.table.bodies.statements(function.body):
            if isinstance(statement, ir.Return):
                value = statement.value
                values += [value.then, value.other] if isinstance(value, ir.Conditional) else [value]
        names = [".".join(path_of(value)) if value is not None else "" for value in values]
        return [module.functions.get(f"{function.qualname}.{name}") for name in names]

    def injected(self, reference: FunctionRef) -> dict[str, FunctionRef | None]:
        """The parameters that decorators fill with a session, and the wrapper that does; None if it can't be seen."""
        key = id(reference.function)
        if key not in self._injected:
            self._injected[key] = self._find_injected(reference)
        return self._injected[key]

    def _find_injected(self, reference: FunctionRef) -> dict[str, FunctionRef | None]:
        if not reference.function.decorators:
            return {}
        found: dict[str, FunctionRef | None] = {}
        names = [parameter.name for parameter in reference.function.parameters]
        candidates = [
            parameter.name for parameter in reference.function.parameters if self._may_be_session(reference, parameter)
        ]
        for wrapper in self.wrappers(reference):
            flow = self._project.flow(wrapper)
            for event in flow.events if flow is not None else ():
                if event.kind == LENT:
                    keyword = str(event.detail or "")
                    name = keyword if keyword in names else next(iter(candidates), "")
                    if name:
                        found.setdefault(name, wrapper)
        if not found and candidates and any([_seems_to_inject(item) for item in reference.function.decorators]):
            found[candidates[0]] = None
        return found

    def _may_be_session(self, reference: FunctionRef, parameter: ir.Parameter) -> bool:
        value, dependency = self._project.parameter(reference, parameter)
        if dependency is not None:
            return False
        return isinstance(value, Borrowed) or (value is None and shapes.named_like_session(parameter.name))


def decorated_name(project: Project, reference: FunctionRef) -> str | None:
    """What a function nested in a decorator calls the function that is decorated."""
    enclosing = project.enclosing(reference)
    if enclosing is None or enclosing.function.owner:
        return None
    parameters = [item for item in enclosing.function.parameters if item.kind == "positional"]
    if not parameters or shapes.named_like_session(parameters[0].name):
        return None
    # `def make_tool(session: AsyncSession):` decorates nothing.
    return parameters[0].name if project.parameter(enclosing, parameters[0])[0] is None else None


def _seems_to_inject(decorator: ir.Expr) -> bool:
    while isinstance(decorator, ir.Call):
        decorator = decorator.function
    return isinstance(decorator, ir.Name) and any([word in decorator.path[-1] for word in _INJECTING])
