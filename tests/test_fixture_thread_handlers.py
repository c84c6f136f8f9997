"""The four variants of the thread handlers on a real PostgreSQL: what each leaves behind when something fails."""

from __future__ import annotations

import asyncio
import contextlib
import filecmp
import functools
import gc
import importlib.util
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import event, exc, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session
from sqlalchemy.util import greenlet_spawn

from session_lint.runtime.postgres import Database
from session_lint.runtime.wire import Connection

pytestmark = pytest.mark.postgres

FIXTURE = Path(__file__).parent.parent / "fixtures" / "thread_handlers"
VARIANTS = ("before", "after", "guarded", "recommended")
ME = {"X-User-Id": "me"}
POOL = 2

IDLE_IN_TRANSACTION = "idle in transaction"
ABORTED = "idle in transaction (aborted)"
IDLE = "idle"

# The eight requests, as the handlers are named. {} stands for a thread's identifier.
REQUESTS: dict[str, tuple[str, str, object]] = {
    "list": ("GET", "/threads", None),
    "create": ("POST", "/threads", {"title": "new", "first_message": "Hello"}),
    "get": ("GET", "/threads/{}", None),
    "update": ("PUT", "/threads/{}", {"title": "changed"}),
    "delete": ("DELETE", "/threads/{}", None),
    "messages": ("GET", "/threads/{}/messages", None),
    "auto_rename": ("POST", "/threads/{}/auto-rename", None),
    "send": ("POST", "/threads/{}/messages", {"content": "More"}),
}
WITH_A_THREAD = [name for name, (_, path, _) in REQUESTS.items() if "{}" in path]
WRITERS = [name for name, (method, _, _) in REQUESTS.items() if method != "GET"]
SOUND_BEFORE = {"messages", "send"}


@pytest.fixture(autouse=True)
def no_garbage_collection() -> Iterator[None]:
    """What is left behind must not go away because the collector happens to run."""
    gc.disable()
    yield
    gc.enable()
    gc.collect()


# How many connections are checked out, and the states of those that the server does not call idle.
Left = tuple[int, list[str]]
NOTHING: Left = (0, [])


@dataclass
class Application:
    """A variant that runs in this process, and an observer of its database that it knows nothing of."""

    client: httpx.AsyncClient
    engine: AsyncEngine
    observer: Connection
    sessions: list[Session]

    async def request(self, name: str, thread: str = "", headers: dict[str, str] = ME) -> httpx.Response:
        method, path, body = REQUESTS[name]
        return await self.client.request(method, path.format(thread), json=body, headers=headers)

    async def thread(self) -> str:
        """A thread of mine with one message, made by the application."""
        response = await self.request("create")
        assert response.status_code == 201
        identifier: str = response.json()["id"]
        return identifier

    async def left(self) -> Left:
        """What is left behind now. An asynchronous clean-up gets the time that it needs."""
        await asyncio.sleep(0.01)
        rows = self.observer.query(
            "SELECT state FROM pg_stat_activity WHERE datname = current_database() "
            "AND backend_type = 'client backend' AND application_name <> 'session-lint'"
        )
        count: int = self.engine.pool.checkedout()  # type: ignore[attr-defined]
        return count, sorted(state for (state,) in rows if state and state != IDLE)

    async def make_room(self) -> None:
        """Clean up what was left behind, once the test has seen it: the pool is small."""
        for session in self.sessions:
            await greenlet_spawn(session.close)
        self.sessions.clear()

    async def left_by(self, name: str, thread: str = "", *, status: int, headers: dict[str, str] = ME) -> Left:
        """Make a request that answers with this status, and say what it left behind."""
        response = await self.request(name, thread, headers)
        assert (name, response.status_code) == (name, status)
        left = await self.left()
        await self.make_room()
        return left

    async def waits_for_a_lock(self) -> None:
        for _ in range(500):
            rows = self.observer.query(
                "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            if rows:
                return
            await asyncio.sleep(0.01)
        pytest.fail("the request never came to wait for the lock")


@contextlib.asynccontextmanager
async def running(variant: str, database: Database, driver: str = "asyncpg") -> AsyncIterator[Application]:
    """Start the variant with a pool of two connections, and keep alive every session that it uses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", database.url(driver))
        patch.setenv("DATABASE_POOL_SIZE", str(POOL))
        patch.setenv("DATABASE_MAX_OVERFLOW", "0")
        patch.setenv("DATABASE_POOL_TIMEOUT", "0.2")
        main, db = load(variant)
    transport = httpx.ASGITransport(main.app, raise_app_exceptions=False)
    sessions: list[Session] = []

    def keep(session: Session, *_: object) -> None:
        if session not in sessions:
            sessions.append(session)

    event.listen(Session, "after_begin", keep)
    try:
        async with main.app.router.lifespan_context(main.app):
            with database.connect() as observer:
                async with httpx.AsyncClient(transport=transport, base_url="http://fixture") as client:
                    application = Application(client, db.engine, observer, sessions)
                    yield application
                    await application.make_room()
    finally:
        event.remove(Session, "after_begin", keep)


def load(variant: str) -> tuple[Any, Any]:
    """The variant's modules `main` and `db`, new each time, as a package that is not called `app`."""
    name = f"thread_handlers_{variant}"
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]
    place = FIXTURE / variant / "app"
    spec = importlib.util.spec_from_file_location(name, place / "__init__.py", submodule_search_locations=[str(place)])
    assert spec is not None
    sys.modules[name] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"{name}.main"), importlib.import_module(f"{name}.db")


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Let pytest call an async test."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


