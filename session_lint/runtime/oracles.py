"""The judgements: from what was recorded, and what a second connection sees, to evidence.

Judged when the owner is done (a test, a scenario), while everything is still held strongly: the garbage
collector, which would hide most of this at some later moment, decides nothing.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sqlalchemy import exc

from session_lint.runtime.drivers import backend_pid, sqlstate
from session_lint.runtime.evidence import Evidence, Oracle, places
from session_lint.runtime.observer import IDLE_IN_TRANSACTION, Observers
from session_lint.runtime.places import Frames, Place, about_to_call, is_users, raised
from session_lint.runtime.probe import CLOSING
from session_lint.runtime.recording import Answer, ConnectionUse, Kind, Operation, Recording, SessionRecord

SLOW = 0.05
"""Seconds from which an await counts as slow while it holds a connection."""


@dataclass(frozen=True)
class Case:
    """What is judged: a recording, how it ended, what was made to fail, and the same run without that."""

    recording: Recording
    observers: Observers
    error: BaseException | None = None
    fault: str = ""
    baseline: Recording | None = None
    slow: float = SLOW


def judge(case: Case) -> list[Evidence]:
    """Everything that can be proved now."""
    return [evidence for oracle in _ORACLES for evidence in oracle(case)]


def _evidence(
    case: Case,
    oracle: Oracle,
    message: str,
    opened: Frames | None,
    frames: Iterable[Frames],
    subject: object = None,
    **facts: object,
) -> Evidence:
    return Evidence(
        oracle,
        message,
        opened.first if opened else None,
        places([*([opened] if opened else []), *frames]),
        {name.replace("_", " "): str(value) for name, value in facts.items() if value not in ("", None)},
        case.fault,
        subject=subject,
    )


def _opened(use: ConnectionUse) -> Frames:
    """Where the owner opened it: the session's place if it is known."""
    session = use.session
    return session.opened if session is not None and session.opened.first is not None else use.opened


def _moments(use: ConnectionUse) -> list[Frames]:
    """The places that speak for a connection: its checkout, its operations, its session's."""
    return [use.opened, *(operation.frames for operation in (use.session or use).operations)]


def leaked_connections(case: Case) -> Iterator[Evidence]:
    """A connection that the pool still misses, and the transaction that it holds open."""
    out = case.recording.out
    for use in out:
        if use.exempt or (use.session is not None and use.session.exempt):
            continue
        pid = backend_pid(use.pool_record.dbapi_connection) if use.pool_record is not None else None
        state = case.observers.of(use.engine).state(pid)
        last = use.operations[-1] if use.operations else None
        owner = f"{use.session.kind} left open" if use.session else "connection left open"
        facts = {
            "checked_out": len(out),
            "state": state,
            "last": last.kind.value if last else "",
            "sqlstate": sqlstate(next((o.error for o in reversed(use.operations) if o.error), None)),
            "rows": _rows(case, use.operations),
        }
        opened, moments = _opened(use), _moments(use)
        yield _evidence(case, Oracle.LEAKED_CONNECTION, owner, opened, moments, use, **facts)
        if state.startswith(IDLE_IN_TRANSACTION):
            message = f"the server waits in a transaction: {state}"
            yield _evidence(case, Oracle.OPEN_TRANSACTION, message, opened, moments, use, **facts)


def dead_sessions(case: Case) -> Iterator[Evidence]:
    """A session that nobody rolled back after a failure: its next use raises."""
    for record in case.recording.sessions:
        session = record.session
        if session is None or record.exempt:
            continue
        lost = any([operation.kind is Kind.INVALIDATE for operation in record.operations])
        if not session.is_active or (lost and session.in_transaction()):
            failed = _failed(record)
            yield _evidence(
                case,
                Oracle.DEAD_SESSION,
                f"{record.kind} was not rolled back after {failed.kind.value if failed else 'a statement'} failed",
                record.opened,
                (operation.frames for operation in record.operations),
                record,
                is_active="True, but its connection is gone" if session.is_active else "False",
                sqlstate=sqlstate(failed.error) if failed else "",
                rows=_rows(case, record.operations),
            )


