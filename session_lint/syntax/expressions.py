"""Visitors of expressions, one per node type."""

from __future__ import annotations

import libcst as cst

from session_lint import ir
from session_lint.syntax.children import children
from session_lint.syntax.definitions import parameters_of
from session_lint.syntax.lowering import Lowering, happens, visits_expression


@visits_expression(cst.Name)
def _name(_: Lowering, node: cst.Name) -> ir.Expr:
    if node.value in _CONSTANTS:
        return ir.Constant(_CONSTANTS[node.value])
    return ir.Name((node.value,))


_CONSTANTS: dict[str, bool | None] = {"None": None, "True": True, "False": False}


@visits_expression(cst.Attribute)
def _attribute(self: Lowering, node: cst.Attribute) -> ir.Expr:
    base = self.expression(node.value)
    if isinstance(base, ir.Name):
        return ir.Name((*base.path, node.attr.value))
    return ir.Attribute(base, node.attr.value)


@visits_expression(cst.Call)
def _call(self: Lowering, node: cst.Call) -> ir.Expr:
    arguments = []
    for argument in node.args:
        name = argument.star or (argument.keyword.value if argument.keyword else None)
        arguments.append(ir.Argument(name, self.expression(argument.value)))
    return ir.Call(self.expression(node.func), tuple(arguments), self.place(node))


@visits_expression(cst.Await)
def _await(self: Lowering, node: cst.Await) -> ir.Expr:
    return ir.Await(self.expression(node.expression), self.place(node))


@visits_expression(cst.Yield)
def _yield(self: Lowering, node: cst.Yield) -> ir.Expr:
    if self.yields:
        self.yields[-1] = True
    if isinstance(node.value, cst.From):
        return ir.Yield(self.expression(node.value.item), True, self.place(node))
    return ir.Yield(self.optional(node.value), False, self.place(node))


@visits_expression(cst.Integer)
def _integer(_: Lowering, node: cst.Integer) -> ir.Expr:
    digits = node.value
    return (
        ir.Constant(int(digits))
        if digits.isdigit() and len(digits) < 10 and (digits[0] != "0" or digits == "0")
        else ir.UNKNOWN
    )


@visits_expression(cst.SimpleString)
def _string(_: Lowering, node: cst.SimpleString) -> ir.Expr:
    # Statements given as text say by their first words whether they write.
    text = node.value
    if len(text) >= 2000 or "\\" in text:
        return ir.Constant("")
    quote = text[-1]
    begin = text.index(quote)
    if "b" in text[:begin].lower():
        return ir.UNKNOWN
    # LibCST's `evaluated_value` would compile it.
    length = 3 if len(text) - begin >= 6 and text.startswith(quote * 3, begin) else 1
    return ir.Constant(text[begin + length : -length][:60].strip())


@visits_expression(cst.ConcatenatedString)
def _strings(self: Lowering, node: cst.ConcatenatedString) -> ir.Expr:
    return (
        self.expression(node.left) if isinstance(node.left, cst.SimpleString) else self.opaque((node.left, node.right))
    )


@visits_expression(cst.FormattedString)
def _formatted(self: Lowering, node: cst.FormattedString) -> ir.Expr:
    is_text = any([isinstance(part, cst.FormattedStringText) and part.value.strip() for part in node.parts])
    opaque = self.opaque(children(node))
    if is_text and isinstance(opaque, ir.Opaque):
        first = node.parts[0]
        text = first.value if isinstance(first, cst.FormattedStringText) else ""
        # How the URL of a database begins.
        parts = (ir.Constant(text), *opaque.parts) if "://" in text else opaque.parts
        return opaque._replace(parts=parts, is_text=True)
    return opaque


@visits_expression(cst.Tuple, cst.List, cst.Set)
def _collection(self: Lowering, node: cst.Tuple | cst.List | cst.Set) -> ir.Expr:
    items = tuple([self.expression(element.value) for element in node.elements])
    has_star = any([isinstance(element, cst.StarredElement) for element in node.elements])
    return ir.Collection(items, type(node).__name__.lower(), has_star=has_star)


