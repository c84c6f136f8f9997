"""How long the objects of a class live, by where they are made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from session_lint import ir
from session_lint.flow.values import ClassValue, Path
from session_lint.ir_queries import decorator_name, has_decorator, last_name, me_of, path_of
from session_lint.project.modules import ClassRef, External, Module, Symbol
from session_lint.project.results import CACHED

if TYPE_CHECKING:
    from session_lint.project.link import Project

CALL = "call"  # nobody but the function that makes the object has it, or FastAPI makes one per call
PROGRAM = "program"  # the same in `main`: what ends it ends the program
PROCESS = "process"  # a module, a class, the application or an object that lives as long keeps it
UNSEEN = "unseen"  # it is handed on to somebody, or kept by an object of which nothing is known

APPLICATIONS = ("app", "application")
"""What the object that lives as long as the process is called, in `app.state`."""

_NEUTRAL = frozenset({"abc", "object", "typing", "typing_extensions", "builtins"})
"""Where the bases come from that say nothing of who makes objects."""


class Making(NamedTuple):
    """A place where an object of a class is made. maker: who makes it. life: one of the constants. given: arguments."""

    module: Module
    maker: str
    place: ir.Place
    life: str
    given: tuple[ir.Argument, ...] = ()


class _Site(NamedTuple):
    module: Module
    function: ir.Function | None
    statement: ir.Stmt
    call: ir.Call
    calls: list[ir.Call]


class Lifetimes:
    """Finds where classes are called. Answers are kept."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._sites: dict[str, list[_Site]] | None = None
        self._makings: dict[int, list[Making]] = {}

    def makings(self, reference: ClassRef) -> list[Making]:
        """Where objects of the class are made, or of one that inherits from it."""
        key = id(reference.definition)
        if key not in self._makings:
            self._makings[key] = []  # an object that keeps one of its own kind says nothing
            self._makings[key] = [*self._by_fastapi(reference), *self._by_calls(reference)]
        return self._makings[key]

    def outlives_calls(self, reference: ClassRef) -> bool:
        """Whether some object of the class lives as long as the process."""
        return any([making.life == PROCESS for making in self.makings(reference)])

    def is_for_a_call(self, reference: ClassRef) -> bool:
        """Whether an object of the class, as far as it is seen, is used for one call and then dropped."""
        makings = self.makings(reference)
        if makings:
            return any([making.life in (CALL, PROGRAM) for making in makings])
        return any([self._is_framework(symbol) for symbol in self._project.table.ancestors(reference)])

    def _is_framework(self, symbol: Symbol) -> bool:
        """Whether objects of a class that inherits from it may be made by somebody who is not seen."""
        return (
            isinstance(symbol, External)
            and symbol.name.partition(".")[0] not in _NEUTRAL
            and not self._project.table.is_unread(symbol.name)
        )

    def _by_fastapi(self, reference: ClassRef) -> Iterator[Making]:
        constructor = self._project.table.method(reference, "__init__")
        for user, _, _ in self._project.dependencies.users(constructor) if constructor is not None else ():
            yield Making(user.module, f"FastAPI, for every call of {user.function.name},", user.function.place, CALL)

    def _by_calls(self, reference: ClassRef) -> Iterator[Making]:
        names = {heir.definition.name for heir in (reference, *self._project.table.heirs(reference))}
        for name in sorted(names):
            for site in self._called(name):
                if site.module.is_short_lived:
                    continue
                value = self._project.statics.expression(site.module, site.call.function)
                if isinstance(value, ClassValue) and reference in self._project.table.ancestors(value.reference):
                    maker = site.function.name if site.function is not None else site.module.name
                    yield Making(site.module, maker, site.call.place, self._life(site), site.call.arguments)

    def _called(self, name: str) -> list[_Site]:
        if self._sites is None:
            self._sites = {}
            for module in self._project.table.modules:
                for function in (None, *module.functions.values()):
                    for site in self._sites_in(module, function):
                        self._sites.setdefault(last_name(site.call.function), []).append(site)
        return self._sites.get(name, [])

    def _sites_in(self, module: Module, function: ir.Function | None) -> Iterator[_Site]:
        body = function.body if function is not None else module.tree.body
        for statement, nodes in self._project.table.bodies.parts(body):
            calls = [node for node in nodes if isinstance(node, ir.Call)]
            for call in calls:
                if last_name(call.function)[:1].isupper():
                    yield _Site(module, function, statement, call, calls)

    # ---------------------------------------------------------------------------------------------- judgement

    def _life(self, site: _Site) -> str:
        if any([argument.value == site.call for other in site.calls for argument in other.arguments]):
            return UNSEEN
        if site.function is None:
            return PROCESS if isinstance(site.statement, ir.Assign) else UNSEEN
        if any([decorator_name(each) in CACHED for each in site.function.decorators]):
            return PROCESS
        ours = PROGRAM if site.function.name == "main" else CALL
        if isinstance(site.statement, ir.Assign):
            lives = {self._life_of(path_of(target), site, site.function) or ours for target in site.statement.targets}
            return PROCESS if PROCESS in lives else lives.pop() if len(lives) == 1 else UNSEEN
        is_used = isinstance(site.statement, ir.Return) and site.statement.value != site.call
        return ours if is_used or isinstance(site.statement, ir.Expression) else UNSEEN

    def _life_of(self, path: Path, site: _Site, function: ir.Function) -> str:
        """How long what an assignment in a function fills keeps its value; "" if it is a local variable."""
        statements = self._project.table.bodies.statements(function.body)
        if path and path[0] in {name for item in statements if isinstance(item, ir.Scope) for name in item.names}:
            return PROCESS
        if len(path) == 1:
            return UNSEEN if any([_hands_out(statement, path) for statement in statements]) else ""
        if len(path) >= 3 and path[-2] == "state" and path[-3] in APPLICATIONS:
            return PROCESS
        holder = site.module.classes.get(function.owner or "")
        if holder is None or len(path) != 2 or path[0] != me_of(function):
            return UNSEEN
        if has_decorator(function, "classmethod"):
            return PROCESS
        held = ClassRef(site.module, holder)
        return PROCESS if self.outlives_calls(held) else CALL if self.is_for_a_call(held) else UNSEEN


def _hands_out(statement: ir.Stmt, path: Path) -> bool:
    """Whether a local variable's object is returned or put somewhere."""
    if isinstance(statement, (ir.Return, ir.Assign)) and path_of(statement.value or ir.UNKNOWN) == path:
        return isinstance(statement, ir.Return) or any([len(path_of(target)) != 1 for target in statement.targets])
    return False
