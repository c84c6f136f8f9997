"""Answers: what a function says about itself with what it returns, such as `False, "no such user"`."""

from __future__ import annotations

from session_lint import ir
from session_lint.flow.values import Answer, Const, Items, Literal, Truth, Value

_WORD = 20
"""So long are the texts that are compared with others; longer ones are messages."""

_ANSWERS = (Const, Truth, Literal, Answer)
COMPARING = ("in", "not in", "<", "<=", ">", ">=")
"""What only answers are asked."""


def answer_in(value: Value) -> Value:
    """The value, if it is one that a caller can test."""
    return value if isinstance(value, _ANSWERS) else None


def said(node: ir.Expr | None, value: Value) -> Value:
    """What an expression is worth: its value, or what can be said of the constants in it."""
    if isinstance(node, ir.Constant) and value is None:
        return literal(node)
    if isinstance(node, ir.Opaque) and node.is_text:
        return Truth(True)
    if isinstance(node, ir.Call) and value is None and node.function in _TEXTS:
        return Truth(True)
    if isinstance(node, ir.Collection):
        return _said_by_display(node, value) if value is None or isinstance(value, Items) else value
    return value


def literal(node: ir.Constant) -> Value:
    """A constant. Of a message only is known that there is one."""
    value = node.value
    if value is None or isinstance(value, bool):
        return Const(value)
    if isinstance(value, str) and (len(value) > _WORD or not value.isidentifier()):
        return Truth(True) if value else None
    return Literal(value)


def _said_by_display(node: ir.Collection, value: Value) -> Value:
    if node.kind == "dict":
        is_whole = None not in node.keys
        pairs = [(key, item) for key, item in zip(node.keys, node.items, strict=True) if key is not None]
        # `{"ok": False, **more}`: more may hold another "ok".
        return Answer(tuple([(key, said(item, None) if is_whole else None) for key, item in pairs]), is_whole)
    if node.kind == "list" and not node.items:
        return Answer((), True)
    if node.kind != "tuple":
        return value
    items = value.items if isinstance(value, Items) else (None,) * len(node.items)
    if not all([item is None or isinstance(item, _ANSWERS) for item in items]):
        return value
    parts = [said(item, held) for item, held in zip(node.items, items, strict=True)]
    return Answer(tuple(enumerate(parts)), True)


_TEXTS = (ir.Name(("str",)), ir.Name(("repr",)))


def compared(node: ir.Compare, value: Value) -> bool | None:
    """Whether `"key" in value`, `value in (1, 2)`, `value < 1` and the like hold."""
    if node.operator in ("in", "not in") and isinstance(node.right, ir.Collection):
        if not isinstance(value, (Const, Literal)) or node.right.kind == "dict":
            return None
        items = [item.value for item in node.right.items if isinstance(item, ir.Constant)]
        return (value.value in items) is (node.operator == "in")
    if node.operator in ("in", "not in"):
        key = literal(node.left) if isinstance(node.left, ir.Constant) else None
        if not isinstance(key, Literal) or not isinstance(value, Answer):
            return None
        found = value.holds(key.value)
        return None if found is None else found is (node.operator == "in")
    limit = node.right.value if isinstance(node.right, ir.Constant) else None
    if not isinstance(value, Literal) or not isinstance(value.value, int) or not isinstance(limit, int):
        return None
    number = value.value
    return {"<": number < limit, "<=": number <= limit, ">": number > limit, ">=": number >= limit}[node.operator]
