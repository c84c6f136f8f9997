"""What the drivers know of a connection without asking the server: each says it in its own way."""

from __future__ import annotations

import contextlib
from typing import Any


def driver_connection(dbapi_connection: Any) -> Any:
    """The driver's own connection below SQLAlchemy's asyncio adapter, or the same object."""
    return getattr(dbapi_connection, "_connection", dbapi_connection)


def backend_pid(dbapi_connection: Any) -> int | None:
    """The server process of a connection, if it is known locally."""
    connection = driver_connection(dbapi_connection)
    with contextlib.suppress(Exception):
        if hasattr(connection, "get_server_pid"):  # asyncpg
            return int(connection.get_server_pid())
        if hasattr(connection, "get_backend_pid"):  # psycopg2
            return int(connection.get_backend_pid())
        return int(connection.info.backend_pid)  # psycopg
    return None


def sqlstate(error: BaseException | None) -> str:
    """The SQLSTATE in an exception of a driver or of SQLAlchemy: psycopg calls it sqlstate, psycopg2 pgcode."""
    original = getattr(error, "orig", None) or error
    return str(getattr(original, "sqlstate", None) or getattr(original, "pgcode", None) or "")


def is_aborted(dbapi_connection: Any) -> bool | None:
    """Whether the driver says that the transaction is aborted; None if it does not know (asyncpg)."""
    connection = driver_connection(dbapi_connection)
    with contextlib.suppress(Exception):
        if hasattr(connection, "get_transaction_status"):  # psycopg2
            return int(connection.get_transaction_status()) == _IN_ERROR
        return int(connection.info.transaction_status) == _IN_ERROR
    return None


_IN_ERROR = 3  # libpq's PQTRANS_INERROR
