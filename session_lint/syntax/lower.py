"""LibCST visitors: a module's tree becomes its IR, one method per node type."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import libcst as cst

from session_lint import ir
from session_lint.source.reading import Problem, problem_of
from session_lint.syntax import positions, relevance
from session_lint.syntax.children import children


def lower(text: str, package: str, is_package: bool = False) -> ir.Module:
    """The IR of a module's source.

    package: the module's dotted name, from which relative imports are resolved.

    Raises:
        Problem: neither this Python nor LibCST can parse it, or it is nested too deeply.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff")
    lines = text.split("\n")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except SyntaxError as error:
        if _bracket_depth(text) > _MAX_BRACKETS:
            # LibCST's parser recurses, and would end the process rather than raise.
            raise Problem("is nested too deeply to be analysed", error.lineno or 1) from None
        return _lower_foreign(text, package, is_package, error)
    except (ValueError, RecursionError, MemoryError) as error:
        raise problem_of(error) from None
    try:
        reduced, kept = relevance.reduce(tree, [f"{line}\n" for line in lines])
        _refuse_towers(kept)
        module = cst.parse_module(reduced)
        places = positions.pair(module, kept, lines)
        if not places and kept:
            module, places = positions.generate(cst.parse_module(text))
        functions = text.count("def ") and sum(
            [isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) for node in ast.walk(tree)]
        )
        body = Lowering(places, package, is_package).block(module.body)
    except (RecursionError, MemoryError) as error:
        raise problem_of(error) from None
    except cst.ParserSyntaxError:
        # The reduced text lost something that the whole has.
        return _lower_foreign(text, package, is_package, None)
    return ir.Module(body, len(lines), functions)


_MAX_BRACKETS = 150
_MAX_DEPTH = 800
"""Levels of syntax in one statement: 400 chained calls take LibCST a third of a second, 1,600 take seven."""


def _bracket_depth(text: str) -> int:
    """How deep brackets nest, strings and comments taken for code."""
    depth = deepest = 0
    for bracket in re.findall(r"[()\[\]{}]", text):
        depth = depth + 1 if bracket in "([{" else max(depth - 1, 0)
        deepest = max(deepest, depth)
    return deepest


def _refuse_towers(statements: Sequence[ast.stmt]) -> None:
    """Raises Problem for a statement that is nested deeper than can be parsed in reasonable time."""
    stack: list[tuple[ast.AST, int]] = [(statement, 1) for statement in statements]
    while stack:
        node, depth = stack.pop()
        if depth > _MAX_DEPTH:
            raise Problem("is nested too deeply to be analysed", getattr(node, "lineno", 1))
        stack.extend([(child, depth + 1) for child in ast.iter_child_nodes(node)])


def _lower_foreign(text: str, package: str, is_package: bool, error: SyntaxError | None) -> ir.Module:
    """A file that this Python can't read may be written for a newer one, which LibCST knows."""
    try:
        module, places = positions.generate(cst.parse_module(text))
        body = Lowering(places, package, is_package).block(module.body)
    except cst.ParserSyntaxError as problem:
        raise problem_of(error or problem) from None
    except (RecursionError, MemoryError) as problem:
        raise problem_of(problem) from None
    return ir.Module(body, text.count("\n") + 1, text.count("def "))


_Expression = Callable[[Any, Any], ir.Expr]
_Statement = Callable[[Any, Any], "tuple[ir.Stmt, ...]"]
_EXPRESSIONS: dict[type[cst.CSTNode], _Expression] = {}
_STATEMENTS: dict[type[cst.CSTNode], _Statement] = {}


def _expression(*kinds: type[cst.CSTNode]) -> Callable[[_Expression], _Expression]:
    def register(visit: _Expression) -> _Expression:
        _EXPRESSIONS.update(dict.fromkeys(kinds, visit))
        return visit

    return register


def _statement(*kinds: type[cst.CSTNode]) -> Callable[[_Statement], _Statement]:
    def register(visit: _Statement) -> _Statement:
        _STATEMENTS.update(dict.fromkeys(kinds, visit))
        return visit

    return register


