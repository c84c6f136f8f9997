"""What a variable can hold, as far as sessions are concerned. Everything else is None: unknown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Union

from session_lint import ir
from session_lint.findings import Confidence
from session_lint.project.modules import ClassRef, FunctionRef

Path = tuple[str, ...]


class SessionType(NamedTuple):
    """role: "session" or "connection". certainty: how sure we are that it is one at all.

    commits: when what was written is committed without a commit(): STATEMENT with the isolation level AUTOCOMMIT, BLOCK
    if its class does so at the end of a `with` block, JOINED if it is left to whoever has begun its connection's
    transaction, "" never.
    """

    role: str
    is_async: bool
    certainty: Confidence
    commits: str = ""


STATEMENT, BLOCK, JOINED = "statement", "block", "joined"


SESSION = SessionType("session", False, Confidence.CERTAIN)
ASYNC_SESSION = SessionType("session", True, Confidence.CERTAIN)
CONNECTION = SessionType("connection", False, Confidence.CERTAIN)
ASYNC_CONNECTION = SessionType("connection", True, Confidence.CERTAIN)


class SessionClass(NamedTuple):
    """The class itself: calling it opens a session. is_alias: a NewType of it, which gives what it is given."""

    type: SessionType
    is_alias: bool = False


class Borrowed(NamedTuple):
    """Static only: some session that exists already, such as a parameter or a field of that type."""

    type: SessionType


class Opened(NamedTuple):
    """Static only: a new session, which whoever gets it must close."""

    type: SessionType


class Session(NamedTuple):
    """A session that is tracked in the state. identity: the same for the same object."""

    identity: Path


class Factory(NamedTuple):
    """Calling it opens a session (sessionmaker); `certainty` as for the session."""

    type: SessionType


class Lender(NamedTuple):
    """Calling it gives somebody's context manager that hands out a session: `Callable[[], ContextManager[Session]]`."""

    manager: Manager


class Engine(NamedTuple):
    """autocommit: whether the server commits each statement (isolation level AUTOCOMMIT)."""

    is_async: bool
    certainty: Confidence
    autocommit: bool = False


class Registry(NamedTuple):
    """A scoped_session. framework: whose teardown removes its session (a profile), or "" if nobody is known.

    commits, role: see SessionType. is_current: whether it is a ContextVar or a LocalProxy, which nobody can ask to
    remove its session.
    """

    identity: Path
    is_async: bool
    framework: str
    certainty: Confidence = Confidence.CERTAIN
    commits: str = ""
    is_current: bool = False
    role: str = "session"

    @property
    def type(self) -> SessionType:
        """What it makes."""
        return SessionType(self.role, self.is_async, self.certainty, self.commits)

    @property
    def is_unnamed(self) -> bool:
        """Whether it has just been made, and nobody keeps it yet."""
        return self.identity == ("?",) or self.identity[-1].startswith("@")


class ContextVariable(NamedTuple):
    """A ContextVar of sessions: its get() finds the one that somebody has put there for the running task."""

    identity: Path
    type: SessionType

    @property
    def current(self) -> Registry:
        """What get() finds."""
        kind = self.type
        return Registry(self.identity, kind.is_async, "", kind.certainty, is_current=True, role=kind.role)


class Extension(NamedTuple):
    """Flask-SQLAlchemy's `db`. framework, certainty: of its session."""

    identity: Path
    framework: str = "flask_sqlalchemy"
    certainty: Confidence = Confidence.CERTAIN

    @property
    def session(self) -> Registry:
        """The scoped session that it makes."""
        return Registry((*self.identity, "session"), False, self.framework, self.certainty)


class Function(NamedTuple):
    """A function of the project; receiver: the instance or, of a class method, the class that it is bound to."""

    reference: FunctionRef
    receiver: Value


class Closure(NamedTuple):
    """A nested function or lambda, with its definition."""

    function: ir.Function


class Decorated(NamedTuple):
    """Inside a decorator's wrapper: the function that is decorated, under its name there."""

    name: str


class ClassValue(NamedTuple):
    reference: ClassRef


class Instance(NamedTuple):
    """An object of a class of the project.

    path: what it is called, if it has a name that outlives the function (`self`, `self.repo`).
    fields: sessions that it was given on construction. loaded: how a session knows it, if one does.
    """

    reference: ClassRef
    path: Path
    fields: tuple[tuple[str, Value], ...]
    loaded: Loaded | None = None