def _rows(case: Case, operations: Iterable[Operation]) -> str:
    """How many rows of what these statements change a second connection saw before the first of them, and sees now."""
    writes = [(operation.use, table) for operation in operations if (table := operation.table)]
    if not writes or writes[0][0] is None:
        return ""
    now = case.observers.of(writes[0][0].engine).rows({table for _, table in writes})
    before = case.recording.rows_before
    return ", ".join(f"{t} {f'{before[t]} before, ' if t in before else ''}{count} now" for t, count in now.items())


def _failed(record: SessionRecord) -> Operation | None:
    return next((o for o in reversed(record.operations) if o.error is not None), None)


def poisoned_sessions(case: Case) -> Iterator[Evidence]:
    """A dead session was used again, or the run ended in the exception that such a use raises."""
    for record, frames in case.recording.dead_uses:
        yield _evidence(case, Oracle.POISONED_SESSION, f"{record.kind} is used after a failure that nobody rolled back",
                        record.opened, [frames, *(o.frames for o in record.operations)])  # fmt: skip
    for error in chain(case.error):
        text = str(error)
        if isinstance(error, exc.PendingRollbackError) or (
            isinstance(error, exc.InvalidRequestError) and any(words in text for words in _DEAD_WORDS)
        ):
            records = [record for record in case.recording.sessions if record.operations]
            yield _evidence(
                case, Oracle.POISONED_SESSION, f"{type(error).__name__}: {text.splitlines()[0][:120]}",
                records[-1].opened if records else None,
                (o.frames for record in records for o in record.operations),
            )  # fmt: skip
            break
    for operation in case.recording.operations:
        if operation.use is not None and sqlstate(operation.error) == "25P02":
            message = "a statement in a transaction that is aborted"
            yield _evidence(case, Oracle.POISONED_SESSION, message, _opened(operation.use), [operation.frames],
                            sqlstate="25P02")  # fmt: skip
            return


_DEAD_WORDS = (
    "in 'prepared' state",
    "in 'inactive' state",
    "in 'deactive' state",
    "rolled back due",
    "Can't reconnect",
)


def aborted_commits(case: Case) -> Iterator[Evidence]:
    """COMMIT was sent for a transaction that PostgreSQL had aborted: it rolled back and said nothing."""
    for commit, state in case.recording.aborted_commits:
        use = commit.use
        if use is not None:
            yield _evidence(
                case, Oracle.ABORTED_COMMIT, "COMMIT came back as ROLLBACK: the rows before it are lost",
                _opened(use), _moments(use), state=state, xid=commit.xid,
                outcome=case.observers.of(use.engine).outcome(commit.xid), rows=_rows(case, use.operations),
            )  # fmt: skip


def partial_commits(case: Case) -> Iterator[Evidence]:
    """Some of the writes of one session are committed and the rest, which a run without the fault makes, are not."""
    for index, record in enumerate(case.recording.sessions):
        failed = _failed(record)
        done = _committed(record)
        commits = [o for o in record.operations if o.kind is Kind.COMMIT and o.error is None and not o.aborted]
        if failed is None or not done or failed.number < commits[0].number:
            continue
        if any([a.status < 400 and commits[-1].number < a.sent <= failed.number for a in case.recording.answers]):
            continue  # what the client was told of is all there; this is something that is done afterwards
        if case.baseline is not None:
            wanted = case.baseline.sessions[index] if index < len(case.baseline.sessions) else None
            missing = wanted is not None and len(_committed(wanted)) > len(done)
        else:
            missing = failed.writes or failed.kind is Kind.COMMIT
        if case.error is None and _asked_for_rollback(record, failed):
            continue  # it is known what is lost, and the rest is meant to go on
        if not missing or (record.operations[-1].kind is Kind.COMMIT and record.operations[-1].error is None):
            continue
        commit = next(o for o in reversed(record.operations) if o.kind is Kind.COMMIT and o.error is None)
        observer = case.observers.of(commit.use.engine if commit.use else None)
        yield _evidence(
            case, Oracle.PARTIAL_COMMIT, f"{len(done)} write(s) stay, the rest of the same work is lost",
            record.opened, [commit.frames, failed.frames], sqlstate=sqlstate(failed.error), xid=commit.xid,
            outcome=observer.outcome(commit.xid), rows=_rows(case, done),
        )  # fmt: skip


