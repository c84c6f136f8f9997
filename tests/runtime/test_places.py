"""The quick look for the user's innermost frame gives what the walk over all frames gives, on every way there."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from sqlalchemy import create_engine, event, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from session_lint.runtime import places
from session_lint.runtime.places import Frames, Site, here
from session_lint.runtime.postgres import Database

Seen = list[tuple[Frames, Frames]]

HOOK = """
def hook(*_):
    seen.append((site.nearest(), here(1, 1)))
"""


def watch(engine: Any) -> Seen:
    """Looks in both ways for whoever executes something, from a file of the shim as its hooks do."""
    seen: Seen = []
    names: dict[str, Any] = {"seen": seen, "site": Site(), "here": here}
    exec(compile(HOOK, places.__file__, "exec"), names)
    event.listen(engine, "do_execute", names["hook"])
    return seen


def compared(seen: Seen) -> set[int]:
    """Both ways saw the same, which is: these lines."""
    assert [(quick.key, quick.through) for quick, _ in seen] == [(slow.key, slow.through) for _, slow in seen]
    return {quick.first.line for quick, _ in seen if quick.first is not None}


class Own(Session):
    def execute(self, *arguments: Any, **named: Any) -> Any:
        return super().execute(*arguments, **named)


def count(session: Session) -> None:
    session.execute(select(1))


def own_count(session: Session) -> None:
    with Own(session.get_bind()) as own:
        own.execute(select(1))


@pytest.mark.filterwarnings("ignore:The Session.execute:DeprecationWarning")
def test_sync() -> None:
    engine = create_engine("sqlite://")
    seen = watch(engine)
    for _ in range(2):
        for make in (Session, Own):
            with make(engine) as session:
                session.execute(text("SELECT 1"))
                count(session)
                own_count(session)
                session.scalar(select(1))
                session.connection().execute(select(1))
                [*map(session.execute, [select(1), select(1)])]
    assert len(compared(seen)) == 6


@pytest.mark.postgres
def test_async(database: Database) -> None:
    engine = create_async_engine(database.url("asyncpg"))
    seen = watch(engine.sync_engine)

    of_sqlalchemy = partial(Session.execute, statement=select(1))

    async def main() -> None:
        for _ in range(2):
            async with AsyncSession(engine) as session:
                await session.execute(text("SELECT 1"))
                await session.scalar(select(1))
                for call in (of_sqlalchemy, count, own_count, lambda session: session.execute(select(1))):
                    await session.run_sync(call)
                await (await session.connection()).execute(select(1))
        await engine.dispose()

    asyncio.run(main())
    assert len(compared(seen)) == 7
