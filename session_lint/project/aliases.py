"""One session under two names: `self.users = Users(self.db)`, so `self.users.db` is `self.db`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from session_lint import ir
from session_lint.flow.values import ClassValue, Path
from session_lint.ir_queries import is_property, me_of
from session_lint.project.modules import ClassRef, FunctionRef

if TYPE_CHECKING:
    from session_lint.project.link import Project


class _Part(NamedTuple):
    """An object that another one makes and keeps. same: which attribute of it is which of the other's."""

    reference: ClassRef
    same: dict[str, str]


class Aliases:
    """Finds the objects that objects make of what they keep themselves. Answers are kept."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._parts: dict[tuple[int, str], _Part | None] = {}
        self._begun: dict[tuple[int, str], tuple[str, bool] | None] = {}

    def shortest(self, owner: ClassRef, path: Path) -> Path:
        """The shortest name of what an attribute path of an object means: ("users", "db") is ("db",)."""
        if len(path) < 2:
            return path
        part = self._part(owner, path[0])
        if part is None:
            return path
        rest = self.shortest(part.reference, path[1:])
        return (part.same[rest[0]],) if len(rest) == 1 and rest[0] in part.same else (path[0], *rest)

    def is_made(self, owner: ClassRef, attribute: str) -> bool:
        """Whether the object itself makes what it keeps there, so that what that was made of is known."""
        return self._part(owner, attribute) is not None

    def begun(self, owner: ClassRef, attribute: str) -> tuple[str, bool] | None:
        """The attribute with the session or connection whose begin() has given this one; whether it is a savepoint."""
        key = (id(owner.definition), attribute)
        if key not in self._begun:
            made = {self._begun_on(owner, method, value) for method, value in self._values(owner, attribute)}
            self._begun[key] = made.pop() if len(made) == 1 else None
        return self._begun[key]

    def _part(self, owner: ClassRef, attribute: str) -> _Part | None:
        key = (id(owner.definition), attribute)
        if key not in self._parts:
            self._parts[key] = None
            made = [self._made(owner, method, value) for method, value in self._values(owner, attribute)]
            first = made[0] if made else None
            self._parts[key] = first if all([part == first for part in made]) else None
        return self._parts[key]

    def _values(self, owner: ClassRef, attribute: str) -> Iterator[tuple[FunctionRef, ir.Expr]]:
        """What the attribute is given, or what a property of that name returns; None as a beginning is left out."""
        for symbol in self._project.table.ancestors(owner):
            if not isinstance(symbol, ClassRef):
                continue
            for function in symbol.module.functions.values():
                if function.owner != symbol.definition.qualname:
                    continue
                method = FunctionRef(symbol.module, function)
                is_asked = function.name == attribute and is_property(function)
                for statement in self._project.table.bodies.statements(function.body):
                    if isinstance(statement, ir.Return):
                        value = statement.value if is_asked else None
                    elif isinstance(statement, ir.Assign):
                        is_given = ir.Name((me_of(function), attribute)) in statement.targets
                        value = statement.value if is_given else None
                    else:
                        continue
                    if value is not None and value != ir.Constant(None):
                        yield method, value

    def _made(self, owner: ClassRef, method: FunctionRef, value: ir.Expr) -> _Part | None:
        me = me_of(method.function)
        if isinstance(value, ir.Name) and len(value.path) == 2 and value.path[0] == me:
            return self._part(owner, value.path[1])
        if not isinstance(value, ir.Call):
            return None
        called = self._project.statics.expression(method.module, value.function)
        if not isinstance(called, ClassValue):
            return None
        stored = self._project.constructors.of(called.reference)
        same: dict[str, str] = {}
        for position, argument in enumerate(value.arguments):
            name = stored.parameter(argument.name, position)
            path = argument.value.path if isinstance(argument.value, ir.Name) else ()
            ours = self._kept_as(owner, method, path)
            if ours:
                same.update(dict.fromkeys(stored.fields.get(name or "", ()), ours))
        return _Part(called.reference, same)

    def _begun_on(self, owner: ClassRef, method: FunctionRef, value: ir.Expr) -> tuple[str, bool] | None:
        """`self.connection.begin()`, or that of a parameter which the object keeps."""
        call = value.value if isinstance(value, ir.Await) else value
        path = call.function.path if isinstance(call, ir.Call) and isinstance(call.function, ir.Name) else ()
        if path[-1:] not in (("begin",), ("begin_nested",)):
            return None
        attribute = self._kept_as(owner, method, path[:-1])
        return (attribute, path[-1] == "begin_nested") if attribute else None

    def _kept_as(self, owner: ClassRef, method: FunctionRef, path: Path) -> str:
        """The attribute that a path means in a method; "" if it is none."""
        if len(path) == 2 and path[0] == me_of(method.function):
            return path[1]
        kept = self._project.constructors.of(owner).fields if method.function.name == "__init__" else {}
        found = kept.get(path[0], ()) if len(path) == 1 else ()
        return found[0] if found else ""
