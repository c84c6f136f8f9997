"""Visitors of statements, one per node type."""

from __future__ import annotations

import libcst as cst

from session_lint import ir
from session_lint.syntax.children import children
from session_lint.syntax.lowering import Lowering, happens, visits_statement


@visits_statement(cst.Assign)
def _assign(self: Lowering, node: cst.Assign) -> tuple[ir.Stmt, ...]:
    targets = tuple([self.expression(target.target) for target in node.targets])
    return (ir.Assign(targets, self.expression(node.value), "=", None, self.place(node)),)


@visits_statement(cst.AnnAssign)
def _annotated(self: Lowering, node: cst.AnnAssign) -> tuple[ir.Stmt, ...]:
    target = (self.expression(node.target),)
    return (ir.Assign(target, self.optional(node.value), "=", self.annotation(node.annotation), self.place(node)),)


@visits_statement(cst.AugAssign)
def _augmented(self: Lowering, node: cst.AugAssign) -> tuple[ir.Stmt, ...]:
    return (ir.Assign((self.expression(node.target),), self.expression(node.value), "+=", None, self.place(node)),)


@visits_statement(cst.TypeAlias)
def _type_alias(self: Lowering, node: cst.TypeAlias) -> tuple[ir.Stmt, ...]:
    return (ir.Assign((ir.Name((node.name.value,)),), self.type(node.value), "=", None, self.place(node)),)


@visits_statement(cst.Expr)
def _expression_statement(self: Lowering, node: cst.Expr) -> tuple[ir.Stmt, ...]:
    value = self.expression(node.value)
    return (ir.Expression(value, self.place(node)),) if happens(value) else ()


@visits_statement(cst.Return)
def _return(self: Lowering, node: cst.Return) -> tuple[ir.Stmt, ...]:
    return (ir.Return(self.optional(node.value), self.place(node)),)


@visits_statement(cst.Raise)
def _raise(self: Lowering, node: cst.Raise) -> tuple[ir.Stmt, ...]:
    cause = self.expression(node.cause.item) if node.cause else None
    return (ir.Raise(self.optional(node.exc), cause, self.place(node)),)


@visits_statement(cst.Break)
def _break(self: Lowering, node: cst.Break) -> tuple[ir.Stmt, ...]:
    return (ir.Break(self.place(node)),)


@visits_statement(cst.Continue)
def _continue(self: Lowering, node: cst.Continue) -> tuple[ir.Stmt, ...]:
    return (ir.Continue(self.place(node)),)


@visits_statement(cst.Del)
def _delete(self: Lowering, node: cst.Del) -> tuple[ir.Stmt, ...]:
    target = self.expression(node.target)
    return (ir.Delete(target.items if isinstance(target, ir.Collection) else (target,), self.place(node)),)


@visits_statement(cst.Assert)
def _assert(self: Lowering, node: cst.Assert) -> tuple[ir.Stmt, ...]:
    return (ir.Assert(self.expression(node.test), self.place(node)),)


@visits_statement(cst.Global, cst.Nonlocal)
def _scope(self: Lowering, node: cst.Global | cst.Nonlocal) -> tuple[ir.Stmt, ...]:
    return (ir.Scope(tuple([item.name.value for item in node.names]), self.place(node)),)


@visits_statement(cst.If)
def _if(self: Lowering, node: cst.If) -> tuple[ir.Stmt, ...]:
    orelse: tuple[ir.Stmt, ...] = ()
    if isinstance(node.orelse, cst.If):
        orelse = _if(self, node.orelse)
    elif node.orelse is not None:
        orelse = self.block(node.orelse.body)
    return (ir.If(self.expression(node.test), self.block(node.body), orelse, self.place(node)),)


def _else(self: Lowering, node: cst.Else | None) -> tuple[ir.Stmt, ...]:
    return () if node is None else self.block(node.body)


@visits_statement(cst.While)
def _while(self: Lowering, node: cst.While) -> tuple[ir.Stmt, ...]:
    test, body = self.expression(node.test), self.block(node.body)
    return (ir.While(test, body, _else(self, node.orelse), self.place(node)),)


