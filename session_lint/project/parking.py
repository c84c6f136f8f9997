"""Sessions that are put into an object of somebody else (`request.state.db = ...`): who reads and who closes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from session_lint import ir
from session_lint.flow.operations import CLOSING_WORDS
from session_lint.ir_queries import last_name, own_expressions, path_of, words
from session_lint.project.modules import FunctionRef

if TYPE_CHECKING:
    from session_lint.project.link import Project

_CLOSING = frozenset("close aclose remove dispose close_all closing aclosing enter_context enter_async_context".split())
_ASKING = frozenset("get pop getattr hasattr setdefault".split())


def key_of(target: ir.Expr) -> str:
    """The name under which an assignment's target is found again: `db` of `request.state.db` and of `context["db"]`."""
    if isinstance(target, ir.Name):
        return target.path[-1] if len(target.path) > 1 else ""
    return _constant(target.items[0]) if isinstance(target, ir.Subscript) and len(target.items) == 1 else ""


def shown(target: ir.Expr) -> str:
    """The target in the words of the code."""
    return f'{words(target.base)}["{key_of(target)}"]' if isinstance(target, ir.Subscript) else words(target)


def _constant(node: ir.Expr) -> str:
    return node.value if isinstance(node, ir.Constant) and isinstance(node.value, str) else ""


class Parking:
    """Goes by the name alone: in whose object it is, and when, can't be seen. Answers are kept."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._users: dict[str, tuple[list[FunctionRef | None], list[FunctionRef]]] = {}
        self._closed: set[str] | None = None

    def is_closed(self, key: str) -> bool:
        """Whether some function mentions the name and closes something."""
        return bool(self._of(key)[0])

    def is_closed_by_others(self, key: str, reference: FunctionRef) -> bool:
        """Whether a function other than this one does."""
        return any([closer is None or closer.function is not reference.function for closer in self._of(key)[0]])

    def is_closed_under(self, name: str) -> bool:
        """Whether somebody closes something that is an attribute of that name, or hands it to what closes it."""
        if self._closed is None:
            self._closed = {key for _, body, _ in self._bodies() for key in self._closed_in(body)}
        return name in self._closed

    def _closed_in(self, body: tuple[ir.Stmt, ...]) -> Iterator[str]:
        bodies = self._project.table.bodies
        closed = []
        for call in bodies.calls(body):
            if _is_closing(call):
                closed.append(path_of(call.function)[:-1])
            if any([word in last_name(call.function).lower() for word in CLOSING_WORDS]):
                closed += [path_of(argument.value) for argument in call.arguments]
        for statement in bodies.statements(body):
            if isinstance(statement, ir.With):
                closed += [path_of(item.value) for item in statement.items]
            elif isinstance(statement, ir.Assign) and any([path_of(target) in closed for target in statement.targets]):
                closed.append(path_of(statement.value or ir.UNKNOWN))  # `session = self.session; ... session.close()`
        yield from [path[-1] for path in closed if len(path) > 1]

    def readers(self, key: str) -> list[FunctionRef]:
        """The functions that mention it, but for those that only put something there."""
        return self._of(key)[1]

    def says(self, reference: FunctionRef, text: str) -> bool:
        """Whether a function calls it by these very words: other objects may have something of the same name."""
        nodes = self._project.table.bodies.expressions(reference.function.body)
        return any([isinstance(node, (ir.Name, ir.Subscript)) and shown(node).startswith(text) for node in nodes])

    def _of(self, key: str) -> tuple[list[FunctionRef | None], list[FunctionRef]]:
        """Who closes something where the name is mentioned (None: a module), and who mentions it."""
        if key not in self._users:
            closers: list[FunctionRef | None] = []
            readers: list[FunctionRef] = []
            for reference, body, packed in self._bodies():
                if any([_mentions(node, key, packed) for node in self._read(body)]):
                    closers += [reference] if self._closes(body, key, packed) else []
                    readers += [reference] if reference is not None else []
            self._users[key] = (closers, readers)
        return self._users[key]

    def _bodies(self) -> Iterator[tuple[FunctionRef | None, tuple[ir.Stmt, ...], str]]:
        for module in self._project.table.modules:
            yield None, module.tree.body, ""
            for reference in self._project.functions(module):
                # `**kwargs` is a dict of the function's own.
                packed = [item.name for item in reference.function.parameters if item.kind == "**"]
                yield reference, reference.function.body, packed[0] if packed else ""

    def _read(self, body: tuple[ir.Stmt, ...]) -> Iterator[ir.Expr]:
        """The expressions of a body that nothing is assigned to."""
        for statement, nodes in self._project.table.bodies.parts(body):
            targets = statement.targets if isinstance(statement, ir.Assign) else ()
            yield from [node for node in nodes if not any([node is target for target in targets])]

    def _closes(self, body: tuple[ir.Stmt, ...], key: str, packed: str) -> bool:
        bodies = self._project.table.bodies
        for statement in bodies.statements(body):
            if isinstance(statement, ir.With):
                parts = [part for item in statement.items for part in ir.expressions(item.value)]
                if any([_mentions(part, key, packed) for part in parts]):
                    return True
        return any([_is_closing(call) for call in bodies.calls(body)])


def _is_closing(call: ir.Call) -> bool:
    """`session.remove()`, and not `users.remove(user)`."""
    name = last_name(call.function)
    return name in _CLOSING and not (name == "remove" and call.arguments)


def _mentions(node: ir.Expr, key: str, packed: str) -> bool:
    if isinstance(node, ir.Name):
        return key in node.path[1:]
    if isinstance(node, ir.Attribute):
        return node.name == key
    if isinstance(node, ir.Subscript):
        return key_of(node) == key and (not packed or path_of(node.base) != (packed,))
    if isinstance(node, ir.Call):
        is_asking = last_name(node.function) in _ASKING and (not packed or path_of(node.function)[:1] != (packed,))
        return is_asking and any([_constant(argument.value) == key for argument in node.arguments])
    if isinstance(node, ir.Lambda):
        return any([_mentions(part, key, packed) for item in node.function.body for part in own_expressions(item)])
    return False
