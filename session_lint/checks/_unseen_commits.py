"""Calls that are not followed, and may commit a session that anybody can get hold of."""

from __future__ import annotations

import builtins
import re

from session_lint import ir
from session_lint.checks.context import Context
from session_lint.flow import operations as ops
from session_lint.flow.result import FunctionFlow
from session_lint.flow.values import ClassValue, ExternalValue, Function, Path, Value
from session_lint.ir_queries import last_name, path_of, uncalled
from session_lint.project.modules import FunctionRef

_DEEPEST = 3
"""How many calls deep is looked for what may commit a session that anybody can get hold of."""
_COMMITTING = ("commit", "transaction", "atomic", "session", "unit_of_work", "unitofwork", "uow", "save")
"""What is called so may commit."""
_HARMLESS = ops.QUERY_READS | ops.CALM_METHODS | ops.CONVERSIONS
"""Methods that only ask for rows, or make text, unless one of the project's that commits is called so."""
_ASKING = re.compile(
    r"_*(as|check|current|format|generate|get|has|is|make|parse|render|to|truncate|utc|validate)_(?!or_)"
    r"|\w+_(at|id|json|name|now|path|str|text|url)$|(now|today|utcnow|uuid\d)$"
    r"|(allowed|authorize|can|require|verify)(_\w+)?$"
)
"""How functions are called that only ask or make something, of which nothing is known but that they commit nothing."""
_SCHEMAS = ("schema", "serializ")
"""Modules and classes of the project that are called so, and of which nothing is read, only make or check text."""


def may_commit_around(context: Context, reference: FunctionRef, decorator: ir.Expr) -> bool:
    """Whether a decorator is called as if it committed, or is one of the project's that does."""
    called = uncalled(decorator)
    path = path_of(called)
    if not path or any([word in path[-1].lower() for word in _COMMITTING]):
        return True
    value = context.project.statics.expression(reference.module, called)
    if not isinstance(value, Function):
        return False
    module, made = value.reference
    around = [item for name, item in module.functions.items() if name.startswith(f"{made.qualname}.")]
    return any([context.project.committers.commits(FunctionRef(module, item)) for item in (made, *around)])


def calls_commit(
    context: Context, reference: FunctionRef, depth: int = _DEEPEST, known: frozenset[ir.Place] = frozenset()
) -> bool:
    """Whether a call that is not followed may commit: by its name, or because nothing is known of it.

    known: the places of those that do not.
    """
    flow = context.project.flow(reference)
    if flow is None or flow.unresolved:
        return True
    callees = {handing.place: handing.callee for handing in flow.calls}
    own = {event.place for event in flow.events}
    local = context.project.statics.results.locals(reference)
    for call in context.project.table.bodies.calls(reference.function.body):
        if call.place in callees:
            if depth and calls_commit(context, callees[call.place], depth - 1):
                return True
        elif call.place not in own and call.place not in known and _is_unknown(context, flow, call, local):
            return True
    return False


def _is_unknown(context: Context, flow: FunctionFlow, call: ir.Call, local: dict[str, Value]) -> bool:
    reference = flow.reference
    path = path_of(call.function)
    name = last_name(call.function)
    if len(path) > 1 and (_is_session(flow, path[:-1]) or _is_plain(context, reference, path[0])):
        return False
    value = context.project.statics.expression(reference.module, call.function, local)
    if isinstance(value, ClassValue):
        return False
    if not name or any([word in name.lower() for word in _COMMITTING]) or context.project.committers.named(name):
        return True
    if (name in _HARMLESS and isinstance(call.function, ir.Attribute)) or _ASKING.match(name) or name[0].isupper():
        return False
    if isinstance(value, ExternalValue):
        is_unread = not value.name or context.project.table.is_unread(value.name)
        return is_unread and not any([word in value.name.lower() for word in _SCHEMAS])
    if value is not None or len(path) != 1 or hasattr(builtins, name):
        return False
    return not _is_foreign(context, reference, _root(call.function))


def _root(node: ir.Expr) -> str:
    """The name that a chain of calls begins with: `selectinload(a).joinedload(b)`."""
    while isinstance(node, (ir.Call, ir.Attribute)):
        node = node.function if isinstance(node, ir.Call) else node.base
    return node.path[0] if isinstance(node, ir.Name) else ""


def _is_foreign(context: Context, reference: FunctionRef, name: str) -> bool:
    """Whether it is imported from another package, by the module or by the function itself."""
    imports = dict(reference.module.imports)
    for statement in context.project.table.bodies.statements(reference.function.body):
        imports.update(statement.bindings if isinstance(statement, ir.Import) else ())
    return name in imports and not context.project.table.is_unread(imports[name])


def _is_session(flow: FunctionFlow, path: Path) -> bool:
    """Whether a name means a session of the function: what is called on that has been followed."""
    return any([info.name == ".".join(path) for info in flow.sessions.values()])


def _is_plain(context: Context, reference: FunctionRef, name: str) -> bool:
    """Whether a variable holds nothing but what the function has made of brackets: `changes = {}`."""
    if any([parameter.name == name for parameter in reference.function.parameters]):
        return False
    values = [
        statement.value
        for statement in context.project.table.bodies.statements(reference.function.body)
        if isinstance(statement, ir.Assign) and ir.Name((name,)) in statement.targets
    ]
    return bool(values) and all([isinstance(value, ir.Collection) for value in values])