def fail_commits(database: Database, sqlstate: str = "23514") -> None:
    """Let every COMMIT fail that has written a thread: the work itself succeeds, the end of it does not."""
    with database.connect() as connection:
        connection.query(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE 'no commit today' USING ERRCODE = '{sqlstate}'; END $$;"
            "CREATE CONSTRAINT TRIGGER fail AFTER INSERT OR UPDATE ON threads "
            "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fail()"
        )


def expected(variant: str, request: str, state: str) -> Left:
    """In before/ a failed request leaves one connection in this state, but for the two handlers that are sound."""
    if variant != "before" or request in SOUND_BEFORE:
        return NOTHING
    return 1, [state] if state != IDLE else []


def test_variants_differ_only_where_they_must() -> None:
    def differing(one: str, two: str) -> set[str]:
        names = {path.name for variant in (one, two) for path in (FIXTURE / variant / "app").glob("*.py")}
        _, mismatch, errors = filecmp.cmpfiles(FIXTURE / one / "app", FIXTURE / two / "app", names, shallow=False)
        return {*mismatch, *errors}

    assert differing("before", "after") == {"thread_handlers.py"}
    assert differing("before", "guarded") == {"db.py"}
    assert differing("guarded", "recommended") == {"repositories.py", "thread_handlers.py"}


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("variant", VARIANTS)
@in_a_loop
async def test_all_eight_requests_succeed_and_leave_nothing(variant: str, driver: str, database: Database) -> None:
    async with running(variant, database, driver) as application:
        created = await application.request("create")
        assert created.status_code == 201
        thread = created.json()["id"]
        assert (created.json()["title"], created.json()["message_count"]) == ("new", 1)

        sent = await application.request("send", thread)
        assert (sent.status_code, sent.json()["role"], sent.json()["content"]) == (201, "user", "More")

        page = (await application.request("messages", thread)).json()
        assert ([message["content"] for message in page["messages"]], page["total"]) == (["Hello", "More"], 2)

        updated = await application.request("update", thread)
        assert (updated.status_code, updated.json()["title"], updated.json()["message_count"]) == (200, "changed", 2)

        renamed = await application.request("auto_rename", thread)
        assert (renamed.status_code, renamed.json()["title"], renamed.json()["message_count"]) == (200, "Hello", 2)

        got = await application.request("get", thread)
        assert (got.status_code, got.json()) == (200, renamed.json())

        listed = await application.request("list")
        assert (listed.status_code, listed.json()) == (200, [got.json()])

        deleted = await application.request("delete", thread)
        assert (deleted.status_code, deleted.content) == (204, b"")
        assert (await application.request("list")).json() == []
        assert await application.left() == NOTHING
        assert application.observer.query("SELECT title, archived_at IS NULL FROM threads") == [("Hello", "f")]


@pytest.mark.parametrize("variant", VARIANTS)
@in_a_loop
async def test_a_thread_that_is_not_found(variant: str, database: Database) -> None:
    async with running(variant, database) as application:
        thread = await application.thread()
        for request in WITH_A_THREAD:
            left = await application.left_by(request, thread, status=404, headers={"X-User-Id": "somebody else"})
            assert (request, left) == (request, expected(variant, request, IDLE_IN_TRANSACTION))


