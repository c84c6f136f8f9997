"""Call sites: what untyped parameters are given by those who call the function.

Only asked for parameters without an annotation, and only if nothing else says what they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from session_lint import ir
from session_lint.findings import Confidence
from session_lint.flow.values import Borrowed, Function, Instance, Opened, Value
from session_lint.ir_queries import decorator_name, path_of
from session_lint.project.modules import FunctionRef
from session_lint.project.sqlalchemy_names import weaker

if TYPE_CHECKING:
    from session_lint.project.statics import Statics

_MAX_SITES = 40
"""A function that is called from more places than this has a name that many functions have."""


class CallSites:
    """All calls of the project by the name of what they call. Answers are kept."""

    def __init__(self, statics: Statics) -> None:
        self._statics = statics
        self._sites: dict[str, list[tuple[FunctionRef, ir.Call]]] | None = None
        self._given: dict[tuple[int, str], Value] = {}

    def given(self, reference: FunctionRef, parameter: str) -> Value:
        """What every call that says it gives the parameter: a session, or an object of one class."""
        key = (id(reference.function), parameter)
        if key not in self._given:
            self._given[key] = None  # recursion says nothing
            self._given[key] = self._find(reference, parameter)
        return self._given[key]

    def _find(self, reference: FunctionRef, parameter: str) -> Value:
        found: Value = None
        for caller, call in self._of(reference.function.name):
            value = _typed(self._argument(reference, parameter, caller, call))
            if value is None:
                continue
            if found is not None and found != value:
                return None
            found = value
        return found

    def _of(self, name: str) -> list[tuple[FunctionRef, ir.Call]]:
        if self._sites is None:
            self._sites = {}
            for module in self._statics.table.modules:
                for function in module.functions.values():
                    self._collect(FunctionRef(module, function), self._sites)
        sites = self._sites.get(name, [])
        return sites if len(sites) <= _MAX_SITES else []

    def _collect(self, reference: FunctionRef, sites: dict[str, list[tuple[FunctionRef, ir.Call]]]) -> None:
        for call in self._statics.table.bodies.calls(reference.function.body):
            path = path_of(call.function) if call.arguments else ()
            if path:
                sites.setdefault(path[-1], []).append((reference, call))

    def _argument(self, reference: FunctionRef, parameter: str, caller: FunctionRef, call: ir.Call) -> Value:
        local = self._statics.results.locals(caller)
        callee = self._statics.expression(caller.module, call.function, local)
        if not isinstance(callee, Function) or callee.reference != reference:
            return None
        names = [item.name for item in reference.function.parameters if item.kind == "positional"]
        decorators = [decorator_name(item) for item in reference.function.decorators]
        if callee.receiver is not None or "classmethod" in decorators:
            names = names[1:]
        for position, argument in enumerate(call.arguments):
            if argument.name == parameter or (
                argument.name is None and position < len(names) and names[position] == parameter
            ):
                return self._statics.expression(caller.module, argument.value, local)
        return None


def _typed(value: Value) -> Value:
    """What a parameter that gets the value can be said to be."""
    if isinstance(value, (Borrowed, Opened)):
        return Borrowed(weaker(value.type, Confidence.LIKELY))
    return Instance(value.reference, (), ()) if isinstance(value, Instance) else None
