"""SQL statements as values: whether what is executed changes rows."""

from __future__ import annotations

from session_lint import ir
from session_lint.ir_queries import (
    path_of,
    words,
)
from session_lint.project import sqlalchemy_names as names


class SqlStatements:
    """Tells the statements of one function that change rows from those that only read."""

    def __init__(self, function: ir.Function) -> None:
        self._function = function
        self._names: frozenset[str] | None = None
        self._selecting: dict[str, ir.Expr] | None = None

    def changes_rows(self, statement: ir.Expr) -> bool:
        """Whether a statement that is executed changes rows."""
        if isinstance(statement, ir.Constant):
            first = str(statement.value).split(" ", 1)[0].lower()
            return first in ("insert", "update", "delete", "truncate", "merge", "create", "drop", "alter")
        if isinstance(statement, ir.Call):
            said = words(statement.function).split(".")
            if said[-1] in ("text", "TextClause") and statement.arguments:
                return self.changes_rows(statement.arguments[0].value)
            if said[0] in self._changing_names() or any([word in names.WRITING_STATEMENTS for word in said]):
                return True
            base = statement.function
            while isinstance(base, (ir.Attribute, ir.Call)):
                base = base.base if isinstance(base, ir.Attribute) else base.function
                if isinstance(base, ir.Name) and base.path[-1] in names.WRITING_STATEMENTS:
                    return True
            return isinstance(base, ir.Name) and self.changes_rows(base)
        if isinstance(statement, ir.Name) and len(statement.path) == 1:
            return statement.path[0] in self._changing_names()
        return False

    def ends_transaction(self, statement: ir.Expr) -> str | None:
        """Which of COMMIT and ROLLBACK a statement is, if it is one of these as text."""
        if isinstance(statement, ir.Call) and path_of(statement.function)[-1:] == ("text",) and statement.arguments:
            statement = statement.arguments[0].value
        said = str(statement.value).upper().strip(" ;\n") if isinstance(statement, ir.Constant) else None
        return said if said in ("COMMIT", "ROLLBACK") else None

    def selected(self, statement: ir.Expr) -> ir.Expr | None:
        """The class of the mapped objects that a statement gives: `select(User).where(...)`. None of columns."""
        while isinstance(statement, (ir.Attribute, ir.Call)):
            if isinstance(statement, ir.Attribute):
                statement = statement.base
                continue
            last = path_of(statement.function)[-1:]
            if last == ("select",):
                asked = statement.arguments[0].value if len(statement.arguments) == 1 else None
                return asked if asked is not None and names_class(asked) else None
            if last and last[0] in _OF_COLUMNS:
                return None
            statement = statement.function
        return self._selecting_names().get(statement.path[0]) if isinstance(statement, ir.Name) else None

    def _selecting_names(self) -> dict[str, ir.Expr]:
        """Local variables that hold nothing but SELECTs of mapped objects, and the class of those."""
        if self._selecting is None:
            self._selecting = {}
            given: dict[str, list[ir.Expr | None]] = {}
            for statement in ir.statements(self._function.body):
                if isinstance(statement, ir.Assign) and statement.value is not None:
                    for target in statement.targets:
                        if isinstance(target, ir.Name) and len(target.path) == 1:
                            # `query = query.where(...)` says nothing that the first assignment did not say.
                            grows = words(statement.value).startswith(f"{target.path[0]}.")
                            if not grows or not _OF_COLUMNS.isdisjoint(words(statement.value).split(".")):
                                given.setdefault(target.path[0], []).append(self.selected(statement.value))
            for name, classes in given.items():
                if None not in classes:
                    first = classes[0]
                    self._selecting[name] = first if first is not None and len(set(classes)) == 1 else ir.UNKNOWN
        return self._selecting

    def _changing_names(self) -> frozenset[str]:
        """Local variables that hold an INSERT, UPDATE or DELETE."""
        if self._names is None:
            self._names = frozenset()
            found = set()
            for statement in ir.statements(self._function.body):
                if isinstance(statement, ir.Assign) and statement.value is not None:
                    for target in statement.targets:
                        if not isinstance(target, ir.Name) or not isinstance(statement.value, ir.Call):
                            continue
                        # `query = query.where(...)` says nothing that the first assignment did not say.
                        grows = target.path[0] in words(statement.value.function).split(".")
                        if not grows and self.changes_rows(statement.value):
                            found.add(target.path[0])
            self._names = frozenset(found)
        return self._names


_OF_COLUMNS = frozenset({"with_only_columns", "add_columns", "subquery", "cte"})
_CLASSES = frozenset("cls model _model model_class _model_class".split())
"""What a mapped class is called where code works with any."""


def names_class(node: ir.Expr) -> bool:
    """Whether an expression names a class, going by how classes are written."""
    if not isinstance(node, ir.Name):
        return False
    last = node.path[-1]
    return last in _CLASSES or (last[:1].isupper() and not last.isupper())