@pytest.mark.parametrize("variant", VARIANTS)
@in_a_loop
async def test_a_request_that_is_refused(variant: str, database: Database) -> None:
    async with running(variant, database) as application:
        thread = await application.thread()
        application.observer.query("DELETE FROM messages")
        left = await application.left_by("auto_rename", thread, status=409)
        assert left == expected(variant, "auto_rename", IDLE_IN_TRANSACTION)


@pytest.mark.parametrize("variant", VARIANTS)
@in_a_loop
async def test_a_statement_that_fails(variant: str, database: Database) -> None:
    with database.connect() as admin:
        admin.query(f"ALTER DATABASE {database.name} SET lock_timeout = '50ms'")
    async with running(variant, database) as application:
        thread = await application.thread()
        with database.connect() as other:
            other.query("BEGIN; LOCK TABLE threads")
            for request in REQUESTS:
                left = await application.left_by(request, thread, status=500)
                # When a flush fails the session rolls back by itself, but it keeps the connection.
                state = IDLE if request == "create" else ABORTED
                assert (request, left) == (request, expected(variant, request, state))


@pytest.mark.parametrize("sqlstate", ["23514", "40001"])
@pytest.mark.parametrize("variant", VARIANTS)
@in_a_loop
async def test_a_commit_that_fails(variant: str, sqlstate: str, database: Database) -> None:
    everything = "SELECT * FROM threads; SELECT * FROM threads LEFT JOIN messages ON thread_id = threads.id"
    async with running(variant, database) as application:
        thread = await application.thread()
        rows = application.observer.query(everything)
        fail_commits(database, sqlstate)
        for request in WRITERS:
            left = await application.left_by(request, thread, status=500)
            assert (request, left) == (request, expected(variant, request, IDLE))
        assert application.observer.query(everything) == rows


@pytest.mark.parametrize("variant", VARIANTS)
@in_a_loop
async def test_as_many_failures_as_the_pool_has_connections(variant: str, database: Database) -> None:
    async with running(variant, database) as application:
        thread = await application.thread()
        for _ in range(POOL):
            assert (await application.request("get", "no such thread")).status_code == 404
        response = await application.request("get", thread)
        if variant == "before":
            assert response.status_code == 500
            assert await application.left() == (POOL, [IDLE_IN_TRANSACTION] * POOL)
            with pytest.raises(exc.TimeoutError, match="QueuePool limit of size 2 overflow 0 reached"):
                await application.engine.connect()
        else:
            assert response.status_code == 200
            assert await application.left() == NOTHING


class BusyWorker(ThreadPoolExecutor):
    """Takes the work and never gets round to it."""

    def __init__(self) -> None:
        super().__init__(1)
        self.asked = asyncio.Event()

    def submit(self, *_: Any, **__: Any) -> Future[Any]:
        self.asked.set()
        return Future()


@pytest.mark.parametrize("variant", VARIANTS)
@in_a_loop
async def test_cancelled_while_it_waits_for_something_else(variant: str, database: Database) -> None:
    """Auto-rename has a worker thread make the title. `except Exception` does not see that its task is cancelled."""
    async with running(variant, database) as application:
        thread = await application.thread()
        worker = BusyWorker()
        asyncio.get_running_loop().set_default_executor(worker)
        task = asyncio.create_task(application.request("auto_rename", thread))
        await asyncio.wait_for(worker.asked.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await application.left() == ((1, [IDLE_IN_TRANSACTION]) if variant in {"before", "after"} else NOTHING)


@pytest.mark.parametrize("request_name", ["update", "send"])
@pytest.mark.parametrize("variant", VARIANTS)
@in_a_loop
async def test_cancelled_in_a_statement(variant: str, request_name: str, database: Database) -> None:
    """SQLAlchemy gives the connection up, so none is left; but a session that nobody cleaned up is of no more use."""
    async with running(variant, database) as application:
        thread = await application.thread()
        with database.connect() as other:
            other.query("BEGIN; SELECT * FROM threads FOR UPDATE")
            application.sessions.clear()
            task = asyncio.create_task(application.request(request_name, thread))
            await application.waits_for_a_lock()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await application.left() == NOTHING
        (session,) = application.sessions
        dead = variant == "after" or (variant == "before" and request_name not in SOUND_BEFORE)
        assert session.in_transaction() is dead
        if dead:
            with pytest.raises(exc.InvalidRequestError):
                await greenlet_spawn(session.execute, text("SELECT 1"))