class Lowering:
    """Turns the statements of one module into IR.

    `block` and `expression` dispatch on the node's type to the functions registered below.
    """

    def __init__(self, places: positions.Positions, package: str, is_package: bool) -> None:
        self.places = places
        self.package = package
        self.is_package = is_package
        self.scope: list[str] = []
        self.class_name: str | None = None
        self.yields: list[bool] = []

    # ------------------------------------------------------------------------------------------- dispatch

    def place(self, node: cst.CSTNode) -> ir.Place:
        return self.places.get(id(node), ir.NOWHERE)

    def block(self, body: Sequence[cst.CSTNode] | cst.BaseSuite) -> tuple[ir.Stmt, ...]:
        if isinstance(body, cst.BaseSuite):
            body = body.body
        result: list[ir.Stmt] = []
        for node in body:
            if isinstance(node, cst.SimpleStatementLine):
                for small in node.body:
                    visit = _STATEMENTS.get(type(small))
                    if visit is not None:
                        result.extend(visit(self, small))
            else:
                visit = _STATEMENTS.get(type(node))
                if visit is not None:
                    result.extend(visit(self, node))
        return tuple(result)

    def expression(self, node: cst.CSTNode | None) -> ir.Expr:
        if node is None:
            return ir.UNKNOWN
        visit = _EXPRESSIONS.get(type(node))
        if visit is not None:
            return visit(self, node)
        return self.opaque(children(node))

    def optional(self, node: cst.CSTNode | None) -> ir.Expr | None:
        return None if node is None else self.expression(node)

    def opaque(self, nodes: Any) -> ir.Expr:
        """What is computed from the nodes can't be a session; keep only what happens on the way."""
        parts = [self.expression(node) for node in nodes]
        parts = [part for part in parts if happens(part)]
        return ir.Opaque(tuple(parts)) if parts else ir.UNKNOWN

    def annotation(self, node: cst.Annotation | None) -> ir.Expr | None:
        return None if node is None else self.type(node.annotation)

    def type(self, node: cst.BaseExpression) -> ir.Expr:
        """An annotation; strings are read as the types they name."""
        if isinstance(node, (cst.SimpleString, cst.ConcatenatedString)):
            value = node.evaluated_value
            try:
                return self.type(cst.parse_expression(value)) if isinstance(value, str) else ir.UNKNOWN
            except cst.ParserSyntaxError:
                return ir.UNKNOWN
        if isinstance(node, cst.Subscript):
            items = [element.slice.value for element in node.slice if isinstance(element.slice, cst.Index)]
            return ir.Subscript(self.type(node.value), tuple([self.type(item) for item in items]))
        if isinstance(node, cst.BinaryOperation):  # X | None
            return ir.Subscript(ir.Name(("Union",)), (self.type(node.left), self.type(node.right)))
        return self.expression(node)


def happens(node: ir.Expr) -> bool:
    """Whether evaluating the expression can do anything or names anything."""
    return not isinstance(node, (ir.Constant, ir.Name)) and node != ir.UNKNOWN


# ----------------------------------------------------------------------------------------------- expressions


@_expression(cst.Name)
def _name(_: Lowering, node: cst.Name) -> ir.Expr:
    if node.value in _CONSTANTS:
        return ir.Constant(_CONSTANTS[node.value])
    return ir.Name((node.value,))


_CONSTANTS: dict[str, bool | None] = {"None": None, "True": True, "False": False}


@_expression(cst.Attribute)
def _attribute(self: Lowering, node: cst.Attribute) -> ir.Expr:
    base = self.expression(node.value)
    if isinstance(base, ir.Name):
        return ir.Name((*base.path, node.attr.value))
    return ir.Attribute(base, node.attr.value)


@_expression(cst.Call)
def _call(self: Lowering, node: cst.Call) -> ir.Expr:
    arguments = []
    for argument in node.args:
        name = argument.star or (argument.keyword.value if argument.keyword else None)
        arguments.append(ir.Argument(name, self.expression(argument.value)))
    return ir.Call(self.expression(node.func), tuple(arguments), self.place(node))


@_expression(cst.Await)
def _await(self: Lowering, node: cst.Await) -> ir.Expr:
    return ir.Await(self.expression(node.expression), self.place(node))


@_expression(cst.Yield)
def _yield(self: Lowering, node: cst.Yield) -> ir.Expr:
    if self.yields:
        self.yields[-1] = True
    if isinstance(node.value, cst.From):
        return ir.Yield(self.expression(node.value.item), True, self.place(node))
    return ir.Yield(self.optional(node.value), False, self.place(node))


