"""Real failures at one chosen operation of a run: the server itself says no, or is gone, or the task is cancelled.

Nothing is raised by hand. A statement is replaced by one that the server refuses with the wanted SQLSTATE, a COMMIT
meets a deferred constraint, a backend is killed from a second connection: the driver and SQLAlchemy then do what they
would do in production.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from session_lint.runtime.drivers import backend_pid
from session_lint.runtime.probe import Probe, whoever
from session_lint.runtime.recording import ConnectionUse, Kind, Operation


class Fault(str, enum.Enum):
    """What is made to fail."""

    UNIQUE_VIOLATION = "unique violation"
    STATEMENT_TIMEOUT = "statement timeout"
    LOCK_TIMEOUT = "lock timeout"
    SERIALIZATION_FAILURE = "serialization failure"
    DEFERRED_CONSTRAINT = "deferred constraint at COMMIT"
    SERIALIZATION_AT_COMMIT = "serialization failure at COMMIT"
    BACKEND_TERMINATED = "backend terminated"
    AMBIGUOUS_COMMIT = "connection lost after COMMIT"
    IDLE_CONNECTION_LOST = "idle connection lost"
    CANCELLED = "task cancelled"


STATEMENT_SQLSTATES = {
    Fault.UNIQUE_VIOLATION: "23505",
    Fault.STATEMENT_TIMEOUT: "57014",
    Fault.LOCK_TIMEOUT: "55P03",
    Fault.SERIALIZATION_FAILURE: "40001",
}
COMMIT_SQLSTATES = {Fault.DEFERRED_CONSTRAINT: "23514", Fault.SERIALIZATION_AT_COMMIT: "40001"}

POINTS = frozenset({Kind.STATEMENT, Kind.COMMIT, Kind.WAIT, Kind.CHECKIN})
"""The operations at which something can be made to fail."""


@dataclass(frozen=True)
class Step:
    """One fault of a plan. point: at which of the operations that can fail, counted from 0."""

    point: int
    fault: Fault
    kind: Kind
    at: str = ""

    def __str__(self) -> str:
        return f"{self.fault.value} in the {self.kind.value} {f'at {self.at}' if self.at else self.point + 1}"


class Injector:
    """Makes one fault happen. Attached after the probe, so that the operation that fails has been recorded."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._step: Step | None = None
        self._count = 0
        self._attached = False
        self.hit: Operation | None = None
        self.diverged = ""

    def attach(self) -> None:
        """Listen from now on. Costs something even when nothing is armed, so only runs with faults do it."""
        if not self._attached:
            self._attached = True
            event.listen(Engine, "before_cursor_execute", self._statement, retval=True)
            event.listen(Engine, "commit", self._commit)
            self._probe.on_wait = self._wait
            self._probe.on_checkin = self._checkin

    def arm(self, step: Step | None) -> None:
        """Let the next run have this fault, or none."""
        self.attach()
        self._step, self._count, self.hit, self.diverged = step, 0, None, ""

    def disarm(self) -> None:
        """What is still done belongs to cleaning up, and succeeds."""
        self._step = None

    def _due(self, kind: Kind, use: ConnectionUse | None) -> Fault | None:
        step = self._step
        if step is None:
            return None
        number, self._count = self._count, self._count + 1
        if number != step.point:
            return None
        if kind is not step.kind:
            self.diverged = f"the run took another way: {kind.value} instead of {step.kind.value}"
            return None
        self.hit = use.operations[-1] if use is not None and use.operations else None
        return step.fault

    # ------------------------------------------------------------------------------------------------------- hooks

    def _statement(
        self, connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
    ) -> tuple[str, Any]:
        try:
            use = self._probe.use_of(connection)
            fault = self._due(Kind.STATEMENT, use) if use is not None else None
            if fault in STATEMENT_SQLSTATES:
                if getattr(cursor, "_inputsizes", None):  # SQLAlchemy 1.4's asyncpg: they are the old parameters'
                    cursor._inputsizes = None
                return _raising(STATEMENT_SQLSTATES[fault]), [()] if executemany else ()
            self._common(fault, use)
        except Exception as error:  # noqa: BLE001 - the application must see the server's failures only
            self._probe.lose("a fault", error)
        return statement, parameters

    def _commit(self, connection: Any) -> None:
        fault = None
        try:
            use = self._probe.use_of(connection)
            fault = self._due(Kind.COMMIT, use) if use is not None else None
            if fault in COMMIT_SQLSTATES:
                _let_commit_fail(connection, COMMIT_SQLSTATES[fault])
            elif fault is Fault.AMBIGUOUS_COMMIT and use is not None:
                proxy: Any = connection.connection
                proxy.commit() if hasattr(proxy, "commit") else proxy.dbapi_connection.commit()
                self._terminate(use)
            else:
                self._common(fault, use)
        except Exception as error:  # noqa: BLE001
            self._probe.lose("a fault", error)
        if fault is Fault.AMBIGUOUS_COMMIT:
            # A driver whose transaction is over sends no second COMMIT: this statement is what finds nobody.
            connection.exec_driver_sql("SELECT 1")

    def _wait(self, operation: Operation) -> None:
        if self._due(Kind.WAIT, operation.use) is Fault.CANCELLED:
            operation.who.task.cancel()

    def _checkin(self, use: ConnectionUse, dbapi_connection: Any) -> None:
        if self._due(Kind.CHECKIN, use) is Fault.IDLE_CONNECTION_LOST and dbapi_connection is not None:
            self._terminate(use, dbapi_connection)

    def _common(self, fault: Fault | None, use: ConnectionUse | None) -> None:
        if fault is Fault.BACKEND_TERMINATED and use is not None:
            self._terminate(use)
        elif fault is Fault.CANCELLED:
            task = whoever().task
            if task is not None:
                task.cancel()  # arrives at the next await: that of the operation itself

    def _terminate(self, use: ConnectionUse, dbapi_connection: Any = None) -> None:
        pid = backend_pid(dbapi_connection or use.pool_record.dbapi_connection)
        if pid is not None:
            self._probe.observers.of(use.engine).terminate(pid)