class Parent(NamedTuple):
    """`super()` in a method of the class; receiver: what the method was called on."""

    reference: ClassRef
    receiver: Value


class ExternalValue(NamedTuple):
    """Something that the project does not define, by dotted name."""

    name: str


class ModuleValue(NamedTuple):
    reference: object


class Generator(NamedTuple):
    """The result of calling a generator function of the project, not entered yet."""

    reference: FunctionRef
    place: ir.Place


class Manager(NamedTuple):
    """A context manager. kind:

    "session"   closes the session it is about          "begin"     commits or rolls back
    "savepoint" releases or rolls back to the savepoint "open begin" opens, begins, commits, closes
    "joining begin" commits or rolls back, unless its session has come in a transaction: subtransactions=True
    "provider"  a context manager function of the project (reference)
    "suppress"  swallows exceptions (types)              "null"      gives `value` and does nothing
    "closing"   closes `value`                           "stack"     an ExitStack
    "foreign"   a provider that can't be seen; assumed to finish what it hands out (`value`: a Borrowed before that)
    "current"   a block with a session of its own in a context variable, which it finishes
    "scope"     an application's: ends the sessions of the frameworks that `types` names
    "object"    an object of the project that has been given a session (`value`), whose methods enter and leave

    bindings: what a provider was called with; of a "foreign" one the names that mean something else again afterwards.
    begun: of a "savepoint" what its session's was before.
    """

    kind: str
    value: Value
    reference: FunctionRef | None = None
    types: tuple[str, ...] = ()
    place: ir.Place = ir.NOWHERE
    bindings: tuple[tuple[str, Value], ...] = ()
    begun: int = 0


class Transaction(NamedTuple):
    """What begin() and begin_nested() return. is_over: a savepoint that has been released by its own commit()."""

    identity: Path
    is_nested: bool
    is_over: bool = False


class Query(NamedTuple):
    """A statement bound to its session, not sent yet. gives_objects: it asks for mapped objects, not for columns.

    model: their class, if the project defines it.
    """

    identity: Path
    gives_objects: bool = False
    model: ClassRef | None = None


OBJECT, LIST, SCALARS, ROWS = "object", "list", "scalars", "rows"


class Loaded(NamedTuple):
    """A mapped object that belongs to the session of that identity, or (kind) a result or list of such objects.

    since: how many commits the session had seen when the object was added, -1 if it comes from the database. What
    was added and not committed, a failed flush makes an object like any other. sure: it is not None. model: its class,
    if the project defines it.
    """

    identity: Path
    kind: str = OBJECT
    since: int = -1
    sure: bool = False
    model: ClassRef | None = None


class ConnectionOf(NamedTuple):
    """`session.connection()`: what is executed on it is the session's work."""

    identity: Path


class QueryProperty(NamedTuple):
    """`query = Session.query_property()`: what each model that has or inherits it is queried with."""

    registry: Registry


class ModelQuery(NamedTuple):
    """`Model.query` of Flask-SQLAlchemy or of a query property: a query of that scoped session."""

    registry: Registry
    model: ClassRef


class Method(NamedTuple):
    """A bound method of a session or transaction, not called yet."""

    owner: Value
    name: str


class Coroutine(NamedTuple):
    """The result of calling something asynchronous without awaiting it. label: what was called."""

    value: Value
    label: str
    place: ir.Place
    touches: Path | None


class Dependency(NamedTuple):
    """`Depends(f)` as a default or in Annotated. cached: everybody in a request gets the same."""

    provider: Value
    scope: str
    cached: bool = True


class Const(NamedTuple):
    """None, True or False."""

    value: bool | None


class Truth(NamedTuple):
    """Something unknown of which only is known whether it counts as true. error: the class, if it is an exception."""

    value: bool
    error: str = ""


class Literal(NamedTuple):
    """A number or word that a function answers with."""

    value: int | str


class Answer(NamedTuple):
    """A tuple or dict display that a function returns. parts: by index or key. is_whole: it has no others."""

    parts: tuple[tuple[int | str, Value], ...]
    is_whole: bool

    def part(self, key: int | str | None) -> Value:
        return dict(self.parts).get(key) if key is not None else None

    def holds(self, key: int | str) -> bool | None:
        """Whether `key in answer`, of a dict."""
        keys = [known for known, _ in self.parts]
        if key in keys:
            return True if isinstance(key, str) else None
        return False if self.is_whole and not any([isinstance(known, int) for known in keys]) else None


