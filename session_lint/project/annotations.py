"""Type annotations: what a variable that is declared with one holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from session_lint import ir
from session_lint.findings import Confidence
from session_lint.flow.values import (
    Borrowed,
    ClassValue,
    ContextVariable,
    Dependency,
    Engine,
    Extension,
    ExternalValue,
    Factory,
    Instance,
    Lender,
    Manager,
    Registry,
    SessionClass,
    SessionType,
    Value,
)
from session_lint.project import sqlalchemy_names as names
from session_lint.project.modules import (
    Module,
    VariableRef,
)

if TYPE_CHECKING:
    from session_lint.project.statics import Statics

_GENERATOR_TYPES = ("Generator", "AsyncGenerator", "Iterator", "AsyncIterator", "Iterable", "AsyncIterable")

_MANAGER_TYPES = (
    "AbstractContextManager",
    "AbstractAsyncContextManager",
    "ContextManager",
    "AsyncContextManager",
    "_GeneratorContextManager",
    "_AsyncGeneratorContextManager",
)

_WRAPPERS = ("Optional", "Union", "ClassVar", "Final", "Annotated", "Type", "type", "Awaitable")


class Annotations:
    """Reads the annotations of the project."""

    def __init__(self, statics: Statics) -> None:
        self._statics = statics

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
        symbol = self._statics.table.resolve(module, annotation.path)
        if isinstance(symbol, VariableRef):
            assigned = symbol.assignment.value
            if isinstance(assigned, (ir.Subscript, ir.Name)):
                return self.annotated(symbol.module, assigned, depth + 1)
        value = _instance_of(self._statics.name(module, annotation.path))
        if isinstance(value, Extension):
            value = self._statics.outside.only_extension or value  # The project's own is what one is given.
        return value, None

    def _generic(self, module: Module, node: ir.Subscript, depth: int) -> tuple[Value, Dependency | None]:
        last = node.base.path[-1] if isinstance(node.base, ir.Name) else ""
        if last in _WRAPPERS:
            dependency = None
            for item in node.items[1:]:
                if last == "Annotated" and isinstance(item, ir.Call):
                    found = self._statics.expression(module, item)
                    dependency = found if isinstance(found, Dependency) else dependency
            members = node.items[:1] if last == "Annotated" else node.items
            read = [self.annotated(module, item, depth + 1) for item in members]
            known = [(value, dependency or inner) for value, inner in read if value is not None]
            if known and _is_session(known[0][0], is_async=True):
                # `AsyncSession | Session`: what must be awaited of it is not known, so nothing is asked of it.
                known.sort(key=lambda pair: not _is_session(pair[0], is_async=False))
            return known[0] if known else (None, dependency)
        if last in ("sessionmaker", "async_sessionmaker", "scoped_session", "async_scoped_session"):
            return self.annotated(module, node.base, depth + 1)
        if last == "ContextVar" and node.items:
            held, _ = self.annotated(module, node.items[0], depth + 1)
            return (ContextVariable(("?",), held.type), None) if isinstance(held, Borrowed) else (None, None)
        if last == "Callable" and node.items:
            value, _ = self.annotated(module, node.items[-1], depth + 1)
            if isinstance(value, Borrowed):
                return Factory(names.weaker(value.type, Confidence.LIKELY)), None
            if isinstance(value, Manager):
                return Lender(value), None
        if last in _MANAGER_TYPES and node.items:
            value, _ = self.annotated(module, node.items[0], depth + 1)
            return (Manager("foreign", value), None) if isinstance(value, Borrowed) else (None, None)
        if last not in _GENERATOR_TYPES:
            return self.annotated(module, node.base, depth + 1)
        return None, None

    def yielded(self, module: Module, annotation: ir.Expr | None) -> Value:
        """X of `Generator[X, ...]`, `AsyncIterator[X]` and the like."""
        if not isinstance(annotation, ir.Subscript) or not isinstance(annotation.base, ir.Name):
            return None
        if annotation.base.path[-1] not in _GENERATOR_TYPES or not annotation.items:
            return None
        return self.instance(module, annotation.items[0])


def _is_session(value: Value, *, is_async: bool) -> bool:
    return isinstance(value, Borrowed) and value.type.is_async is is_async


def _instance_of(value: Value) -> Value:
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
