"""What the interpreter found out about one function: its sessions, events and exits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from session_lint import ir
from session_lint.findings import Confidence
from session_lint.flow.errors import Error
from session_lint.flow.state import Mark, SessionState, State
from session_lint.flow.values import Path, SessionType, Value
from session_lint.project.modules import FunctionRef

# Where a session comes from, which says who has to finish it.
LOCAL = "local"  # opened here
PARAMETER = "parameter"  # handed in by the caller
INJECTED = "injected"  # handed in by a dependency
CAPTURED = "captured"  # a variable of the function around it
ATTRIBUTE = "attribute"  # kept by an object
SHARED = "shared"  # one for the whole process: module level, class level
CURRENT = "current"  # what a ContextVar holds for the running task
AMBIENT = "ambient"  # a scoped_session's current one
PROVIDED = "provided"  # handed out by a context manager that finishes it
ITERATED = "iterated"  # handed out by a generator that is looped over or next()ed
OPENED_HERE = (LOCAL, PROVIDED, ITERATED)


class SessionInfo(NamedTuple):
    """A session of a function. name: what the code calls it. provider: who hands it out, if seen."""

    identity: Path
    name: str
    origin: str
    type: SessionType
    place: ir.Place
    provider: FunctionRef | None = None
    framework: str = ""

    @property
    def certainty(self) -> Confidence:
        return self.type.certainty

    @property
    def word(self) -> str:
        return self.type.role


class Frame(NamedTuple):
    """A construct around the current statement. kind: "for", "while", "if", "try", "except", "with"."""

    kind: str
    node: ir.Stmt | ir.Handler


class Event(NamedTuple):
    """Something that happened while the function ran. kind: one of the constants of this module."""

    kind: str
    place: ir.Place
    identity: Path
    text: str
    session: SessionState | None
    frames: tuple[Frame, ...]
    detail: object = None


USE_BROKEN = "a session is used after a failure that nobody rolled back"
USE_CLOSED = "a session is used after close()"
AFTER_END = "a statement follows a commit or rollback inside a begin() block"
COMMIT_IN_SAVEPOINT = "commit() inside begin_nested()"
LOST_IN_BLOCK = "a begin() block ends normally with a failed transaction"
RELEASE = "release"
"""The detail of that event where the block is a savepoint's."""
COMMITTED = "commit()"
WROTE = "a write"
THROWN_AWAY = "a with block closes a session with writes that nobody has committed"
CHANGE = "change"
"""The detail of a write that is a change of an object which the session has loaded."""
SPLIT = "a callee commits what its caller has written so far"
OVERWRITTEN = "a variable that holds an open session gets a new value"
NOT_AWAITED = "a coroutine is never awaited"
UNNAMED = "a session is opened and used in one expression"
LOST_WITH_ITEM = "with Session().something: the session itself has no name"
NEXT = "next() of a session generator"
GENERATOR_USED = "a session generator is used as if it were the session"
LOOP_LEFT = "a loop over a session generator is left early"
MANAGER_ITERATED = "a context manager is iterated"
MANAGER_DEPENDS = "Depends() of a context manager"
YIELDED = "yield"
LENT = "a wrapper hands a session to the function that it decorates"
CLOSED_BY_HAND = "close()"
PARKED = "an object of somebody else gets the session; the detail says under which name"
STARTED = "a task, thread or job gets a session"
BEGUN = "begin(); its detail says whether a transaction was there already"
FLUSHED_FIRST = "begin_nested() flushes what was added before it"
ROLLED_BACK = "rollback(), here or in a callee"
LOST = "a session goes on after a rollback that threw writes away"
COMMITTED_FAILING = "commit() while an exception is on its way out; its detail says what has been written"


class Handing(NamedTuple):
    """A call that hands sessions to a function of the project. given: its path of each, and ours."""

    callee: FunctionRef
    place: ir.Place
    given: tuple[tuple[Path, Path], ...]

    @property
    def identities(self) -> tuple[Path, ...]:
        return tuple([identity for _, identity in self.given])


class Invocation(NamedTuple):
    """How a function is called that is handed sessions.

    constants: the arguments that decide what the callee does. in_block: it gets a session in a begin() block.
    is_parameter: it gets one that the caller was given itself.
    """

    callee: FunctionRef
    constants: tuple[tuple[str, Value], ...]
    in_block: bool
    is_parameter: bool


class Change(NamedTuple):
    """A parameter gets an attribute of its object changed: "" if it may be any. many: objects that it holds are."""

    parameter: str
    attribute: str
    many: bool


class Exit(NamedTuple):
    """One way out. error: None if the function returns."""

    error: Error | None
    state: State
    place: ir.Place
    value: Value = None


@dataclass(eq=False)
class FunctionFlow:
    """The result for one function.

    first_uses: sessions that it uses before rolling back or closing them. direct: those that it works on itself,
    rather than through functions that it passes them to. begins: sessions from outside that it begins a transaction of
    before it does anything else with them, and where. invocations: how it calls the functions that it hands sessions.
    changes: what it does to objects that it is given, and that no session of its own knows.
    """

    reference: FunctionRef
    sessions: dict[Path, SessionInfo] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    exits: list[Exit] = field(default_factory=list)
    first_uses: set[Path] = field(default_factory=set)
    calls: list[Handing] = field(default_factory=list)
    direct: set[Path] = field(default_factory=set)
    begins: dict[Path, Mark] = field(default_factory=dict)
    invocations: dict[Invocation, None] = field(default_factory=dict)
    changes: set[Change] = field(default_factory=set)
    unresolved: bool = False
    open_ways: dict[Path, list[Exit]] = field(default_factory=dict)
    """See `call_graph.open_ways`, which keeps its answers here."""

    @property
    def name(self) -> str:
        return self.reference.function.qualname
