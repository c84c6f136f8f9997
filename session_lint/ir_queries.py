"""Questions about the IR that are asked all over: what a call is called, which names something binds or mentions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from session_lint import ir

Path = tuple[str, ...]


def words(node: ir.Expr) -> str:
    """An expression in the words of the code, without arguments."""
    if isinstance(node, ir.Name):
        return ".".join(node.path)
    if isinstance(node, ir.Attribute):
        base = node.base
        while isinstance(base, ir.Await):
            base = base.value
        return (
            f"{words(base)}.{node.name}" if isinstance(base, (ir.Name, ir.Attribute, ir.Call)) else f"(...).{node.name}"
        )
    if isinstance(node, ir.Call):
        return f"{words(node.function)}()"
    return "(...)"


def call_text(node: ir.Call) -> str:
    """The call in the words of the code, without its arguments."""
    return f"{words(node.function)}()"


def path_of(node: ir.Expr) -> Path:
    """The dotted path of a name; of an attribute of something else only its last part."""
    if isinstance(node, ir.Name):
        return node.path
    return (node.name,) if isinstance(node, ir.Attribute) else ()


def last_name(node: ir.Expr) -> str:
    """The last part of a dotted name or attribute; "" of everything else."""
    path = path_of(node)
    return path[-1] if path else ""


def uncalled(node: ir.Expr) -> ir.Expr:
    """`task` of `task(bind=True)`, anything else as it is: what a decorator is, with arguments or without."""
    return node.function if isinstance(node, ir.Call) else node


def call_place(node: ir.Expr, default: ir.Place = ir.NOWHERE) -> ir.Place:
    """Where the outermost call of an expression stands."""
    return next((part.place for part in ir.expressions(node) if isinstance(part, ir.Call)), default)


def place_of(statement: ir.Stmt | None) -> ir.Place:
    """Where a statement stands; NOWHERE if there is none."""
    return ir.NOWHERE if statement is None else statement.place


def precedes(place: ir.Place, other: ir.Place) -> bool:
    """Whether what stands at a place is done before the other, loops aside: what it contains is done first."""
    return place <= other and (place == other or not ir.within(other, place))


def makes_calls(node: ir.Expr) -> bool:
    """Whether evaluating the expression calls or awaits anything."""
    return any([isinstance(part, (ir.Call, ir.Await)) for part in ir.expressions(node)])


def names_in(function: ir.Function) -> set[str]:
    """The names that a nested function mentions."""
    return {path[0] for path in paths_in(function)} - {parameter.name for parameter in function.parameters}


def paths_in(function: ir.Function) -> set[tuple[str, ...]]:
    """The dotted names that a function mentions, with those of nested functions that are not their parameters."""
    found: set[tuple[str, ...]] = set()
    for statement in ir.statements(function.body):
        inner = []
        if isinstance(statement, ir.Define) and isinstance(statement.definition, ir.Function):
            inner = [statement.definition]
        else:
            parts = ir.expressions(statement)
            found |= {part.path for part in parts if isinstance(part, ir.Name)}
            inner = [part.function for part in parts if isinstance(part, ir.Lambda)]
        for nested in inner:
            own = {parameter.name for parameter in nested.parameters}
            found |= {path for path in paths_in(nested) if path[0] not in own}
    return found


def attributes_in(function: ir.Function) -> set[str]:
    """The names of all attributes that a function asks for."""
    found: set[str] = set()
    for statement in ir.statements(function.body):
        for part in ir.expressions(statement):
            if isinstance(part, ir.Name) and len(part.path) > 1:
                found.add(part.path[-1])
            elif isinstance(part, ir.Attribute):
                found.add(part.name)
    return found


def bound_names(statement: ir.Stmt, nodes: list[ir.Expr] | None = None) -> Iterator[str]:
    """The plain names that a statement binds. nodes: its own expressions, where they are known already."""
    targets: tuple[ir.Expr | None, ...] = ()
    if isinstance(statement, ir.Assign):
        targets = statement.targets
    elif isinstance(statement, ir.For):
        targets = (statement.target,)
    elif isinstance(statement, ir.With):
        targets = tuple([item.target for item in statement.items])
    elif isinstance(statement, ir.Define):
        yield statement.definition.name
    elif isinstance(statement, ir.Import):
        return
    for target in targets:
        for path in bound_paths(target):
            if len(path) == 1:
                yield path[0]
    for node in own_expressions(statement) if nodes is None else nodes:
        if isinstance(node, ir.Walrus):
            yield node.target.path[0]


def bound_paths(target: ir.Expr | None) -> Iterator[Path]:
    """The dotted paths that a target binds."""
    if isinstance(target, ir.Name):
        yield target.path
    elif isinstance(target, ir.Collection):
        for item in target.items:
            yield from bound_paths(item)
    elif isinstance(target, ir.Opaque):
        for item in target.parts:
            yield from bound_paths(item)


def handled_calls(attempt: ir.Try) -> Iterator[ir.Call]:
    """The calls that the handlers of a `try` make."""
    for handler in attempt.handlers:
        for statement in ir.statements(handler.body):
            for part in ir.expressions(statement):
                if isinstance(part, ir.Call):
                    yield part


def asks_for_autocommit(call: ir.Call) -> bool:
    """Whether a call's arguments set the isolation level AUTOCOMMIT."""
    return any([argument.value == ir.Constant("AUTOCOMMIT") for argument in call.arguments])


