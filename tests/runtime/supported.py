"""What the installed SQLAlchemy can do: the shim's tests run with every version that it supports."""

from __future__ import annotations

import sqlalchemy

IS_SQLALCHEMY_1 = sqlalchemy.__version__.startswith("1.")

SYNC_DRIVER = "psycopg2" if IS_SQLALCHEMY_1 else "psycopg"
ASYNC_DRIVERS = ("asyncpg",) if IS_SQLALCHEMY_1 else ("asyncpg", "psycopg")