@visits_expression(cst.Dict)
def _dict(self: Lowering, node: cst.Dict) -> ir.Expr:
    items: list[ir.Expr] = []
    keys: list[str | None] = []
    for element in node.elements:
        name = None
        if isinstance(element, cst.DictElement):
            key = self.expression(element.key)
            if happens(key):
                items.append(key)
                keys.append(None)
            elif isinstance(key, ir.Constant) and isinstance(key.value, str) and key.value.isidentifier():
                name = key.value
        items.append(self.expression(element.value))
        keys.append(name)
    return ir.Collection(tuple(items), "dict", tuple(keys))


@visits_expression(cst.Subscript)
def _subscript(self: Lowering, node: cst.Subscript) -> ir.Expr:
    items = []
    for element in node.slice:
        if isinstance(element.slice, cst.Index):
            items.append(self.expression(element.slice.value))
        else:
            items.append(self.opaque(children(element.slice)))
    return ir.Subscript(self.expression(node.value), tuple(items))


@visits_expression(cst.IfExp)
def _conditional(self: Lowering, node: cst.IfExp) -> ir.Expr:
    return ir.Conditional(self.expression(node.test), self.expression(node.body), self.expression(node.orelse))


@visits_expression(cst.BooleanOperation)
def _boolean(self: Lowering, node: cst.BooleanOperation) -> ir.Expr:
    operator = "and" if isinstance(node.operator, cst.And) else "or"
    return ir.Boolean(operator, self.expression(node.left), self.expression(node.right))


@visits_expression(cst.UnaryOperation)
def _unary(self: Lowering, node: cst.UnaryOperation) -> ir.Expr:
    if isinstance(node.operator, cst.Not):
        return ir.Not(self.expression(node.expression))
    return self.opaque((node.expression,))


_OPERATORS: dict[type[cst.BaseCompOp], str] = {
    cst.Is: "is",
    cst.IsNot: "is not",
    cst.Equal: "==",
    cst.NotEqual: "!=",
    cst.In: "in",
    cst.NotIn: "not in",
    cst.LessThan: "<",
    cst.LessThanEqual: "<=",
    cst.GreaterThan: ">",
    cst.GreaterThanEqual: ">=",
}


@visits_expression(cst.Comparison)
def _comparison(self: Lowering, node: cst.Comparison) -> ir.Expr:
    if len(node.comparisons) == 1:
        target = node.comparisons[0]
        operator = _OPERATORS.get(type(target.operator))
        if operator is not None:
            left, right = self.expression(node.left), self.expression(target.comparator)
            is_membership = operator in ("in", "not in")
            constant = left if is_membership else right
            if operator in ("is", "is not", "==", "!=") or isinstance(constant, ir.Constant):
                return ir.Compare(operator, left, right)
            if is_membership and isinstance(left, ir.Name) and _is_of_constants(right):
                return ir.Compare(operator, left, right)
    return self.opaque((node.left, *[target.comparator for target in node.comparisons]))


def _is_of_constants(node: ir.Expr) -> bool:
    """`(200, 404)`"""
    return isinstance(node, ir.Collection) and all([isinstance(item, ir.Constant) for item in node.items])


@visits_expression(cst.NamedExpr)
def _walrus(self: Lowering, node: cst.NamedExpr) -> ir.Expr:
    target = self.expression(node.target)
    value = self.expression(node.value)
    return ir.Walrus(target, value) if isinstance(target, ir.Name) else value


@visits_expression(cst.Lambda)
def _lambda(self: Lowering, node: cst.Lambda) -> ir.Expr:
    self.yields.append(False)
    body: tuple[ir.Stmt, ...] = (ir.Return(self.expression(node.body), ir.NOWHERE),)
    self.yields.pop()
    qualname = ".".join([*self.scope, "<lambda>"])
    parameters = parameters_of(self, node.params)
    return ir.Lambda(ir.Function("<lambda>", qualname, parameters, None, body, (), False, False, None, ir.NOWHERE))


@visits_expression(cst.ListComp, cst.SetComp, cst.GeneratorExp)
def _comprehension(self: Lowering, node: cst.ListComp | cst.SetComp | cst.GeneratorExp) -> ir.Expr:
    kind = {cst.ListComp: "list", cst.SetComp: "set"}.get(type(node), "generator")
    return ir.Comprehension(kind, (self.expression(node.elt),), _generators(self, node.for_in))


@visits_expression(cst.DictComp)
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


@visits_expression(cst.StarredElement)
def _starred(self: Lowering, node: cst.StarredElement) -> ir.Expr:
    return self.opaque((node.value,))