@_expression(cst.Integer)
def _integer(_: Lowering, node: cst.Integer) -> ir.Expr:
    digits = node.value
    return (
        ir.Constant(int(digits))
        if digits.isdigit() and len(digits) < 10 and digits.lstrip("0") == digits
        else ir.UNKNOWN
    )


@_expression(cst.SimpleString)
def _string(_: Lowering, node: cst.SimpleString) -> ir.Expr:
    # Statements given as text say by their first words whether they write.
    value = node.evaluated_value if len(node.value) < 2000 and "\\" not in node.value else ""
    return ir.Constant(value[:60].strip()) if isinstance(value, str) else ir.UNKNOWN


@_expression(cst.ConcatenatedString)
def _strings(self: Lowering, node: cst.ConcatenatedString) -> ir.Expr:
    return (
        self.expression(node.left) if isinstance(node.left, cst.SimpleString) else self.opaque((node.left, node.right))
    )


@_expression(cst.Tuple, cst.List, cst.Set)
def _collection(self: Lowering, node: cst.Tuple | cst.List | cst.Set) -> ir.Expr:
    return ir.Collection(
        tuple([self.expression(element.value) for element in node.elements]), type(node).__name__.lower()
    )


@_expression(cst.Dict)
def _dict(self: Lowering, node: cst.Dict) -> ir.Expr:
    items = []
    for element in node.elements:
        if isinstance(element, cst.DictElement):
            key = self.expression(element.key)
            if happens(key):
                items.append(key)
        items.append(self.expression(element.value))
    return ir.Collection(tuple(items), "dict")


@_expression(cst.Subscript)
def _subscript(self: Lowering, node: cst.Subscript) -> ir.Expr:
    items = []
    for element in node.slice:
        if isinstance(element.slice, cst.Index):
            items.append(self.expression(element.slice.value))
        else:
            items.append(self.opaque(children(element.slice)))
    return ir.Subscript(self.expression(node.value), tuple(items))


@_expression(cst.IfExp)
def _conditional(self: Lowering, node: cst.IfExp) -> ir.Expr:
    return ir.Conditional(self.expression(node.test), self.expression(node.body), self.expression(node.orelse))


@_expression(cst.BooleanOperation)
def _boolean(self: Lowering, node: cst.BooleanOperation) -> ir.Expr:
    operator = "and" if isinstance(node.operator, cst.And) else "or"
    return ir.Boolean(operator, self.expression(node.left), self.expression(node.right))


@_expression(cst.UnaryOperation)
def _unary(self: Lowering, node: cst.UnaryOperation) -> ir.Expr:
    if isinstance(node.operator, cst.Not):
        return ir.Not(self.expression(node.expression))
    return self.opaque((node.expression,))


_OPERATORS: dict[type[cst.BaseCompOp], str] = {
    cst.Is: "is",
    cst.IsNot: "is not",
    cst.Equal: "==",
    cst.NotEqual: "!=",
}


@_expression(cst.Comparison)
def _comparison(self: Lowering, node: cst.Comparison) -> ir.Expr:
    if len(node.comparisons) == 1:
        target = node.comparisons[0]
        operator = _OPERATORS.get(type(target.operator))
        if operator is not None:
            return ir.Compare(operator, self.expression(node.left), self.expression(target.comparator))
    return self.opaque((node.left, *[target.comparator for target in node.comparisons]))


@_expression(cst.NamedExpr)
def _walrus(self: Lowering, node: cst.NamedExpr) -> ir.Expr:
    target = self.expression(node.target)
    value = self.expression(node.value)
    return ir.Walrus(target, value) if isinstance(target, ir.Name) else value


@_expression(cst.Lambda)
def _lambda(self: Lowering, node: cst.Lambda) -> ir.Expr:
    self.yields.append(False)
    body: tuple[ir.Stmt, ...] = (ir.Return(self.expression(node.body), ir.NOWHERE),)
    self.yields.pop()
    qualname = ".".join([*self.scope, "<lambda>"])
    parameters = _parameters(self, node.params)
    return ir.Lambda(ir.Function("<lambda>", qualname, parameters, None, body, (), False, False, None, ir.NOWHERE))


@_expression(cst.ListComp, cst.SetComp, cst.GeneratorExp)
def _comprehension(self: Lowering, node: cst.ListComp | cst.SetComp | cst.GeneratorExp) -> ir.Expr:
    kind = {cst.ListComp: "list", cst.SetComp: "set"}.get(type(node), "generator")
    return ir.Comprehension(kind, (self.expression(node.elt),), _generators(self, node.for_in))


