"""The intermediate representation: what the analysis keeps of a module.

It is Python with everything left out that can't matter to a session: expressions keep their calls, names and
control flow, literals keep what a branch can test. It says what the code does, not what it means: whether
`db.commit()` commits a transaction depends on what `db` is, which other files may decide, so that question is
answered when the project is linked, and a file's IR depends on nothing but the file and can be cached.

All nodes are named tuples: immutable, cheap to build, and they turn into plain tuples for the cache.
"""

from __future__ import annotations

from typing import NamedTuple, Union

Place = tuple[int, int, int, int]
"""First line, first column, last line, column after the end; all 1-based. (0, 0, 0, 0) is nowhere."""

NOWHERE: Place = (0, 0, 0, 0)


# ---------------------------------------------------------------------------------------------- expressions


class Name(NamedTuple):
    """A dotted access path: `db`, `self.session`, `request.state.db`."""

    path: tuple[str, ...]


class Attribute(NamedTuple):
    """An attribute of something that has no name: `Session(engine).no_autoflush`."""

    base: Expr
    name: str


class Argument(NamedTuple):
    """name: the keyword, "*" or "**" for unpacked ones, None if positional."""

    name: str | None
    value: Expr


class Call(NamedTuple):
    function: Expr
    arguments: tuple[Argument, ...]
    place: Place


class Await(NamedTuple):
    value: Expr
    place: Place


class Constant(NamedTuple):
    """None, True, False, an int or a short string; other literals are `Opaque`."""

    value: bool | int | str | None


class Collection(NamedTuple):
    """A tuple, list, set or dict display; of a dict the values.

    keys: of a dict the names by which the items are found, None where it may be any. has_star: an item stands for as
    many as it has itself: `[*rows]`.
    """

    items: tuple[Expr, ...]
    kind: str
    keys: tuple[str | None, ...] = ()
    has_star: bool = False


class Subscript(NamedTuple):
    base: Expr
    items: tuple[Expr, ...]


class Conditional(NamedTuple):
    """`then if test else other`."""

    test: Expr
    then: Expr
    other: Expr


class Boolean(NamedTuple):
    """operator: "and" or "or"."""

    operator: str
    left: Expr
    right: Expr


class Not(NamedTuple):
    value: Expr


class Compare(NamedTuple):
    """A comparison of two operands; chains become `Opaque`, and `in` and `<` unless constants are compared with."""

    operator: str
    left: Expr
    right: Expr


class Walrus(NamedTuple):
    target: Name
    value: Expr


class Yield(NamedTuple):
    value: Expr | None
    is_from: bool
    place: Place


class Generator(NamedTuple):
    """One `for ... in ... if ...` of a comprehension."""

    target: Expr
    iterable: Expr
    conditions: tuple[Expr, ...]
    is_async: bool


class Comprehension(NamedTuple):
    """kind: "list", "set", "dict" or "generator" (which runs later)."""

    kind: str
    elements: tuple[Expr, ...]
    generators: tuple[Generator, ...]


class Lambda(NamedTuple):
    function: Function


class Opaque(NamedTuple):
    """Anything else: its parts are evaluated, its value is unknown.

    reads: the attributes that it only reads. is_text: it is a text that is not empty.
    """

    parts: tuple[Expr, ...]
    reads: tuple[tuple[str, ...], ...] = ()
    is_text: bool = False


Expr = Union[  # noqa: UP007 - its classes refer to it, which `|` can not do on Python 3.10
    Name,
    Attribute,
    Call,
    Await,
    Constant,
    Collection,
    Subscript,
    Conditional,
    Boolean,
    Not,
    Compare,
    Walrus,
    Yield,
    Comprehension,
    Lambda,
    Opaque,
]

UNKNOWN = Opaque(())

# ----------------------------------------------------------------------------------------------- statements


