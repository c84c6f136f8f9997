"""Watches every engine and session of this process through SQLAlchemy's events, and changes nothing.

The one thing that has no event is the making of a session; `Session.__init__` is therefore wrapped, so that
evidence can say where the session was opened and not only where it was first used.

An exception in a hook never reaches the application: the first one is kept in `Probe.lost`, as one line.
"""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.engine.events import DialectEvents
from sqlalchemy.orm import Session, object_mapper
from sqlalchemy.pool import Pool

from session_lint.runtime import answers
from session_lint.runtime.drivers import backend_pid, is_aborted, sqlstate
from session_lint.runtime.observer import Observers
from session_lint.runtime.places import NOWHERE, Frames, Site, here, is_within, waiting
from session_lint.runtime.recording import (
    ConnectionUse,
    Kind,
    Operation,
    Recording,
    SessionRecord,
    Who,
    changes_rows,
)

_SHORT = 200

# Python 3.11 takes longer for a member of an enum than for anything else in a hook.
_STATEMENT, _CHECKIN = Kind.STATEMENT, Kind.CHECKIN

_GLANCE = 0.015
"""Seconds after which one looks what the tasks with a connection wait for, unless every await is to be known: less
than a third of what counts as slow."""

_session_site, _checkout_site, _statement_site, _engine_site = Site(), Site(), Site(), Site()

_EVERY_SELECT = {"checkout", "checkin", "after_begin", "do_execute", "after_transaction_end"}
"""The hooks that catch their exceptions themselves: a function around each would be the dearest of its lines."""

CLOSING = frozenset({"close", "aclose", "__exit__", "__aexit__", "remove", "dispose"})
"""The functions of SQLAlchemy that roll back without anybody's asking for it."""


_threads: dict[int, Who] = {}
_current: dict[int, Who] = {}
"""The task that ran last in each thread."""


def whoever() -> Who:
    """The task, or else the thread, that runs now."""
    thread = threading.get_ident()
    # Asking for the task where no loop runs raises, which costs more than everything else here.
    loop = asyncio._get_running_loop()
    if loop is None:
        return _threads.get(thread) or _threads.setdefault(thread, Who(thread))
    task, who = asyncio.current_task(loop), _current.get(thread)
    if who is None or who.task is not task:
        who = _current[thread] = Who(thread, task)
    return who