def _asked_for_rollback(record: SessionRecord, failed: Operation) -> bool:
    """Whether somebody called rollback() because of this failure, as far as that sends anything."""
    if failed.kind is Kind.COMMIT:
        return True
    later = [o for o in record.operations if o.number >= failed.number]
    asked = (Kind.ROLLBACK, Kind.INVALIDATE)
    return any([o.kind in asked and o.frames.through not in CLOSING for o in later])


def _committed(record: SessionRecord) -> list[Operation]:
    """The writes of a session that a COMMIT has made durable."""
    done: list[Operation] = []
    pending: list[Operation] = []
    for operation in record.operations:
        if operation.writes and operation.error is None:
            pending.append(operation)
        elif operation.kind is Kind.COMMIT:
            done += pending if operation.error is None and not operation.aborted else []
            pending = []
        elif operation.kind in (Kind.ROLLBACK, Kind.RESET, Kind.INVALIDATE, Kind.CHECKIN):
            pending = []
    return done


def lost_writes(case: Case) -> Iterator[Evidence]:
    """Rows were written, nothing failed, and closing rolled them back."""
    if case.fault or case.error is not None:
        return
    for use in case.recording.uses:
        if any([operation.error for operation in use.operations]):
            continue
        writes: list[Operation] = []
        for operation in use.operations:
            if operation.writes:
                writes.append(operation)
            elif operation.kind is Kind.COMMIT:
                writes = []
            elif operation.kind is Kind.ROLLBACK and (operation.during or operation.frames.through not in CLOSING):
                writes = []  # somebody wanted it, or something had failed
        if writes and not use.out and not use.autocommit and not _refused(case, writes):
            yield _evidence(
                case, Oracle.LOST_WRITE, f"{len(writes)} write(s) were rolled back when it was closed", _opened(use),
                (o.frames for o in writes), commits=0, rows=_rows(case, writes),
            )  # fmt: skip
    for record in case.recording.sessions:
        written = max((o.number for o in record.operations if o.writes), default=-1)
        added = [frames for other, _, before, frames in case.recording.added if other is record and before > written]
        for frames in record.unflushed:
            yield _evidence(
                case,
                Oracle.LOST_WRITE,
                "an object was added and never written",
                record.opened,
                [frames, *added],
                commits=0,
            )


def _refused(case: Case, writes: list[Operation]) -> int:
    """The status of the answer that says that nothing came of what the request had written; 0 if there is none."""
    numbers = [operation.number for operation in writes]
    return next((a.status for a in case.recording.answers
                 if a.status >= 400 and a.began <= min(numbers) and max(numbers) < a.sent), 0)  # fmt: skip


def false_successes(case: Case) -> Iterator[Evidence]:
    """The client was told that all is well, and then a failure took what the request had written with it."""
    for answer in case.recording.answers:
        if answer.status >= 400:
            continue
        for use in case.recording.uses:
            writes = _uncommitted(use, answer)
            failed = _failed_before_commit(use, answer) if writes else None
            if failed is not None:
                message = f"the client got {answer.status}, and then the {failed.kind.value} failed"
                yield _evidence(case, Oracle.FALSE_SUCCESS, message, _opened(use),
                                [failed.frames, *(o.frames for o in writes)],
                                sqlstate=sqlstate(failed.error), rows=_rows(case, writes))  # fmt: skip


def _uncommitted(use: ConnectionUse, answer: Answer) -> list[Operation]:
    """What the request has written, and what was still open when the answer was sent."""
    writes: list[Operation] = []
    for operation in use.operations:
        if operation.number >= answer.sent:
            break
        if operation.kind in (Kind.COMMIT, Kind.ROLLBACK):
            writes = []
        elif operation.writes and operation.error is None and operation.number >= answer.began:
            writes.append(operation)
    return writes


def _failed_before_commit(use: ConnectionUse, answer: Answer) -> Operation | None:
    """What failed after the answer, unless the transaction of the request was committed first."""
    for operation in use.operations:
        if operation.number >= answer.sent and operation.error is not None:
            return operation
        if operation.number >= answer.sent and operation.kind is Kind.COMMIT:
            return None
    return None