class Assign(NamedTuple):
    """operator: "=" or an augmented one such as "+="; annotation only for annotated targets."""

    targets: tuple[Expr, ...]
    value: Expr | None
    operator: str
    annotation: Expr | None
    place: Place


class Expression(NamedTuple):
    value: Expr
    place: Place


class Return(NamedTuple):
    value: Expr | None
    place: Place


class Raise(NamedTuple):
    exception: Expr | None
    cause: Expr | None
    place: Place


class Break(NamedTuple):
    place: Place


class Continue(NamedTuple):
    place: Place


class Delete(NamedTuple):
    targets: tuple[Expr, ...]
    place: Place


class Assert(NamedTuple):
    test: Expr
    place: Place


class If(NamedTuple):
    test: Expr
    body: tuple[Stmt, ...]
    orelse: tuple[Stmt, ...]
    place: Place


class While(NamedTuple):
    test: Expr
    body: tuple[Stmt, ...]
    orelse: tuple[Stmt, ...]
    place: Place


class For(NamedTuple):
    target: Expr
    iterable: Expr
    body: tuple[Stmt, ...]
    orelse: tuple[Stmt, ...]
    is_async: bool
    place: Place


class Handler(NamedTuple):
    """type: None for a bare `except:`."""

    type: Expr | None
    name: str | None
    body: tuple[Stmt, ...]
    place: Place


class Try(NamedTuple):
    body: tuple[Stmt, ...]
    handlers: tuple[Handler, ...]
    orelse: tuple[Stmt, ...]
    final: tuple[Stmt, ...]
    is_star: bool
    place: Place


class WithItem(NamedTuple):
    value: Expr
    target: Expr | None


class With(NamedTuple):
    items: tuple[WithItem, ...]
    body: tuple[Stmt, ...]
    is_async: bool
    place: Place


class Case(NamedTuple):
    """names: what the pattern binds. irrefutable: it always matches."""

    names: tuple[str, ...]
    guard: Expr | None
    irrefutable: bool
    body: tuple[Stmt, ...]


class Match(NamedTuple):
    subject: Expr
    cases: tuple[Case, ...]
    place: Place


class Import(NamedTuple):
    """bindings: local name → dotted name; a module for star imports under the name "*"."""

    bindings: tuple[tuple[str, str], ...]
    place: Place


class Scope(NamedTuple):
    """`global` or `nonlocal` names."""

    names: tuple[str, ...]
    place: Place


class Define(NamedTuple):
    """A function or class defined here."""

    definition: Function | Class
    place: Place


Stmt = Union[  # noqa: UP007 - its classes refer to it, which `|` can not do on Python 3.10
    Assign,
    Expression,
    Return,
    Raise,
    Break,
    Continue,
    Delete,
    Assert,
    If,
    While,
    For,
    Try,
    With,
    Match,
    Import,
    Scope,
    Define,
]

# ---------------------------------------------------------------------------------------------- definitions


class Parameter(NamedTuple):
    """kind: "positional", "keyword", "*" or "**"."""

    name: str
    kind: str
    annotation: Expr | None
    default: Expr | None


class Function(NamedTuple):
    """qualname: "Class.method", "outer.inner". place: the whole definition."""

    name: str
    qualname: str
    parameters: tuple[Parameter, ...]
    returns: Expr | None
    body: tuple[Stmt, ...]
    decorators: tuple[Expr, ...]
    is_async: bool
    is_generator: bool
    owner: str | None
    place: Place


NEVER = ("NoReturn", "Never")
"""What functions are annotated with that callers never come back from."""


class Class(NamedTuple):
    """body: class-level statements that were kept; its methods are `Define`s among them.

    columns, relations: the attributes that it maps, relations being those that may hold many objects.
    """

    name: str
    qualname: str
    bases: tuple[Expr, ...]
    body: tuple[Stmt, ...]
    decorators: tuple[Expr, ...]
    place: Place
    columns: tuple[str, ...] = ()
    relations: tuple[str, ...] = ()
    metaclass: Expr | None = None