def begins_nothing(call: ir.Call) -> bool:
    """`sessionmaker(engine, autocommit=True)`: SQLAlchemy 1 makes sessions of which each statement commits itself."""
    return ir.Argument("autocommit", ir.Constant(True)) in call.arguments


def has_decorator(function: ir.Function, name: str) -> bool:
    """Whether a function has a plain decorator of that name, however it is qualified."""
    return any([isinstance(item, ir.Name) and item.path[-1] == name for item in function.decorators])


def is_abstract(function: ir.Function) -> bool:
    """Whether somebody else says what the function does: it is abstract, or only raises NotImplementedError."""
    if has_decorator(function, "abstractmethod"):
        return True
    only = function.body[-1] if function.body else None
    if not isinstance(only, ir.Raise) or any([not isinstance(item, ir.Expression) for item in function.body[:-1]]):
        return False
    raised = only.exception.function if isinstance(only.exception, ir.Call) else only.exception
    return isinstance(raised, ir.Name) and raised.path[-1] == "NotImplementedError"


def me_of(function: ir.Function) -> str:
    """What a method calls its object, or a class method its class; "" of all other functions."""
    if not function.owner or not function.parameters or has_decorator(function, "staticmethod"):
        return ""
    return function.parameters[0].name


def is_empty(function: ir.Function) -> bool:
    """Whether the body is nothing but `...`, `pass` or a docstring, as in a protocol."""
    return all(
        [
            isinstance(item, ir.Expression) and (item.value == ir.UNKNOWN or isinstance(item.value, ir.Constant))
            for item in function.body
        ]
    )


def is_hook(function: ir.Function) -> bool:
    """Whether a method does nothing, or only gives a constant, so that heirs can say something else."""
    body = function.body
    if not function.owner or len(body) > _DOCSTRING_AND_RESULT or is_abstract(function):
        return False
    if body and isinstance(body[-1], ir.Return) and isinstance(body[-1].value, (ir.Constant, type(None))):
        body = body[:-1]
    return is_empty(function._replace(body=body))


_DOCSTRING_AND_RESULT = 2


def is_endless(loop: ir.While) -> bool:
    """`while True:`, which nothing but a jump leaves."""
    return loop.test in (ir.Constant(True), ir.Constant(1))


def own_expressions(statement: ir.Stmt) -> list[ir.Expr]:
    """The expressions of a statement, without those of the statements in its blocks."""
    found: list[ir.Expr] = []
    for field in statement:
        kind = type(field)
        if kind is tuple:
            for item in field:
                if isinstance(item, ir.Handler):
                    found += ir.expressions(item.type)
                elif isinstance(item, ir.Case):
                    found += ir.expressions(item.guard)
                elif type(item) not in _STATEMENTS:
                    found += ir.expressions(item)
        elif kind not in _STATEMENTS:
            found += ir.expressions(field)
    return found


_STATEMENTS: frozenset[type] = frozenset(get_args(ir.Stmt))


def decorator_name(decorator: ir.Expr) -> str:
    """The last part of what a decorator is called, with or without arguments."""
    while isinstance(decorator, ir.Call):
        decorator = decorator.function
    if isinstance(decorator, ir.Name):
        return decorator.path[-1]
    return decorator.name if isinstance(decorator, ir.Attribute) else ""


def is_property(function: ir.Function) -> bool:
    """Whether asking for the attribute calls the method."""
    return any(
        [decorator_name(decorator) in ("property", "cached_property", "reify") for decorator in function.decorators]
    )