def given_up(case: Case) -> Iterator[Evidence]:
    """A conflict was handled by a rollback that took earlier rows along, and the function went on."""
    for use in case.recording.uses:
        writes: list[Operation] = []
        conflict: Operation | None = None
        began = 0
        for operation in use.operations:
            if operation.writes:
                if operation.error is None:
                    writes.append(operation)
                elif str(sqlstate(operation.error)).startswith("23"):
                    conflict = operation
            elif operation.kind is Kind.ROLLBACK_TO:
                conflict = None
            elif operation.kind in (Kind.COMMIT, Kind.ROLLBACK):
                if conflict is not None and operation.kind is Kind.ROLLBACK and _goes_on(case, operation):
                    lost = [write for write in writes if not _meant(case, write, conflict, operation, began)]
                    again = [o.table for o in case.recording.operations[operation.number :] if o.writes and not o.error]
                    if any([[o.table for o in lost].count(o.table) > again.count(o.table) for o in lost]):
                        yield _evidence(
                            case, Oracle.GIVEN_UP, f"{len(lost)} write(s) before the conflict were rolled back with it",
                            _opened(use), [operation.frames, conflict.frames, *(o.frames for o in lost)],
                            sqlstate=sqlstate(conflict.error), rows=_rows(case, lost),
                        )  # fmt: skip
                writes, conflict, began = [], None, operation.number


def _meant(case: Case, write: Operation, conflict: Operation, rollback: Operation, began: int) -> bool:
    """Whether who handles the conflict speaks of this write as well: one flush sent both, and he has added both."""
    if write.frames.key != conflict.frames.key or conflict.frames.through == "execute":
        return False
    added = [frames for record, table, number, frames in case.recording.added
             if record is write.session and table == write.table and began <= number <= write.number]  # fmt: skip
    handler = rollback.frames.first
    known = [(place.path, place.function) for frames in added for place in frames.places]
    return not added or handler is None or (handler.path, handler.function) in known


def _goes_on(case: Case, rollback: Operation) -> bool:
    """Whether the function that asked for the rollback uses the session after it: it has not raised instead."""
    place = rollback.frames.first
    if place is None or rollback.frames.through in CLOSING:
        return False
    later = [o.frames for o in case.recording.operations[rollback.number + 1 :] if o.kind is not Kind.CHECKIN]
    later += [frames for record, number, frames in case.recording.commits
              if number > rollback.number and record is rollback.session]  # fmt: skip
    function = (place.path, place.function)
    return any([p is not None and (p.path, p.function) == function for p in (frames.first for frames in later)])


def false_failures(case: Case) -> Iterator[Evidence]:
    """The client got an error, or the caller an exception, and what was written until then was committed."""
    for commit in case.recording.operations:
        if commit.kind is not Kind.COMMIT or commit.error is not None or commit.aborted or commit.use is None:
            continue
        before = commit.use.operations[: commit.use.operations.index(commit)]
        start = next((i for i in range(len(before), 0, -1) if before[i - 1].kind in (Kind.COMMIT, Kind.ROLLBACK)), 0)
        writes = [o for o in before[start:] if o.writes and o.error is None]
        told = _told(case, commit, writes)
        if told:
            yield _evidence(
                case, Oracle.FALSE_FAILURE, f"{told}, and {len(writes)} write(s) were committed", _opened(commit.use),
                [commit.frames, *(o.frames for o in writes)], rows=_rows(case, writes), xid=commit.xid,
            )  # fmt: skip


def _told(case: Case, commit: Operation, writes: list[Operation]) -> str:
    """What somebody was told of work that this COMMIT makes durable; empty if it was nothing bad."""
    place = commit.frames.first
    if place is None or not writes:
        return ""
    # A handler that commits by itself and then answers with an error means what it has written.
    if all([o.frames.first is None or o.frames.first.function != place.function for o in writes]):
        status = _refused(case, writes)
        if status:
            return f"the client got {status}"
    error = commit.during
    trace = error.__traceback__ if error is not None else None
    # One write may be the one that says how it went. The outermost frame that an exception has come to: not this one.
    if trace is None or len(writes) < 2 or place.function.endswith(trace.tb_frame.f_code.co_name):
        return ""
    return f"the caller got {type(error).__name__}"


