"""The second connection: what the server says of the others, through no driver and no SQLAlchemy."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable
from typing import Any

from session_lint.runtime.wire import Address, Connection, WireError, identifier, literal

IDLE_IN_TRANSACTION = "idle in transaction"


class Observer:
    """Looks at one database. A database that can't be looked at gives empty answers: `reason` says why."""

    def __init__(self, address: Address | None, reason: str = "") -> None:
        self.reason = reason
        self._address = address
        self._connection: Connection | None = None
        self._lock = threading.Lock()

    @classmethod
    def of(cls, engine: Any) -> Observer:
        """For the database of an Engine, if it is PostgreSQL and its URL says where."""
        try:
            return cls(Address.parse(engine.url.render_as_string(hide_password=False)))
        except (ValueError, AttributeError) as error:
            return cls(None, str(error))

    def query(self, sql: str) -> list[tuple[str | None, ...]]:
        """The rows; none if the database can't be reached."""
        with self._lock:
            if self._address is None:
                return []
            for _ in range(2):  # the connection may have been lost with a server that was restarted
                try:
                    if self._connection is None:
                        self._connection = Connection(self._address, timeout=10)
                        self._connection.query("SET lock_timeout = '200ms'")  # nobody waits for who only looks
                    return self._connection.query(sql)
                except WireError as error:
                    self.reason = str(error)
                    if error.sqlstate and not error.sqlstate.startswith(("57P", "08")):
                        return []
                    self._drop()
        return []

    def state(self, pid: int | None) -> str:
        """What pg_stat_activity calls the backend's state; empty if there is no such backend."""
        return self._of_backend("state", pid)

    def xid(self, pid: int | None) -> str:
        """The transaction that the backend writes in."""
        return self._of_backend("backend_xid", pid)

    def _of_backend(self, column: str, pid: int | None) -> str:
        rows = self.query(f"SELECT {column} FROM pg_stat_activity WHERE pid = {pid}") if pid else []
        return rows[0][0] or "" if rows else ""

    def outcome(self, xid: str) -> str:
        """committed, aborted or in progress."""
        rows = self.query(f"SELECT pg_xact_status({literal(xid)}::xid8)") if xid else []
        return rows[0][0] or "" if rows else ""

    def terminate(self, pid: int) -> bool:
        """Kill a backend and wait until it is gone."""
        if self.query(f"SELECT pg_terminate_backend({pid})") != [("t",)]:
            return False
        for _ in range(500):
            if not self.query(f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}"):
                return True
            time.sleep(0.002)
        return False

    def rows(self, tables: Iterable[str]) -> dict[str, int]:
        """How many rows of each table a second connection sees."""
        counts = {}
        for table in sorted(set(tables)):
            name = ".".join(identifier(part) for part in table.split("."))
            with contextlib.suppress(ValueError, TypeError):
                rows = self.query(f"SELECT count(*) FROM {name}")
                if rows:
                    counts[table] = int(rows[0][0] or 0)
        return counts

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(WireError, OSError):
                connection.close()


class Observers:
    """One observer for each engine."""

    def __init__(self) -> None:
        self._observers: dict[Any, Observer] = {}

    def of(self, engine: Any) -> Observer:
        if engine is None:
            return Observer(None, "no statement was sent")
        key = str(engine.url)
        if key not in self._observers:
            self._observers[key] = Observer.of(engine)
        return self._observers[key]

    @property
    def reason(self) -> str:
        """Why the second connection saw nothing, in one line; empty if it was never refused."""
        return next((" ".join(o.reason.split()) for o in self._observers.values() if o.reason), "")

    def close(self) -> None:
        for observer in self._observers.values():
            observer.close()
        self._observers.clear()