class Items(NamedTuple):
    """A tuple or list with something interesting in it."""

    items: tuple[Value, ...]


Value = Union[  # noqa: UP007 - its classes refer to it, which `|` can not do on Python 3.10
    SessionClass,
    Borrowed,
    Opened,
    Session,
    Factory,
    Lender,
    Engine,
    Registry,
    ContextVariable,
    QueryProperty,
    ModelQuery,
    Extension,
    Function,
    Closure,
    Decorated,
    ClassValue,
    Instance,
    Parent,
    ExternalValue,
    ModuleValue,
    Generator,
    Manager,
    Transaction,
    Query,
    Loaded,
    ConnectionOf,
    Method,
    Coroutine,
    Dependency,
    Const,
    Truth,
    Literal,
    Answer,
    Items,
    None,
]

NONE = Const(None)

Argument = tuple["str | None", Value, ir.Expr]
"""What a call is given: its name (or None), value and expression."""
Arguments = tuple[Argument, ...]


def carries_session(value: Value) -> bool:
    """Whether a value is or holds a session."""
    if value is None:
        return False
    if isinstance(value, (Session, Transaction, Query)):
        return True
    if isinstance(value, Items):
        return any([carries_session(item) for item in value.items])
    if isinstance(value, Instance):
        return any([carries_session(item) for _, item in value.fields])
    return isinstance(value, Method) and isinstance(value.owner, Session)


def is_lasting(value: Value) -> bool:
    """Whether a value gives the same session to all who ask for it in one scope."""
    return isinstance(value, (Registry, Extension))


def direct_sessions(value: Value) -> list[Session]:
    """The sessions that whoever gets the value can use at once."""
    if isinstance(value, Session):
        return [value]
    if isinstance(value, (Query, Transaction)):
        return [Session(value.identity)]
    if isinstance(value, Instance):
        return [session for _, item in value.fields for session in direct_sessions(item)]
    if isinstance(value, Items):
        return [session for item in value.items for session in direct_sessions(item)]
    return []


def sessions_in(value: Value) -> list[Session]:
    """The sessions that a value is, holds or closes over."""
    if isinstance(value, Session):
        return [value]
    if isinstance(value, Items):
        return [session for item in value.items for session in sessions_in(item)]
    if isinstance(value, Instance):
        return [session for _, item in value.fields for session in sessions_in(item)]
    if isinstance(value, (Transaction, Query)):
        return [Session(value.identity)]
    if isinstance(value, (Manager, Coroutine)):
        return sessions_in(value.value)
    if isinstance(value, Method) and value.name in ("close", "aclose", "remove"):
        return sessions_in(value.owner)
    return []


def contents(value: Value) -> tuple[Value, ...]:
    """What a container or object holds; the value itself if it is neither."""
    if isinstance(value, Items):
        return value.items
    if isinstance(value, Instance):
        return tuple([held for _, held in value.fields])
    return (value,)


def opened_with(kind: SessionType, values: Iterable[Value], begins_nothing: bool = False) -> SessionType:
    """What is opened with these values: over an AUTOCOMMIT engine, each statement commits itself."""
    is_autocommit = begins_nothing or any([isinstance(value, Engine) and value.autocommit for value in values])
    return kind._replace(commits=STATEMENT) if is_autocommit else kind


def connection_of(engine: Engine) -> SessionType:
    """What `engine.connect()` and `engine.begin()` open."""
    return opened_with(ASYNC_CONNECTION if engine.is_async else CONNECTION, (engine,))


def loaded_in(value: Value) -> Loaded | None:
    """How a session knows the value, if it is a mapped object of one."""
    return value.loaded if isinstance(value, Instance) else value if isinstance(value, Loaded) else None


def named(value: Value, identity: Path) -> Value:
    """What has just been made, called after the variable or attribute that keeps it."""
    if isinstance(value, (Registry, Extension, ContextVariable)) and value.identity == ("?",):
        return value._replace(identity=identity)
    return value


def truth(value: Value) -> bool | None:
    """Whether the value counts as true; None if that is open."""
    if value is None:
        return None
    if isinstance(value, (Const, Truth, Literal)):
        return bool(value.value)
    if isinstance(value, Answer):
        return True if value.parts else False if value.is_whole else None
    if isinstance(value, (Session, Factory, Registry, Engine, Transaction)):
        return True
    return True if isinstance(value, Loaded) and value.sure else None
