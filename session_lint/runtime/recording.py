"""What the probe has seen: sessions, connections in use, and the operations in their order."""

from __future__ import annotations

import enum
import functools
import re
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from session_lint.runtime.fairness import fair_time
from session_lint.runtime.places import Frames


class Kind(str, enum.Enum):
    """What an operation is, in SQLAlchemy's and PostgreSQL's words."""

    CHECKOUT = "checkout"
    BEGIN = "begin"
    STATEMENT = "statement"
    SAVEPOINT = "savepoint"
    RELEASE = "release savepoint"
    ROLLBACK_TO = "rollback to savepoint"
    COMMIT = "commit"
    ROLLBACK = "rollback"
    RESET = "reset"
    CHECKIN = "checkin"
    DETACH = "detach"
    INVALIDATE = "invalidate"
    WAIT = "wait"
    """The task waits for something that is not the database, with a connection checked out."""


class Who(NamedTuple):
    """The thread and, in asyncio, the task that did something."""

    thread: int
    task: Any = None

    @property
    def gone(self) -> bool:
        return bool(self.task is not None and self.task.done())


# What follows is made and read for every SELECT. With slots Python knows where an attribute is; it looks for one that
# the class has until an object sets it, every time.


class Operation:
    """One thing that happened. error: the exception that it ended with, if it is known to have failed."""

    __slots__ = ("aborted", "during", "error", "frames", "kind", "number", "seconds", "text", "use", "who", "xid")

    def __init__(
        self, number: int, kind: Kind, frames: Frames, use: ConnectionUse | None, who: Who, text: str = ""
    ) -> None:
        self.number = number
        self.kind = kind
        self.frames = frames
        self.use = use
        self.who = who
        self.text = text
        self.error: BaseException | None = None
        self.xid = ""
        self.aborted = False
        self.seconds = 0.0
        self.during: BaseException | None = None
        """The exception that was on its way, or handled, when it was sent: of COMMIT and ROLLBACK."""

    @property
    def session(self) -> SessionRecord | None:
        return self.use.session if self.use else None

    @property
    def writes(self) -> bool:
        """Whether it is a statement that changes rows."""
        return self.kind is Kind.STATEMENT and changes_rows(self.text)

    @property
    def table(self) -> str | None:
        """The table that it changes."""
        return written_table(self.text) if self.kind is Kind.STATEMENT else None


_TABLE = re.compile(r'\s*(?:INSERT\s+INTO|UPDATE|DELETE\s+FROM|MERGE\s+INTO)\s+([\w."]+)', re.IGNORECASE)


def written_table(statement: str) -> str | None:
    """The table that a statement changes."""
    match = _TABLE.match(statement)
    return match[1].replace('"', "") if match else None


_WRITES = ("INSERT", "UPDATE", "DELETE", "MERGE", "COPY")


@functools.lru_cache(maxsize=1024)  # an application sends the same statements again and again
def changes_rows(statement: str) -> bool:
    """Whether a statement changes rows."""
    return statement.lstrip(" (\n").upper().startswith(_WRITES)


class SessionRecord:
    """One session. opened: where it was made; NOWHERE if that was before the probe looked."""

    __slots__ = ("exempt", "kind", "number", "opened", "operations", "recording", "session", "unflushed")

    def __init__(self, number: int, opened: Frames, kind: str) -> None:
        self.number = number
        self.opened = opened
        self.kind = kind
        self.operations: list[Operation] = []
        self.session: Any = None
        """Held strongly while it is in a transaction: what it leaves behind is judged before any garbage collection."""
        self.recording: Recording | None = None
        self.exempt = False
        """Its owner outlives the recording, so that nothing is left behind."""
        self.unflushed: tuple[Frames, ...] = ()
        """Where objects that were added were thrown away before anything was written."""


