"""Which variables are read again: what a dead one holds need not be told apart.

States that differ in nothing but such values are one state. Without this, every loop and branch that binds a variable
doubles the states of all that follows.
"""

from __future__ import annotations

import sys

from session_lint import ir
from session_lint.flow.state import States
from session_lint.flow.values import (
    Answer,
    ClassValue,
    Const,
    ExternalValue,
    Instance,
    Literal,
    Loaded,
    ModuleValue,
    Path,
    Truth,
    Value,
)
from session_lint.ir_queries import me_of, names_in
from session_lint.project.bodies import Bodies

Position = tuple[int, int]

_BEGINNING: Position = (0, 0)
_END: Position = (sys.maxsize, 0)


class Liveness:
    """The variables of one function."""

    def __init__(self, bodies: Bodies, function: ir.Function, local_names: set[str]) -> None:
        self._bodies = bodies
        self._function = function
        self._local_names = local_names
        self._last: dict[Path, Position] | None = None
        self._loops: list[ir.Place] = []

    def forget(self, states: States, statement: ir.Stmt) -> States:
        """The states after a statement, without the plain values that nothing behind it reads."""
        if self._last is None:
            self._last, self._loops = _last_reads(self._bodies, self._function)
        start, end = statement.place[:2], statement.place[2:]
        if any([loop[:2] < start and end == loop[2:] for loop in self._loops]):
            # The last statement of a loop's body: the next turn comes after it.
            end = start
        dead = [
            [path for path, value in state.variables.items() if self._is_dead(path, value, end)] for state in states
        ]
        if not any(dead):
            return states
        left = States()
        for state, paths in zip(states, dead, strict=True):
            left.add(state.forget(paths) if paths else state)
        return left

    def _is_dead(self, path: Path, value: Value, end: Position) -> bool:
        assert self._last is not None
        # Of an attribute only an answer is kept, which matters where the attribute itself is asked for again.
        last = self._last.get(path if isinstance(value, Truth) else path[:1], _BEGINNING)
        return last <= end and path[0] in self._local_names and _is_plain(value)


def _is_plain(value: Value) -> bool:
    """Whether it holds no session, and nothing that makes one: those who hold one decide who loses it."""
    return isinstance(value, _PLAIN) and not (isinstance(value, Instance) and value.fields)


ASKED = 2
"""So many names long are the paths whose answers are kept: a variable, or an attribute of one."""

_SUPER: Path = ("super",)
"""A call of it reads the method's first parameter, which it does not name."""

_PLAIN = (Const, Truth, Literal, Answer, Instance, Loaded, ClassValue, ExternalValue, ModuleValue)


def _last_reads(bodies: Bodies, function: ir.Function) -> tuple[dict[Path, Position], list[ir.Place]]:
    """Where each variable, and each of its attributes, is read for the last time, and the loops.

    In a loop that is the loop's end, because the next turn reads it again.
    """
    found: dict[Path, Position] = {}
    loops: list[ir.Place] = []
    loop: Position = (0, 0)
    for statement, nodes in bodies.parts(function.body):
        end = statement.place[2:]
        if isinstance(statement, (ir.For, ir.While)):
            loop = max(loop, end)
            loops.append(statement.place)
        end = max(end, loop) if statement.place[:2] < loop else end
        if isinstance(statement, ir.Define):
            # It may be called from anywhere behind.
            names = names_in(statement.definition) if isinstance(statement.definition, ir.Function) else set()
            found.update(dict.fromkeys([(name,) for name in names], _END))
        bound: tuple[ir.Expr, ...] = ()
        if isinstance(statement, ir.Assign) and statement.operator == "=":
            bound = statement.targets
        elif isinstance(statement, ir.For):
            bound = (statement.target,)
        for node in nodes:
            if any([node is target for target in bound]):
                continue
            if isinstance(node, ir.Name):
                for length in range(1, min(len(node.path), ASKED) + 1):
                    path = node.path[:length]
                    found[path] = max(found.get(path, end), end)
            elif isinstance(node, ir.Opaque):
                for path in node.reads:
                    found[path[:1]] = max(found.get(path[:1], end), end)
            elif isinstance(node, ir.Lambda):
                found.update(dict.fromkeys([(name,) for name in names_in(node.function)], _END))
    if _SUPER in found:
        me = (me_of(function),)
        found[me] = max(found.get(me, _BEGINNING), found[_SUPER])
    return found, loops