@_expression(cst.DictComp)
def _dict_comprehension(self: Lowering, node: cst.DictComp) -> ir.Expr:
    elements = (self.expression(node.key), self.expression(node.value))
    return ir.Comprehension("dict", elements, _generators(self, node.for_in))


def _generators(self: Lowering, node: cst.CompFor | None) -> tuple[ir.Generator, ...]:
    result = []
    while node is not None:
        conditions = tuple([self.expression(condition.test) for condition in node.ifs])
        is_async = node.asynchronous is not None
        result.append(ir.Generator(self.expression(node.target), self.expression(node.iter), conditions, is_async))
        node = node.inner_for_in
    return tuple(result)


@_expression(cst.StarredElement)
def _starred(self: Lowering, node: cst.StarredElement) -> ir.Expr:
    return self.opaque((node.value,))


# ------------------------------------------------------------------------------------------------ statements


@_statement(cst.Assign)
def _assign(self: Lowering, node: cst.Assign) -> tuple[ir.Stmt, ...]:
    targets = tuple([self.expression(target.target) for target in node.targets])
    return (ir.Assign(targets, self.expression(node.value), "=", None, self.place(node)),)


@_statement(cst.AnnAssign)
def _annotated(self: Lowering, node: cst.AnnAssign) -> tuple[ir.Stmt, ...]:
    target = (self.expression(node.target),)
    return (ir.Assign(target, self.optional(node.value), "=", self.annotation(node.annotation), self.place(node)),)


@_statement(cst.AugAssign)
def _augmented(self: Lowering, node: cst.AugAssign) -> tuple[ir.Stmt, ...]:
    return (ir.Assign((self.expression(node.target),), self.expression(node.value), "+=", None, self.place(node)),)


@_statement(cst.TypeAlias)
def _type_alias(self: Lowering, node: cst.TypeAlias) -> tuple[ir.Stmt, ...]:
    return (ir.Assign((ir.Name((node.name.value,)),), self.type(node.value), "=", None, self.place(node)),)


@_statement(cst.Expr)
def _expression_statement(self: Lowering, node: cst.Expr) -> tuple[ir.Stmt, ...]:
    value = self.expression(node.value)
    return (ir.Expression(value, self.place(node)),) if happens(value) else ()


@_statement(cst.Return)
def _return(self: Lowering, node: cst.Return) -> tuple[ir.Stmt, ...]:
    return (ir.Return(self.optional(node.value), self.place(node)),)


@_statement(cst.Raise)
def _raise(self: Lowering, node: cst.Raise) -> tuple[ir.Stmt, ...]:
    cause = self.expression(node.cause.item) if node.cause else None
    return (ir.Raise(self.optional(node.exc), cause, self.place(node)),)


@_statement(cst.Break)
def _break(self: Lowering, node: cst.Break) -> tuple[ir.Stmt, ...]:
    return (ir.Break(self.place(node)),)


@_statement(cst.Continue)
def _continue(self: Lowering, node: cst.Continue) -> tuple[ir.Stmt, ...]:
    return (ir.Continue(self.place(node)),)


@_statement(cst.Del)
def _delete(self: Lowering, node: cst.Del) -> tuple[ir.Stmt, ...]:
    target = self.expression(node.target)
    return (ir.Delete(target.items if isinstance(target, ir.Collection) else (target,), self.place(node)),)


@_statement(cst.Assert)
def _assert(self: Lowering, node: cst.Assert) -> tuple[ir.Stmt, ...]:
    return (ir.Assert(self.expression(node.test), self.place(node)),)


@_statement(cst.Global, cst.Nonlocal)
def _scope(self: Lowering, node: cst.Global | cst.Nonlocal) -> tuple[ir.Stmt, ...]:
    return (ir.Scope(tuple([item.name.value for item in node.names]), self.place(node)),)


@_statement(cst.If)
def _if(self: Lowering, node: cst.If) -> tuple[ir.Stmt, ...]:
    orelse: tuple[ir.Stmt, ...] = ()
    if isinstance(node.orelse, cst.If):
        orelse = _if(self, node.orelse)
    elif node.orelse is not None:
        orelse = self.block(node.orelse.body)
    return (ir.If(self.expression(node.test), self.block(node.body), orelse, self.place(node)),)