class ConnectionUse:
    """A connection between its checkout and its return to the pool."""

    __slots__ = (
        "aborted_by",
        "autocommit",
        "engine",
        "exempt",
        "idle",
        "latest",
        "number",
        "opened",
        "operations",
        "outcome",
        "pool_record",
        "proxy",
        "seconds",
        "serial",
        "session",
        "since",
        "waiting",
        "who",
        "writes",
        "xid",
    )

    def __init__(self, number: int, opened: Frames, who: Who, proxy: Any, pool_record: Any) -> None:
        self.number = number
        self.opened = opened
        self.who = who
        self.proxy = proxy
        self.pool_record = pool_record
        self.since = time.monotonic()
        self.operations: list[Operation] = []
        self.session: SessionRecord | None = None
        self.engine: Any = None
        self.outcome: Kind | None = None
        self.seconds = 0.0
        self.writes = False
        self.autocommit = False
        """Whether the driver leaves transactions to the server: nothing is then rolled back with the rest."""
        self.xid = ""
        self.aborted_by: Operation | None = None
        self.latest: Operation | None = None
        """The statement that was sent last."""
        self.waiting: tuple[Operation, float, float] | None = None
        self.idle: tuple[Who, int, float] | None = None
        """Whose wait may have begun, how many operations there had been then, and when."""
        self.serial = 0
        self.exempt = False

    @property
    def out(self) -> bool:
        """Whether the pool still misses it."""
        return self.outcome is None

    def waited(self) -> None:
        """What a task waited for, with this connection in its hands, has come."""
        if self.waiting is not None:
            operation, since, fairly = self.waiting
            # On a machine with much to do, everything takes long.
            seconds = min(time.monotonic() - since, fair_time() - fairly)
            operation.seconds, self.waiting = seconds, None


class Answer(NamedTuple):
    """A response of the application. began, sent: how many operations there had been when it began and answered."""

    status: int
    began: int
    sent: int


class Recording:
    """Everything of one run. Safe to write to from several threads."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.uses: list[ConnectionUse] = []
        self.sessions: list[SessionRecord] = []
        self.overlaps: list[tuple[Operation, Operation]] = []
        self.dead_uses: list[tuple[SessionRecord, Frames]] = []
        self.waits: list[Operation] = []
        self.aborted_commits: list[tuple[Operation, str]] = []
        self.answers: list[Answer] = []
        self.commits: list[tuple[SessionRecord, int, Frames]] = []
        """Every commit() of a session, sent or not, with how many operations there had been."""
        self.added: list[tuple[SessionRecord, str, int, Frames]] = []
        """The table of every object that was added to a session, with how many operations there had been."""
        self.rows_before: dict[str, int] = {}
        """How many rows a second connection saw in a table before the first statement that changes it."""
        self._lock = threading.Lock()

    def add(self, kind: Kind, frames: Frames, use: ConnectionUse | None, who: Who, text: str = "") -> Operation:
        with self._lock:
            operation = Operation(len(self.operations), kind, frames, use, who, text)
            self.operations.append(operation)
        if use is not None:
            use.serial += 1
            if use.waiting is not None:
                use.waited()
            use.operations.append(operation)
            if use.session is not None:
                use.session.operations.append(operation)
        return operation

    def wait(self, operation: Operation, since: float) -> None:
        """Since then and until the next operation on its connection, a task waits for something else."""
        self.waits.append(operation)
        if operation.use is not None:
            operation.use.waiting = operation, since, fair_time() - (time.monotonic() - since)

    def frames(self) -> Iterator[Frames]:
        """Every moment at which the user's code was seen."""
        for session in self.sessions:
            yield session.opened
        for use in self.uses:
            yield use.opened
        for operation in self.operations:
            yield operation.frames
        for *_, frames in self.added:
            yield frames

    @property
    def out(self) -> list[ConnectionUse]:
        return [use for use in self.uses if use.out]

    def release(self) -> None:
        """Let go of all that was held strongly. What was found out about it stays."""
        for use in self.uses:
            use.proxy = use.pool_record = use.aborted_by = use.latest = None
        for session in self.sessions:
            session.session = None
