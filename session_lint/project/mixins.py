"""What a mixin calls and does not have: the classes that are made with it inherit that from somebody else."""

from __future__ import annotations

from session_lint import ir
from session_lint.project.modules import ClassRef, External, FunctionRef, SymbolTable


class Mixins:
    """Answers are kept."""

    def __init__(self, table: SymbolTable) -> None:
        self._table = table
        self._methods: dict[tuple[int, str], FunctionRef | None] = {}

    def method(self, reference: ClassRef, name: str) -> FunctionRef | None:
        """The method that all classes with a mixin have, which has none of that name; None if it is not a single one.

        One that calls what it overrides does that and more: it is no other one.
        """
        key = (id(reference.definition), name)
        if key not in self._methods:
            bases = {symbol.name for symbol in self._table.ancestors(reference) if isinstance(symbol, External)}
            heirs = [heir for heir in self._table.heirs(reference) if not heir.module.is_trial]
            found = {self._table.method(heir, name) for heir in heirs if bases <= {"object"}} - {None}
            plain = [method for method in found if method is not None and not self._extends(method)]
            self._methods[key] = plain[0] if len(plain) == 1 else None
        return self._methods[key]

    def _extends(self, method: FunctionRef) -> bool:
        """`def save(self): ...; super().save()`"""
        called = [call.function for call in self._table.bodies.calls(method.function.body)]
        return any(
            [
                isinstance(function, ir.Attribute)
                and function.name == method.function.name
                and isinstance(function.base, ir.Call)
                and function.base.function == ir.Name(("super",))
                for function in called
            ]
        )
