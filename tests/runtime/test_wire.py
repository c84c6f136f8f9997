"""The client that watches: what it reads, what it says when the server says no, and every way to log in."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Iterator

import pytest

from session_lint.runtime.postgres import ENVIRONMENT, Database
from session_lint.runtime.wire import Address, Connection, WireError, identifier, literal

pytestmark = pytest.mark.postgres


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with database.connect() as connection:
        yield connection


def test_rows_come_as_the_servers_text(connection: Connection) -> None:
    assert connection.query("SELECT 1, NULL, '', 'naïve ü', true UNION ALL SELECT 2, 'x', 'y', 'z', false") == [
        ("1", None, "", "naïve ü", "t"),
        ("2", "x", "y", "z", "f"),
    ]


def test_of_several_statements_the_last_rows_count(connection: Connection) -> None:
    assert connection.query("SELECT 1; CREATE TABLE t (a int); INSERT INTO t VALUES (7); SELECT a FROM t") == [("7",)]
    assert connection.query("DELETE FROM t") == []
    assert connection.query("") == []


def test_an_error_has_its_sqlstate_and_leaves_the_connection_usable(connection: Connection) -> None:
    with pytest.raises(WireError, match="division by zero") as caught:
        connection.query("SELECT 1/0")
    assert caught.value.sqlstate == "22012"
    with pytest.raises(WireError, match="syntax error") as caught:
        connection.query("SELEC")
    assert caught.value.sqlstate == "42601"
    assert connection.query("SELECT 1") == [("1",)]


def test_copy_from_stdin_is_refused_and_not_waited_for(connection: Connection) -> None:
    connection.query("CREATE TABLE t (a int)")
    with pytest.raises(WireError) as caught:
        connection.query("COPY t FROM STDIN")
    assert caught.value.sqlstate == "57014"
    assert connection.query("SELECT count(*) FROM t") == [("0",)]


@pytest.mark.parametrize("text", ["plain", "it's", 'double "quotes"', "back\\slash", "\\' OR 1=1 --", "new\nline", "ü"])
def test_quoting_survives_anything(connection: Connection, text: str) -> None:
    assert connection.query(f"SELECT {literal(text)}") == [(text,)]
    connection.query(f"CREATE TABLE {identifier(text)} (a int)")
    assert connection.query("SELECT relname FROM pg_class WHERE relkind = 'r' AND relname !~ '^(pg|sql)_'") == [(text,)]


def test_threads_take_turns_on_one_connection(connection: Connection) -> None:
    results: list[list[tuple[str | None, ...]]] = []
    threads = [
        threading.Thread(target=lambda n=n: results.append(connection.query(f"SELECT {n}, pg_sleep(0.01)")))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(row[0][0] or "" for row in results) == [str(n) for n in range(8)]


def test_a_terminated_backend_is_an_error_not_a_hang(database: Database, connection: Connection) -> None:
    with database.connect() as other:
        other.query(f"SELECT pg_terminate_backend({connection.process_id})")
    with pytest.raises(WireError):
        connection.query("SELECT 1")


@pytest.mark.skipif(ENVIRONMENT in os.environ, reason="changes pg_hba.conf, which is not for somebody else's server")
@pytest.mark.parametrize(
    ("method", "encryption"), [("scram-sha-256", "scram-sha-256"), ("md5", "md5"), ("password", "scram-sha-256")]
)
def test_logs_in_by_password(database: Database, method: str, encryption: str) -> None:
    role, password = f"role_{method.replace('-', '_')}", "p@ss:w/ö rd'"
    with database.connect() as admin:
        (rules,) = admin.query("SHOW hba_file")[0]
        assert rules is not None
        admin.query(f"SET password_encryption = {literal(encryption)}; DROP ROLE IF EXISTS {role}")
        admin.query(f"CREATE ROLE {role} LOGIN PASSWORD {literal(password)}")
        with open(rules, "r+") as file:  # noqa: PTH123 - keeps the file's owner
            before = file.read()
            file.seek(0)
            file.write(f"host all {role} 127.0.0.1/32 {method}\n{before}")
        reload_rules(database)
        try:
            address = dataclasses.replace(database.server.address, user=role, password=password, database=database.name)
            with Connection(Address.parse(address.url("psycopg"))) as connection:
                assert connection.query("SELECT current_user") == [(role,)]
            with pytest.raises(WireError, match="password authentication failed") as caught:
                Connection(dataclasses.replace(address, password="wrong"))
            assert caught.value.sqlstate == "28P01"
            with pytest.raises(WireError, match=f"wants a password for user {role}"):
                Connection(dataclasses.replace(address, password=None))
        finally:
            with open(rules, "r+") as file:  # noqa: PTH123
                file.write(before)
                file.truncate()
            reload_rules(database)
            admin.query(f"DROP ROLE {role}")


def reload_rules(database: Database) -> None:
    """Reload pg_hba.conf and wait until new connections go by it."""
    loaded = "SELECT pg_conf_load_time()"
    with database.connect() as first:
        before = first.query(loaded)
        first.query("SELECT pg_reload_conf()")
    for _ in range(200):
        with database.connect() as later:
            if later.query(loaded) != before:
                return
        time.sleep(0.01)
    pytest.fail("the server did not reload its rules")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("postgresql://u:p%40ss@db:5433/app", Address("db", 5433, "u", "p@ss", "app")),
        ("postgresql+asyncpg://u@db/app?ssl=require", Address("db", 5432, "u", None, "app", (("sslmode", "require"),))),
        ("postgres://u@[::1]:1/app", Address("::1", 1, "u", None, "app")),
        ("postgresql+psycopg://u@/app?host=/run/pg&port=7", Address("/run/pg", 7, "u", None, "app")),
        ("postgresql://u@db", Address("db", 5432, "u", None, "u")),
    ],
)
def test_urls_are_read_as_drivers_write_them(url: str, address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGPASSWORD", raising=False)
    assert Address.parse(url) == address
    for driver in (None, "psycopg", "asyncpg"):
        assert Address.parse(address.url(driver)) == address


def test_a_url_in_a_message_has_no_password() -> None:
    assert str(Address.parse("postgresql://u:secret@db/app")) == "postgresql://u@db:5432/app"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://u@db/app", "not mysql://"),
        ("localhost", "not no scheme://"),
        ("postgresql://u@db:port/app", "port is not a number"),
    ],
)
def test_what_is_no_url_of_postgresql_is_said(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Address.parse(url)