def exceptions(case: Case) -> Iterator[Evidence]:
    """Runs that end in an exception which says by itself what is wrong."""
    for error in chain(case.error):
        text = str(error)
        frames = [raised(error), *(o.frames for o in case.recording.operations)]
        opened = next((s.opened for s in reversed(case.recording.sessions)), None)
        if isinstance(error, exc.InvalidRequestError) and "closed transaction inside context manager" in text:
            yield _evidence(case, Oracle.CLOSED_TRANSACTION, text.splitlines()[0][:120], opened, frames)
        elif isinstance(error, exc.InvalidRequestError) and any([words in text for words in _BEGUN]):
            yield _evidence(case, Oracle.BEGUN_TWICE, text.splitlines()[0][:120], opened, frames)
        elif isinstance(error, exc.TimeoutError):
            yield _evidence(case, Oracle.POOL_EXHAUSTED, text.splitlines()[0][:120], opened, frames)
        elif type(error).__name__ == "IllegalStateChangeError" or "concurrent operations are not permitted" in text:
            # The first is of SQLAlchemy 2.0 and later.
            yield _evidence(case, Oracle.CONCURRENT_USE, text.splitlines()[0][:120], opened, frames)
        elif isinstance(error, RuntimeError) and "generator didn't stop" in text:
            yield _evidence(case, Oracle.BROKEN_GENERATOR, f"RuntimeError: {text}", opened, frames)
        elif isinstance(error, TypeError) and "GeneratorContextManager" in text and not case.recording.uses:
            frames.append(about_to_call(error))
            yield _evidence(case, Oracle.BROKEN_DEPENDENCY, f"TypeError: {text}", opened, frames, checkouts=0)
        elif isinstance(error, AttributeError) and text.startswith(_NO_SESSION) and not case.recording.uses:
            yield _evidence(case, Oracle.BROKEN_DEPENDENCY, f"AttributeError: {text}", opened, frames, checkouts=0)


_NO_SESSION = ("'generator' object has no attribute", "'async_generator' object has no attribute")
_BEGUN = ("transaction is already begun on this Session", "already initialized a SQLAlchemy Transaction")


def concurrent_uses(case: Case) -> Iterator[Evidence]:
    """Two tasks or threads had a statement in flight on one session at the same time."""
    for running, second in case.recording.overlaps:
        use = second.use
        if use is not None:
            kind = "tasks" if second.who.task is not None else "threads"
            yield _evidence(case, Oracle.CONCURRENT_USE, f"two {kind} at once", _opened(use),
                            [running.frames, second.frames], first=running.frames, second=second.frames)  # fmt: skip


def slow_waits(case: Case) -> Iterator[Evidence]:
    """A task waited for something that is not the database, with a connection in its hands."""
    for wait in case.recording.waits:
        if wait.use is not None and wait.seconds >= case.slow:
            yield _evidence(case, Oracle.HELD_ACROSS_AWAIT, f"held while waiting at {wait.frames}", _opened(wait.use),
                            [wait.frames, wait.use.opened])  # fmt: skip


def never_awaited(warning: warnings.WarningMessage) -> Evidence | None:
    """Python says that a coroutine was dropped before it ran, and where."""
    text = str(warning.message)
    if "was never awaited" not in text:
        return None
    made = [Place(path, int(line), name) for path, line, name in _MADE.findall(text) if is_users(path)]
    if not made and not is_users(warning.filename):
        return None
    place = made[-1] if made else Place(warning.filename, warning.lineno, "")
    return Evidence(Oracle.NEVER_AWAITED, text.splitlines()[0], place, frozenset({place}))


_MADE = re.compile(r'^ *File "(.*)", line (\d+), in (.*)$', re.MULTILINE)
"""Where the coroutine was made, if Python was asked to remember that; else the place where it was dropped has to do."""


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, what caused it, and what exception groups hold."""
    seen: set[int] = set()
    todo = [error]
    while todo:
        each = todo.pop(0)
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        todo += [*getattr(each, "exceptions", ()), each.__cause__, each.__context__]


_ORACLES = (
    leaked_connections,
    dead_sessions,
    poisoned_sessions,
    aborted_commits,
    partial_commits,
    lost_writes,
    false_successes,
    false_failures,
    given_up,
    exceptions,
    concurrent_uses,
    slow_waits,
)
