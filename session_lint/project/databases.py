"""Which database the project works with, as far as the URLs in its code say it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from session_lint import ir
from session_lint.ir_queries import last_name
from session_lint.project import sqlalchemy_names as names
from session_lint.project.bodies import Body
from session_lint.project.modules import Module, VariableRef

if TYPE_CHECKING:
    from session_lint.project.link import Project

_MAKERS = frozenset(name.rpartition(".")[2] for name in names.ENGINE_MAKERS)
_FORGIVING = ("sqlite", "mysql", "mariadb")


def aborts_transactions(project: Project) -> bool:
    """Whether a statement that fails may abort its transaction: not if every URL, tests aside, is of one that doesn't.

    SQLite and MySQL (InnoDB) take back the statement alone, and what was written before it is committed with what
    comes after. A deadlock in MySQL takes back everything, and says so in its error only.
    """
    urls = [url for module in project.table.modules if not module.is_short_lived for url in _urls(project, module)]
    return not urls or not all([url.startswith(_FORGIVING) for url in urls])


def _urls(project: Project, module: Module) -> Iterator[str]:
    """How the URL of each engine that a module makes begins; "" where that can't be seen."""
    bodies = project.table.bodies
    for body in project.bodies(module):
        for part in bodies.expressions(body):
            if isinstance(part, ir.Call) and last_name(part.function) in _MAKERS:
                given = [argument.value for argument in part.arguments if argument.name in (None, "url")]
                yield from _beginnings(project, module, body, given[0]) if given else ("",)


def _beginnings(project: Project, module: Module, body: Body, node: ir.Expr) -> Iterator[str]:
    """Of all that a variable or attribute is given there, but for what it begins with: None or ""."""
    if isinstance(node, ir.Name):
        around = [body] if len(node.path) == 1 else project.bodies(module)
        given = [
            statement.value
            for each in around
            for statement in project.table.bodies.statements(each)
            if isinstance(statement, ir.Assign) and node in statement.targets and not _is_nothing(statement.value)
        ]
        if given:
            yield from [_beginning(value) for value in given]
            return
        symbol = project.table.resolve(module, node.path)
        yield _beginning(symbol.assignment.value if isinstance(symbol, VariableRef) else None)
        return
    yield _beginning(node)


def _is_nothing(value: ir.Expr | None) -> bool:
    return value is None or (isinstance(value, ir.Constant) and not value.value)


def _beginning(node: ir.Expr | None) -> str:
    if isinstance(node, ir.Call) and isinstance(node.function, ir.Attribute) and node.function.name == "format":
        node = node.function.base
    if isinstance(node, ir.Opaque) and node.parts:
        node = node.parts[0]
    return node.value if isinstance(node, ir.Constant) and isinstance(node.value, str) else ""
