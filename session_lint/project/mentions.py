"""Who may call a function, by the words of the code alone.

To know who calls a function, its callers' flows have to be worked out; to judge one file, those of the whole project
would be too many. A function is found by its name, so only what mentions the name can call it, as long as the name is
used for nothing but calls. Where it is handed on (`run(save)`, `store = save`), anybody may.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from session_lint import ir
from session_lint.ir_queries import Path, is_property, last_name
from session_lint.project.modules import ClassRef, FunctionRef, Module, SymbolTable, VariableRef

_PROVIDING = ("Depends", "Security")
"""The framework calls what these are given."""

_PASSING = ("partial", "cast", "wraps", "cached", "contextmanager", "asynccontextmanager")
"""What calling these gives is what they were given, or does the same."""

_SOMETHING = ""
"""Stands in a path for an expression that is no name: `get()` in `get().save`."""


class Mentions:
    """The words by which a project's functions call each other. Collected when first asked for."""

    def __init__(self, table: SymbolTable) -> None:
        self._table = table
        self._collected = False
        self._calling: dict[str, dict[FunctionRef, set[Path]]] = {}
        self._reading: dict[str, dict[FunctionRef, None]] = {}
        self._renamed: dict[FunctionRef, dict[str, None]] = {}
        self._handed_on: set[str | FunctionRef] = set()
        """Functions, and names of which nobody knows what they mean."""

    def callers(self, reference: FunctionRef) -> list[FunctionRef] | None:
        """All functions that may call one, and perhaps some that do not; None if anybody may."""
        if not self._collected:
            self._collected = True
            for module in self._table.modules:
                self._collect(module)
        name = reference.function.name
        names = [name, *self._renamed.get(reference, ())]
        found = {
            caller: None
            for each in names
            for caller, paths in self._calling.get(each, {}).items()
            if any([self._may_mean(path, caller, reference) for path in paths])
        }
        if is_property(reference.function):
            return [*found, *self._reading.get(name, ())]
        # Python calls __enter__ and its like without a word. Attributes of objects are no functions of modules.
        is_member = "." in reference.function.qualname and not self._handed_on.isdisjoint(names)
        if name.startswith("__") or is_member or reference in self._handed_on:
            return None
        return list(found)

    def _may_mean(self, path: Path, caller: FunctionRef, reference: FunctionRef) -> bool:
        """Whether a dotted name in a function may mean another one."""
        if path[0] == _SOMETHING or any([path[0] in self._own_names(each) for each in self._around(caller)]):
            return True
        for length in range(len(path), 0, -1):
            symbol = self._table.resolve(caller.module, path[:length])
            if isinstance(symbol, FunctionRef) and length == len(path):
                return symbol == reference
            if symbol is None or isinstance(symbol, (FunctionRef, ClassRef, VariableRef)):
                return True
        return False  # All of it comes from outside, or from a module that has no such name.

    def _own_names(self, reference: FunctionRef) -> set[str]:
        function = reference.function
        return {parameter.name for parameter in function.parameters} | self._table.bodies.bound(function.body)

    def _around(self, reference: FunctionRef) -> list[FunctionRef]:
        """The function, and those around it."""
        module, function = reference
        parts = function.qualname.split(".")
        names = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
        return [FunctionRef(module, module.functions[name]) for name in names if name in module.functions]

    # ------------------------------------------------------------------------------------------ collecting

    def _collect(self, module: Module) -> None:
        for local, dotted in module.imports.items():
            symbol = self._table.resolve(module, (local,)) if dotted.rpartition(".")[2] != local else None
            if isinstance(symbol, FunctionRef):
                self._renamed.setdefault(symbol, {})[local] = None
        self._read(self._table.bodies.expressions(module.tree.body), _Reader(module))
        for definition in module.classes.values():
            self._read(self._table.bodies.expressions(definition.body), _Reader(module))
            self._read([part for item in definition.decorators for part in ir.expressions(item)], _Reader(module))
        for function in module.functions.values():
            around = self._around(FunctionRef(module, function))
            own = [self._own_names(each) - self._defined(each.function) for each in around]
            reader = _Reader(module, tuple(around), frozenset().union(*own))
            self._read(self._table.bodies.expressions(function.body), reader)
            heads = [part for each in function.parameters for part in (each.annotation, each.default)]
            outside = [part for item in (*function.decorators, *heads) for part in ir.expressions(item)]
            self._read(outside, _Reader(module))

    def _defined(self, function: ir.Function) -> set[str]:
        """The functions and classes in a function."""
        found = self._table.bodies.statements(function.body)
        return {statement.definition.name for statement in found if isinstance(statement, ir.Define)}

    def _read(self, nodes: Iterable[ir.Expr], reader: _Reader) -> None:
        """Note what expressions call and what else they mention."""
        nodes = list(nodes)
        called: set[int] = set()
        for node in nodes:
            if isinstance(node, ir.Call):
                called.add(id(node.function))
                if not self._may_keep(node.function, reader):
                    called.update([id(argument.value) for argument in node.arguments])
            elif isinstance(node, ir.Collection) and node.kind != "tuple":
                called.update([id(item) for item in node.items])  # Of these nobody knows what they hold.
        for node in nodes:
            paths: Iterable[Path] = ()
            if isinstance(node, ir.Name):
                paths = (node.path,)
            elif isinstance(node, ir.Attribute):
                paths = ((_SOMETHING, node.name),)
            elif isinstance(node, ir.Opaque):
                paths = node.reads
            elif isinstance(node, ir.Lambda):
                own = reader.local.union([parameter.name for parameter in node.function.parameters])
                self._read(self._table.bodies.expressions(node.function.body), reader._replace(local=own))
            for path in paths:
                if id(node) in called:
                    self._calls(path, reader)
                else:
                    self._mentions(path, reader)

    def _may_keep(self, function: ir.Expr, reader: _Reader) -> bool:
        """Whether a call gives back what it is given, or an object that keeps it."""
        name = last_name(function)
        if name in _PASSING or name[:1].isupper():
            return name not in _PROVIDING
        if not isinstance(function, ir.Name) or function.path[0] in reader.local:
            return False
        return isinstance(self._table.resolve(reader.module, function.path), (ClassRef, VariableRef))

    def _calls(self, path: Path, reader: _Reader) -> None:
        for caller in reader.around:
            self._calling.setdefault(path[-1], {}).setdefault(caller, set()).add(path)
            for name in path[:-1]:  # `save.delay(book)`
                self._calling.setdefault(name, {}).setdefault(caller, set()).add((_SOMETHING,))

    def _mentions(self, path: Path, reader: _Reader) -> None:
        for caller in reader.around:
            for name in path:
                self._reading.setdefault(name, {}).setdefault(caller, None)
        if len(path) == 1 and path[0] in reader.local:
            return
        known = path[0] != _SOMETHING and path[0] not in reader.local
        symbol = self._table.resolve(reader.module, path) if known else None
        if symbol is None:
            self._handed_on.add(path[-1])
        elif isinstance(symbol, FunctionRef):
            self._handed_on.add(symbol)


class _Reader(NamedTuple):
    """Where expressions stand. around: the functions that run them. local: their variables."""

    module: Module
    around: tuple[FunctionRef, ...] = ()
    local: frozenset[str] = frozenset()