class Module(NamedTuple):
    """body: the module-level statements that were kept. lines, functions: what the file has in all."""

    body: tuple[Stmt, ...]
    lines: int
    functions: int


_NODES: tuple[type, ...] = (
    Name, Attribute, Argument, Call, Await, Constant, Collection, Subscript, Conditional, Boolean, Not, Compare,
    Walrus, Yield, Generator, Comprehension, Lambda, Opaque, Assign, Expression, Return, Raise, Break, Continue,
    Delete, Assert, If, While, For, Handler, Try, WithItem, With, Case, Match, Import, Scope, Define, Parameter,
    Function, Class, Module,
)  # fmt: skip
_TAGS = {node: f"@{number}" for number, node in enumerate(_NODES)}
_TYPES = {tag: node for node, tag in _TAGS.items()}


_LEAVES: frozenset[type] = frozenset((str, int, bool, type(None)))
"""What most fields hold. They are not called for one by one, which takes half of the time."""


def to_plain(value: object) -> object:
    """A node as nested plain tuples: a tag, then its fields."""
    if not isinstance(value, tuple):
        return value
    fields = [field if type(field) in _LEAVES else to_plain(field) for field in value]
    tag = _TAGS.get(type(value))
    return tuple(fields) if tag is None else (tag, *fields)


def from_plain(value: object) -> object:
    """The inverse of `to_plain`.

    Raises:
        KeyError, TypeError: the value was not made by this version's `to_plain`.
    """
    if type(value) is not tuple or not value:
        return value
    first = value[0]
    kind = type(first)
    if kind is str and first[:1] == "@":
        return _TYPES[first](*[from_plain(field) if type(field) is tuple else field for field in value[1:]])
    # A place, a path: nothing but leaves.
    return value if kind in _LEAVES else tuple([from_plain(field) for field in value])


def statements(body: tuple[Stmt, ...]) -> list[Stmt]:
    """All statements below `body`, in source order, without those of nested definitions."""
    found: list[Stmt] = []
    for statement in body:
        found.append(statement)
        if type(statement) in _COMPOUND:
            for block in blocks(statement):
                found += statements(block)
    return found


_COMPOUND: frozenset[type] = frozenset((If, While, For, Try, With, Match))


def blocks(statement: Stmt) -> tuple[tuple[Stmt, ...], ...]:
    """The bodies that a compound statement has; none of a definition."""
    if isinstance(statement, (If, While, For)):
        return (statement.body, statement.orelse)
    if isinstance(statement, Try):
        return (statement.body, *[handler.body for handler in statement.handlers], statement.orelse, statement.final)
    if isinstance(statement, With):
        return (statement.body,)
    if isinstance(statement, Match):
        return tuple([case.body for case in statement.cases])
    return ()


def expressions(node: object) -> list[Expr]:
    """All expressions below a statement or expression (not into nested definitions and lambdas), outermost first."""
    found: list[Expr] = []
    if isinstance(node, tuple):
        _add_expressions(node, found)
    return found


def _add_expressions(node: tuple[object, ...], found: list[Expr]) -> None:
    # A list rather than a generator: one that recurses hands every node up through all levels.
    kind = type(node)
    if kind in _EXPRESSIONS:
        found.append(node)  # type: ignore[arg-type]
        if kind in _CHILDLESS:
            return
    elif kind is Function or kind is Class:
        return
    for field in node:
        if isinstance(field, tuple) and field and not (type(field) is tuple and type(field[0]) is int):  # no place
            _add_expressions(field, found)


_EXPRESSIONS = frozenset(_NODES[:2] + _NODES[3:18]) - {Generator}
_CHILDLESS = frozenset((Name, Constant, Lambda))


def within(place: Place, around: Place) -> bool:
    """Whether a place lies in another."""
    return (around[0], around[1]) <= (place[0], place[1]) and (place[2], place[3]) <= (around[2], around[3])
