"""Which scoped sessions the project removes, wherever and whenever that may be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from session_lint import ir
from session_lint.project import shapes

if TYPE_CHECKING:
    from session_lint.project.link import Project

_ANY = ""


class Removals:
    """The names on which `.remove()` is called, or handed on to be called. Worked out when first asked for."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._names: set[str] | None = None

    def of(self, name: str) -> bool:
        """Whether somebody removes the session of a registry of that name, or of one that may be it."""
        if self._names is None:
            self._names = set(self._find())
        return name in self._names or _ANY in self._names

    def _find(self) -> Iterator[str]:
        for module in self._project.table.modules:
            yield from self._removed(module.tree.body)
            for function in module.functions.values():
                yield from self._removed(function.body)

    def _removed(self, body: tuple[ir.Stmt, ...]) -> Iterator[str]:
        for node in self._project.table.bodies.expressions(body):
            if isinstance(node, ir.Lambda):
                yield from self._removed(node.function.body)
            elif isinstance(node, ir.Call) and isinstance(node.function, ir.Attribute):
                # `get_session().remove()`: of a list it would say what to remove.
                if node.function.name == "remove" and not node.arguments:
                    yield _ANY
            elif isinstance(node, ir.Name) and len(node.path) > 1:
                owner, method = node.path[-2:]
                if method == "remove":
                    yield owner
                    if shapes.named_like_session(owner) or "session" in owner.lower():
                        yield _ANY
                elif method == "clear" and owner == "registry":
                    yield _ANY
