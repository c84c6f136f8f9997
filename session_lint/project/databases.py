"""Which database the project works with, as far as the URLs in its code say it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from session_lint import ir
from session_lint.ir_queries import last_name
from session_lint.project import sqlalchemy_names as names
from session_lint.project.modules import Module, VariableRef

if TYPE_CHECKING:
    from session_lint.project.link import Project

_MAKERS = frozenset(name.rpartition(".")[2] for name in names.ENGINE_MAKERS)


def is_only_sqlite(project: Project) -> bool:
    """Whether every engine of the project, tests aside, gets a URL that begins with `sqlite`.

    SQLite aborts no transaction when a statement fails: a failed read leaves the session as it was.
    """
    urls = [url for module in project.table.modules if not module.is_short_lived for url in _urls(project, module)]
    return bool(urls) and all([url.startswith("sqlite") for url in urls])


def _urls(project: Project, module: Module) -> Iterator[str]:
    """How the URL of each engine that a module makes begins; "" where that can't be seen."""
    for part in project.expressions(module):
        if isinstance(part, ir.Call) and last_name(part.function) in _MAKERS:
            given = [argument.value for argument in part.arguments if argument.name in (None, "url")]
            yield _beginning(project, module, given[0]) if given else ""


def _beginning(project: Project, module: Module, node: ir.Expr | None) -> str:
    if isinstance(node, ir.Name):
        symbol = project.table.resolve(module, node.path)
        if not isinstance(symbol, VariableRef):
            return ""
        module, node = symbol.module, symbol.assignment.value
    if isinstance(node, ir.Call) and isinstance(node.function, ir.Attribute) and node.function.name == "format":
        node = node.function.base
    if isinstance(node, ir.Opaque) and node.parts:
        node = node.parts[0]
    return node.value if isinstance(node, ir.Constant) and isinstance(node.value, str) else ""