def _else(self: Lowering, node: cst.Else | None) -> tuple[ir.Stmt, ...]:
    return () if node is None else self.block(node.body)


@_statement(cst.While)
def _while(self: Lowering, node: cst.While) -> tuple[ir.Stmt, ...]:
    test, body = self.expression(node.test), self.block(node.body)
    return (ir.While(test, body, _else(self, node.orelse), self.place(node)),)


@_statement(cst.For)
def _for(self: Lowering, node: cst.For) -> tuple[ir.Stmt, ...]:
    target, iterable, body = self.expression(node.target), self.expression(node.iter), self.block(node.body)
    is_async = node.asynchronous is not None
    return (ir.For(target, iterable, body, _else(self, node.orelse), is_async, self.place(node)),)


@_statement(cst.Try, cst.TryStar)
def _try(self: Lowering, node: cst.Try | cst.TryStar) -> tuple[ir.Stmt, ...]:
    body = self.block(node.body)
    handlers = tuple([_handler(self, handler) for handler in node.handlers])
    final = self.block(node.finalbody.body) if node.finalbody else ()
    is_star = isinstance(node, cst.TryStar)
    return (ir.Try(body, handlers, _else(self, node.orelse), final, is_star, self.place(node)),)


def _handler(self: Lowering, node: cst.ExceptHandler | cst.ExceptStarHandler) -> ir.Handler:
    name = node.name.name.value if node.name is not None and isinstance(node.name.name, cst.Name) else None
    return ir.Handler(self.optional(node.type), name, self.block(node.body), self.place(node))


@_statement(cst.With)
def _with(self: Lowering, node: cst.With) -> tuple[ir.Stmt, ...]:
    items = [
        ir.WithItem(self.expression(item.item), self.expression(item.asname.name) if item.asname else None)
        for item in node.items
    ]
    return (ir.With(tuple(items), self.block(node.body), node.asynchronous is not None, self.place(node)),)


@_statement(cst.Match)
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


@_statement(cst.Import)
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


@_statement(cst.ImportFrom)
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


# ----------------------------------------------------------------------------------------------- definitions


@_statement(cst.FunctionDef)
def _function(self: Lowering, node: cst.FunctionDef) -> tuple[ir.Stmt, ...]:
    decorators = tuple([self.expression(decorator.decorator) for decorator in node.decorators])
    parameters = _parameters(self, node.params)
    owner, self.class_name = self.class_name, None
    self.scope.append(node.name.value)
    self.yields.append(False)
    body = self.block(node.body)
    is_generator = self.yields.pop()
    function = ir.Function(
        name=node.name.value,
        qualname=".".join(self.scope),
        parameters=parameters,
        returns=self.annotation(node.returns),
        body=body,
        decorators=decorators,
        is_async=node.asynchronous is not None,
        is_generator=is_generator,
        owner=owner,
        place=self.place(node),
    )
    self.scope.pop()
    self.class_name = owner
    return (ir.Define(function, function.place),)


def _parameters(self: Lowering, node: cst.Parameters) -> tuple[ir.Parameter, ...]:
    result = []

    def add(parameter: cst.Param, kind: str) -> None:
        annotation = self.annotation(parameter.annotation)
        result.append(ir.Parameter(parameter.name.value, kind, annotation, self.optional(parameter.default)))

    for parameter in (*node.posonly_params, *node.params):
        add(parameter, "positional")
    if isinstance(node.star_arg, cst.Param):
        add(node.star_arg, "*")
    for parameter in node.kwonly_params:
        add(parameter, "keyword")
    if node.star_kwarg is not None:
        add(node.star_kwarg, "**")
    return tuple(result)


@_statement(cst.ClassDef)
def _class(self: Lowering, node: cst.ClassDef) -> tuple[ir.Stmt, ...]:
    decorators = tuple([self.expression(decorator.decorator) for decorator in node.decorators])
    bases = tuple([self.expression(base.value) for base in node.bases])
    outer, self.class_name = self.class_name, ".".join([*self.scope, node.name.value])
    self.scope.append(node.name.value)
    body = self.block(node.body)
    definition = ir.Class(node.name.value, ".".join(self.scope), bases, body, decorators, self.place(node))
    self.scope.pop()
    self.class_name = outer
    return (ir.Define(definition, definition.place),)
