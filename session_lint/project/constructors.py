"""Constructors: which attribute of an object keeps which argument."""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import NamedTuple

from session_lint import ir
from session_lint.flow.values import Value
from session_lint.ir_queries import last_name
from session_lint.project.modules import (
    ClassRef,
    SymbolTable,
)


class Constructor(NamedTuple):
    """positional: parameter names of a class's `__init__`. fields: which attributes keep which parameter.

    is_unseen: a base class that can't be seen may keep what it is given.
    """

    positional: tuple[str, ...]
    fields: dict[str, tuple[str, ...]]
    is_unseen: bool = False

    def parameter(self, name: str | None, position: int) -> str | None:
        """What an argument is for, by its name or else by its position; None if that is unknown."""
        if name is not None:
            return name
        return self.positional[position] if position < len(self.positional) else None


class Constructors:
    """Reads the `__init__` methods of the project's classes. Answers are kept."""

    def __init__(self, table: SymbolTable) -> None:
        self._table = table
        self._constructors: dict[int, Constructor] = {}

    def of(self, reference: ClassRef) -> Constructor:
        """Which attribute keeps which argument of a class's constructor."""
        key = id(reference.definition)
        if key not in self._constructors:
            self._constructors[key] = Constructor((), {})
            self._constructors[key] = self._read(reference)
        return self._constructors[key]

    def kept(self, reference: ClassRef, given: Iterable[tuple[str | None, Value]]) -> tuple[tuple[str, Value], ...]:
        """What a new object keeps, by its attributes. given: the arguments; None for what is of no interest."""
        given = list(given)
        if all([value is None for _, value in given]):
            return ()
        stored = self.of(reference)
        fields: list[tuple[str, Value]] = []
        position = 0
        for name, value in given:
            parameter = stored.parameter(name, position) or ("?" if stored.is_unseen else None)
            position += name is None
            if parameter is not None and value is not None:
                fields += [(field, value) for field in stored.fields.get(parameter, (parameter,))]
        return tuple(sorted(fields, key=itemgetter(0)))

    def _read(self, reference: ClassRef) -> Constructor:
        method = self._table.method(reference, "__init__")
        if method is None:
            names = [
                target.path[0]
                for statement in reference.definition.body
                if isinstance(statement, ir.Assign) and statement.annotation is not None
                for target in statement.targets
                if isinstance(target, ir.Name)
            ]
            names = names or _of_named_tuple(reference.definition)
            is_unseen = not names and bool(reference.definition.bases)
            return Constructor(tuple(names), {name: (name,) for name in names}, is_unseen)
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
        for base in self._table.bases(reference):
            if isinstance(base, ClassRef):
                inherited = self.of(base)
                for position, argument in enumerate(call.arguments):
                    name = inherited.parameter(argument.name, position)
                    if name is not None and isinstance(argument.value, ir.Name) and len(argument.value.path) == 1:
                        fields.setdefault(argument.value.path[0], []).extend(inherited.fields.get(name, ()))


def _of_named_tuple(definition: ir.Class) -> list[str]:
    """The fields of `class Row(namedtuple("Row", ["id", "name"]))`, which may also be one text: "id name"."""
    for base in definition.bases:
        if isinstance(base, ir.Call) and last_name(base.function) == "namedtuple" and len(base.arguments) > 1:
            given = base.arguments[1].value
            texts = given.items if isinstance(given, ir.Collection) else (given,)
            said = [text.value for text in texts if isinstance(text, ir.Constant) and isinstance(text.value, str)]
            return " ".join(said).replace(",", " ").split() if len(said) == len(texts) else []
    return []