def _raising(sqlstate: str) -> str:
    return f"DO $$ BEGIN RAISE EXCEPTION 'made to fail by session-lint' USING ERRCODE = '{sqlstate}'; END $$"


_FAILING_COMMIT = """
CREATE TEMP TABLE session_lint_fault (a integer);;
CREATE FUNCTION pg_temp.session_lint_fault() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'made to fail by session-lint' USING ERRCODE = '{sqlstate}'; END $$;;
CREATE CONSTRAINT TRIGGER session_lint_fault AFTER INSERT ON session_lint_fault
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pg_temp.session_lint_fault();;
INSERT INTO session_lint_fault VALUES (1)
"""


def _let_commit_fail(connection: Any, sqlstate: str) -> None:
    """Give the transaction a deferred constraint that its COMMIT violates; it takes all of this back with itself."""
    cursor = connection.connection.cursor()
    try:
        cursor.execute("SAVEPOINT session_lint")
        try:
            for statement in _FAILING_COMMIT.format(sqlstate=sqlstate).split(";;"):
                cursor.execute(statement)
        except Exception:  # noqa: BLE001 - a transaction that is read-only, or aborted: then there is no such fault
            with contextlib.suppress(Exception):
                cursor.execute("ROLLBACK TO SAVEPOINT session_lint")
        else:
            cursor.execute("RELEASE SAVEPOINT session_lint")
    except Exception:  # noqa: BLE001
        return
    finally:
        with contextlib.suppress(Exception):
            cursor.close()


Plan = Callable[[Operation], tuple[Fault, ...]]


def single_faults(operation: Operation) -> tuple[Fault, ...]:
    """What one run each tries at this operation: the server refuses, the server goes, the task is cancelled."""
    cancelled = (Fault.CANCELLED,) if operation.who.task is not None else ()
    if operation.kind is Kind.STATEMENT:
        if operation.text.startswith("ROLLBACK"):  # to a savepoint: the server never refuses it
            return (Fault.BACKEND_TERMINATED, *cancelled)
        refused = Fault.UNIQUE_VIOLATION if operation.writes else Fault.STATEMENT_TIMEOUT
        return (refused, Fault.BACKEND_TERMINATED, *cancelled)
    if operation.kind is Kind.COMMIT:
        return (Fault.DEFERRED_CONSTRAINT, Fault.BACKEND_TERMINATED, *cancelled)
    return cancelled if operation.kind is Kind.WAIT else ()


def all_faults(operation: Operation) -> tuple[Fault, ...]:
    """Every fault that there is."""
    more: dict[Kind, tuple[Fault, ...]] = {
        Kind.STATEMENT: (Fault.SERIALIZATION_FAILURE, Fault.LOCK_TIMEOUT),
        Kind.COMMIT: (Fault.SERIALIZATION_AT_COMMIT, Fault.AMBIGUOUS_COMMIT),
        Kind.CHECKIN: (Fault.IDLE_CONNECTION_LOST,),
    }
    return (*single_faults(operation), *more.get(operation.kind, ()))


def steps(operations: list[Operation], faults: Plan = single_faults) -> list[Step]:
    """The plan for a run that was recorded without a fault: one step for each operation and fault."""
    points = [operation for operation in operations if operation.kind in POINTS]
    return [
        Step(number, fault, operation.kind, str(operation.frames))
        for number, operation in enumerate(points)
        for fault in faults(operation)
    ]