@visits_statement(cst.For)
def _for(self: Lowering, node: cst.For) -> tuple[ir.Stmt, ...]:
    target, iterable, body = self.expression(node.target), self.expression(node.iter), self.block(node.body)
    is_async = node.asynchronous is not None
    return (ir.For(target, iterable, body, _else(self, node.orelse), is_async, self.place(node)),)


@visits_statement(cst.Try, cst.TryStar)
def _try(self: Lowering, node: cst.Try | cst.TryStar) -> tuple[ir.Stmt, ...]:
    body = self.block(node.body)
    handlers = tuple([_handler(self, handler) for handler in node.handlers])
    final = self.block(node.finalbody.body) if node.finalbody else ()
    is_star = isinstance(node, cst.TryStar)
    return (ir.Try(body, handlers, _else(self, node.orelse), final, is_star, self.place(node)),)


def _handler(self: Lowering, node: cst.ExceptHandler | cst.ExceptStarHandler) -> ir.Handler:
    name = node.name.name.value if node.name is not None and isinstance(node.name.name, cst.Name) else None
    return ir.Handler(self.optional(node.type), name, self.block(node.body), self.place(node))


@visits_statement(cst.With)
def _with(self: Lowering, node: cst.With) -> tuple[ir.Stmt, ...]:
    items = [
        ir.WithItem(self.expression(item.item), self.expression(item.asname.name) if item.asname else None)
        for item in node.items
    ]
    return (ir.With(tuple(items), self.block(node.body), node.asynchronous is not None, self.place(node)),)


@visits_statement(cst.Match)
def _match(self: Lowering, node: cst.Match) -> tuple[ir.Stmt, ...]:
    cases = []
    for case in node.cases:
        pattern = case.pattern
        irrefutable = isinstance(pattern, cst.MatchAs) and pattern.pattern is None and case.guard is None
        names = tuple(_bound(pattern))
        cases.append(ir.Case(names, self.optional(case.guard), irrefutable, self.block(case.body)))
    return (ir.Match(self.expression(node.subject), tuple(cases), self.place(node)),)


def _bound(node: cst.CSTNode) -> list[str]:
    """The names that a pattern binds."""
    names = []
    if isinstance(node, (cst.MatchAs, cst.MatchStar)) and isinstance(node.name, cst.Name):
        names.append(node.name.value)
    if isinstance(node, cst.MatchMapping) and isinstance(node.rest, cst.Name):
        names.append(node.rest.value)
    for child in children(node):
        names.extend(_bound(child))
    return names


@visits_statement(cst.Import)
def _import(self: Lowering, node: cst.Import) -> tuple[ir.Stmt, ...]:
    bindings = []
    for alias in node.names:
        dotted = _dotted(alias.name)
        if alias.asname is not None and isinstance(alias.asname.name, cst.Name):
            bindings.append((alias.asname.name.value, dotted))
        else:
            top = dotted.split(".")[0]
            bindings.append((top, top))
    return (ir.Import(tuple(bindings), self.place(node)),)


@visits_statement(cst.ImportFrom)
def _import_from(self: Lowering, node: cst.ImportFrom) -> tuple[ir.Stmt, ...]:
    module = _absolute(self, len(node.relative), _dotted(node.module) if node.module else "")
    if isinstance(node.names, cst.ImportStar):
        return (ir.Import((("*", module),), self.place(node)),)
    bindings = []
    for alias in node.names:
        name = _dotted(alias.name)
        local = alias.asname.name.value if alias.asname and isinstance(alias.asname.name, cst.Name) else name
        bindings.append((local, f"{module}.{name}" if module else name))
    return (ir.Import(tuple(bindings), self.place(node)),)


def _dotted(node: cst.BaseExpression) -> str:
    if isinstance(node, cst.Attribute):
        return f"{_dotted(node.value)}.{node.attr.value}"
    return node.value if isinstance(node, cst.Name) else ""


def _absolute(self: Lowering, dots: int, module: str) -> str:
    """The dotted name of a possibly relative import."""
    if not dots:
        return module
    parts = self.package.split(".") if self.package else []
    up = dots - 1 if self.is_package else dots
    parts = parts[: len(parts) - up] if up <= len(parts) else []
    return ".".join([*parts, module] if module else parts)