class Probe:
    """Begins with `start()`; `recording` is what was seen since `begin()` was called last."""

    def __init__(self, observers: Observers | None = None, *, thorough: bool = False) -> None:
        """thorough: know all callers of every operation, and of every COMMIT which transaction it ends.

        That costs a query for each transaction that writes, and walks over the whole stack. Otherwise what opens,
        executes, commits or throws writes away knows its own line, and the rest no place: most of the probe's cost
        is in looking for places.
        """
        self.recording = Recording()
        self.lost = ""
        self.observers = observers or Observers()
        self.exempt = False
        """Whether what is opened now belongs to somebody who outlives the recording."""
        self.asking: bool
        """Whether a second connection may look now: while it is there, nobody can drop or copy the database."""
        self._thorough = self.asking = thorough
        self._depth = 24 if thorough else 1
        self.on_wait: Callable[[Operation], None] = _nothing
        self.on_checkin: Callable[[ConnectionUse, Any], None] | None = None
        self._count = 0
        """Of the sessions that were made."""
        self._uses: dict[int, ConnectionUse] = {}  # by the pool's record
        self._look_later = self._guarded(self._waits)
        self._glance_later = self._guarded(self._glance)
        self._looking: set[Any] = set()
        """The event loops in which a look at the connections in use is due."""

    # ------------------------------------------------------------------------------------------- beginning and end

    def start(self) -> None:
        """Attach the hooks to all engines, pools and sessions, those that exist and those to come."""
        hooks: dict[Any, str] = {
            Pool: "checkout checkin detach invalidate",
            Engine: "commit rollback savepoint release_savepoint rollback_savepoint handle_error ",
            Session: "after_begin after_transaction_end pending_to_transient",
        }
        if self._thorough:
            hooks[Session] += " do_orm_execute after_commit transient_to_pending"
            hooks[Engine] += "begin before_cursor_execute after_cursor_execute"
        else:
            hooks[Engine] += "do_execute do_executemany do_execute_no_params"
        had_events = Engine._has_events
        for target, names in hooks.items():
            for name in names.split():
                hook = getattr(self, f"_{name}")
                event.listen(target, name, hook if name in _EVERY_SELECT else self._guarded(hook))
        if not self._thorough and hasattr(DialectEvents, "handle_error"):
            # A Connection that has events costs nearly as much as all hooks together. What only reads has none, until
            # `_tell_end` asks for them. SQLAlchemy 1.4 has to be asked at once: it tells failures in no other way.
            Engine._has_events = had_events
        self._wrap_init()
        if self._thorough:
            sys.set_coroutine_origin_tracking_depth(1)
        if hasattr(os, "register_at_fork"):
            # The connections of a parent are not the child's to judge.
            os.register_at_fork(after_in_child=self._forget)

    def _guarded(self, hook: Callable[..., object]) -> Callable[..., None]:
        """The hook as SQLAlchemy gets it: whatever the version passes, and nothing that it raises comes out."""

        def call(*arguments: Any) -> None:
            try:
                hook(*arguments)
            except Exception as error:  # noqa: BLE001 - the application must not see it
                self.lose(f"{getattr(hook, '__name__', '').lstrip('_')} events", error)

        return call

    def lose(self, what: str, error: Exception) -> None:
        """Keep the first failure of the shim itself as the one line that says what it did not see."""
        self.lost = self.lost or f"the shim lost {what}: {type(error).__name__}: {' '.join(str(error).split())}"

    def begin(self) -> Recording:
        """Start a new recording. What is still checked out stays known and will not be blamed on the new one."""
        self.recording = Recording()
        self._looking.clear()
        for use in self._uses.copy().values():
            use.idle = None
        _current.clear()
        answers.watch(lambda: self.recording)
        return self.recording

    def _forget(self) -> None:
        self.recording, self.observers = Recording(), Observers()
        self.on_wait, self.on_checkin = _nothing, None
        self._uses.clear()
        self._looking.clear()

    def _wrap_init(self) -> None:
        plain: Any = Session.__init__
        made = self._made

        @functools.wraps(plain)
        def init(session: Session, *arguments: Any, **named: Any) -> None:
            plain(session, *arguments, **named)
            made(session)

        Session.__init__ = init  # type: ignore[assignment,method-assign,unused-ignore]

    def _made(self, session: Session) -> None:
        try:
            recording = self.recording
            record = self._record(session, here(2, self._depth) if self._thorough else _session_site.nearest())
            record.recording = recording
            if self.exempt:
                record.exempt = True
            recording.sessions.append(record)
        except Exception as error:  # noqa: BLE001 - here and below: the application must not see it
            self.lose("made events", error)

    # ------------------------------------------------------------------------------------------------------- pool

    def _checkout(self, dbapi_connection: Any, record: Any, proxy: Any) -> None:
        try:
            recording, who = self.recording, whoever()
            opened = here(2) if self._thorough else _checkout_site.nearest()
            use = ConnectionUse(len(recording.uses) + 1, opened, who, proxy, record)
            if self.exempt:
                use.exempt = True
            recording.uses.append(use)
            self._uses[id(record)] = use
            if self._thorough:
                recording.add(Kind.CHECKOUT, opened, use, who)
        except Exception as error:  # noqa: BLE001
            self.lose("checkout events", error)

    def _checkin(self, dbapi_connection: Any, record: Any) -> None:
        try:
            use = self._ended(record, _CHECKIN)
            if use is not None and self.on_checkin is not None:
                self.on_checkin(use, dbapi_connection)
        except Exception as error:  # noqa: BLE001
            self.lose("checkin events", error)

    def _detach(self, dbapi_connection: Any, record: Any) -> None:
        self._ended(record, Kind.DETACH)

    def _ended(self, record: Any, kind: Kind) -> ConnectionUse | None:
        use = self._uses.pop(id(record), None)
        if use is None:
            return None
        if self._thorough:
            self.recording.add(kind, here(3, 1), use, whoever())
        if use.waiting is not None:
            use.waited()
        use.outcome, use.seconds = kind, time.monotonic() - use.since
        use.proxy = use.pool_record = use.latest = None
        return use

    def _invalidate(self, dbapi_connection: Any, record: Any, exception: Any) -> None:
        use = self._uses.get(id(record))
        if use is not None:
            operation = self.recording.add(Kind.INVALIDATE, here(4, 1), use, whoever())
            operation.error = exception
            use.latest = None

    # ----------------------------------------------------------------------------------------------------- engine

    def use_of(self, connection: Any) -> ConnectionUse | None:
        """What is known of the connection that this Connection of SQLAlchemy works on."""
        # The property `connection` would connect anew where the connection was lost, and asking for that first is slow.
        proxy = connection._dbapi_connection
        # While SQLAlchemy 1.4 makes itself known to a database, it works on the bare connection of the driver.
        use = self._uses.get(id(getattr(proxy, "_connection_record", None)))
        if use is None or use.proxy is not proxy:
            return None
        if use.engine is None:
            use.engine = connection.engine
        return use

    def _engine(self, kind: Kind, connection: Any) -> Operation | None:
        use = self.use_of(connection)
        if use is None:
            return None
        return self.recording.add(kind, here(4) if self._thorough else _engine_site.nearest(), use, whoever())

    def _begin(self, connection: Any) -> None:
        self._engine(Kind.BEGIN, connection)

    def _commit(self, connection: Any) -> None:
        operation = self._engine(Kind.COMMIT, connection)
        if operation is None or operation.use is None:
            return
        use = operation.use
        if self._thorough:
            operation.during = sys.exc_info()[1]
        dbapi_connection = use.pool_record.dbapi_connection
        operation.xid, use.xid = use.xid, ""
        # An error that the server never saw aborts nothing. asyncpg can't tell, so the server is asked.
        if use.aborted_by is not None and sqlstate(use.aborted_by.error) and is_aborted(dbapi_connection) is not False:
            state = self.observers.of(use.engine).state(backend_pid(dbapi_connection))
            if "aborted" in state or not state:
                operation.aborted = True
                self.recording.aborted_commits.append((operation, state))
        use.aborted_by = None
        self._watch_wait(use, operation.who)

    def _rollback(self, connection: Any) -> None:
        use = self.use_of(connection)
        if use is not None:
            if self._thorough or use.writes or use.aborted_by is not None:
                operation = self.recording.add(Kind.ROLLBACK, here(3, self._depth), use, whoever())
                operation.during = sys.exc_info()[1]
                # The proxy's: what was released with an earlier recording has no pool record any more.
                use.autocommit = getattr(connection._dbapi_connection.dbapi_connection, "autocommit", False) is True
            use.aborted_by = None

    def _savepoint(self, connection: Any, name: Any) -> None:
        self._engine(Kind.SAVEPOINT, connection)

    def _release_savepoint(self, connection: Any, *_: Any) -> None:
        self._engine(Kind.RELEASE, connection)

    def _rollback_savepoint(self, connection: Any, *_: Any) -> None:
        operation = self._engine(Kind.ROLLBACK_TO, connection)
        if operation is not None and operation.use is not None:
            operation.use.aborted_by = None

    def _before_cursor_execute(self, connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        self._statement(connection, statement)

    def _do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any) -> None:
        try:
            self._statement(context.root_connection, statement)
        except Exception as error:  # noqa: BLE001
            self.lose("do_execute events", error)

    def _do_executemany(self, cursor: Any, statement: str, parameters: Any, context: Any) -> None:
        self._statement(context.root_connection, statement)

    def _do_execute_no_params(self, cursor: Any, statement: str, context: Any) -> None:
        self._statement(context.root_connection, statement)

    def _statement(self, connection: Any, statement: str) -> None:
        use = self.use_of(connection)
        if use is None:
            return
        who = whoever()
        frames = here(4) if self._thorough else _statement_site.nearest()
        operation = self.recording.add(_STATEMENT, frames, use, who, statement[:_SHORT])
        if self.asking and (table := operation.table) and table not in self.recording.rows_before:
            self.recording.rows_before.update(self.observers.of(use.engine).rows([table]))
        before, use.latest = use.latest, operation
        if before is not None and before.who is not who and before.who != who and is_within(connection, *before.who):
            self.recording.overlaps.append((before, operation))
        if not use.writes and changes_rows(operation.text):
            use.writes = True
            _tell_end(connection)
        if not self._thorough and who.task is not None:
            self._watch_wait(use, who)

    def _after_cursor_execute(self, connection: Any, *_: Any) -> None:
        use = self.use_of(connection)
        if use is not None:
            operation = use.latest
            if self.asking and not use.xid and operation is not None and operation.writes:
                use.xid = self.observers.of(use.engine).xid(backend_pid(use.pool_record.dbapi_connection))
            self._watch_wait(use, whoever())

    def _handle_error(self, context: Any) -> None:
        connection = context.connection
        if connection is None:
            return
        use = self.use_of(connection)
        done = [operation for operation in use.operations if operation.kind is not Kind.WAIT] if use is not None else []
        if use is None or not done:
            return
        who = whoever()
        operation = next((operation for operation in reversed(done) if operation.who == who), done[-1])
        operation.error = context.original_exception
        if operation.kind is Kind.STATEMENT:
            use.aborted_by = operation
            _tell_end(connection)

    # -------------------------------------------------------------------------------------------------- sessions

    def _after_begin(self, session: Any, transaction: Any, connection: Any) -> None:
        try:
            use = self.use_of(connection)
            if use is None:
                return
            record = self._known(session)
            record.session = session
            if use.session is None:
                use.session = record
                if use.operations:
                    record.operations.extend(use.operations)
        except Exception as error:  # noqa: BLE001
            self.lose("after_begin events", error)

    def _after_transaction_end(self, session: Any, transaction: Any) -> None:
        try:
            if transaction._parent is None:
                self._known(session).session = None
        except Exception as error:  # noqa: BLE001
            self.lose("after_transaction_end events", error)

    def _do_orm_execute(self, state: Any) -> None:
        session = state.session
        if not session.is_active:
            self.recording.dead_uses.append((self._known(session), here(4)))

    def _after_commit(self, session: Any) -> None:
        self.recording.commits.append((self._known(session), len(self.recording.operations), here(4)))

    def _transient_to_pending(self, session: Any, instance: Any) -> None:
        table = getattr(object_mapper(instance).local_table, "fullname", "")
        self.recording.added.append((self._known(session), table, len(self.recording.operations), here(4)))

    def _pending_to_transient(self, session: Any, instance: Any) -> None:
        frames = here(4)
        if frames.through in CLOSING and sys.exc_info()[1] is None:
            self._known(session).unflushed += (frames,)

    def _known(self, session: Any) -> SessionRecord:
        # An attribute is quicker than a weak mapping; to ask for `__dict__` would make all attributes of it slower.
        try:
            record: SessionRecord = session._session_lint_record
        except AttributeError:
            record = self._record(session, NOWHERE)
        if record.recording is not self.recording:
            # A session that lives longer than a recording: what it did before is not this one's.
            record.recording, record.operations, record.unflushed = self.recording, [], ()
            self.recording.sessions.append(record)
        return record

    def _record(self, session: Any, opened: Frames) -> SessionRecord:
        self._count += 1
        record = session._session_lint_record = SessionRecord(self._count, opened, type(session).__name__)
        return record

    # -------------------------------------------------------------------------------------- waits of asyncio tasks

    def _watch_wait(self, use: ConnectionUse, who: Who) -> None:
        """See, at the loop's next turn or soon, whether the task waits for something else with the connection."""
        task = who.task
        if task is None:
            return
        loop = task.get_loop()
        if self._thorough:
            loop.call_soon(self._look_later, use, who, use.serial)
            return
        use.idle = who, use.serial, time.monotonic()
        if loop not in self._looking:
            self._look_soon(loop)

    def _look_soon(self, loop: Any) -> None:
        # One timer for many statements: a turn of the loop for each of them costs more than all other hooks.
        self._looking.add(loop)
        loop.call_later(_GLANCE, self._glance_later, loop)

    def _glance(self, loop: Any) -> None:
        self._looking.discard(loop)
        now, again = time.monotonic(), False
        for use in self._uses.copy().values():
            if use.idle is None or use.idle[0].task.get_loop() is not loop:
                continue
            who, serial, since = use.idle
            if use.serial == serial and now - since < _GLANCE / 2:
                again = True
            # What a blocked loop came late by is no wait.
            elif self._waits(use, who, serial, max(since, now - 2 * _GLANCE)):
                use.idle, again = (who, serial, now), True
            else:
                use.idle = None
        if again:
            self._look_soon(loop)

    def _waits(self, use: ConnectionUse, who: Who, serial: int, since: float | None = None) -> bool:
        """Note what the task waits for, with the connection in its hands. Gives whether that is the database still."""
        if not use.out or use.serial != serial or who.gone:
            return False
        frames, for_database = waiting(who.task)
        if not for_database and frames.first is not None:
            operation = self.recording.add(Kind.WAIT, frames, use, who)
            self.recording.wait(operation, time.monotonic() if since is None else since)
            self.on_wait(operation)
        return for_database


def _tell_end(connection: Any) -> None:
    """From now on, this Connection tells its COMMIT and ROLLBACK to those who listen at its engine."""
    connection._has_events = True


def _nothing(*_: Any) -> None:
    """What faults put something in the place of."""
