"""What the runtime probe costs, as ratios: `python benchmarks/probe.py`.

SQLAlchemy never forgets that an engine once had hooks, so watched and unwatched code cannot share a process. Three
processes stand ready: one plain, one with the probe, and another plain one, the control. Again and again each runs a
small batch of the same work, in random order; shown is the median of the ratios of batches that ran side by side,
with the interval that holds 95 of 100 medians of resampled batches. A control far from 1 means: measure again.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

BATCH = 40
PLAIN, PROBED, CONTROL = "plain", "probed", "control"
WORK = ("one-row SELECT", "INSERT and COMMIT")


def sync_work(url: str, work: str) -> Callable[[], None]:
    """A batch on a synchronous engine."""
    from sqlalchemy import create_engine, text
    from sqlalchemy.orm import Session

    engine = create_engine(url)
    statement = text("SELECT 1" if work == WORK[0] else "INSERT INTO bench VALUES (1)")

    def batch() -> None:
        for _ in range(BATCH):
            with Session(engine) as session:
                session.execute(statement)
                if work == WORK[1]:
                    session.commit()

    return batch


def async_work(url: str, work: str) -> Callable[[], None]:
    """A batch on an asyncio engine."""
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    engine = create_async_engine(url)
    statement = text("SELECT 1" if work == WORK[0] else "INSERT INTO bench VALUES (1)")
    loop = asyncio.new_event_loop()

    async def run() -> None:
        for _ in range(BATCH):
            async with AsyncSession(engine) as session:
                await session.execute(statement)
                if work == WORK[1]:
                    await session.commit()

    return lambda: loop.run_until_complete(run())


def serve(mode: str, url: str, work: str) -> None:
    """Run in a process of its own: a batch for every line on standard input, its seconds on standard output."""
    probe = None
    if mode == PROBED:
        from session_lint.runtime.probe import Probe

        probe = Probe()
        probe.start()
    batch = (async_work if "asyncpg" in url else sync_work)(url, work)
    for _ in sys.stdin:
        if probe is not None:
            probe.begin()  # as every test does
        begin = time.perf_counter()
        batch()
        print(time.perf_counter() - begin, flush=True)


def measure(url: str, work: str, rounds: int) -> dict[str, list[float]]:
    """The seconds of every batch in every process."""
    children = {
        mode: subprocess.Popen(
            [sys.executable, __file__, "--serve", mode, "--url", url, "--work", work],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for mode in (PLAIN, PROBED, CONTROL)
    }
    seconds: dict[str, list[float]] = {mode: [] for mode in children}
    for number in range(rounds + 5):
        for mode in random.sample(list(children), len(children)):
            child = children[mode]
            assert child.stdin is not None
            assert child.stdout is not None
            print(file=child.stdin, flush=True)
            took = float(child.stdout.readline())
            if number >= 5:  # the first batches fill caches
                seconds[mode].append(took)
    for child in children.values():
        assert child.stdin is not None
        child.stdin.close()
        child.wait()
    return seconds


def ratio(seconds: dict[str, list[float]], mode: str) -> tuple[float, float, float]:
    """The median ratio to the plain process, and its 95 % interval."""
    ratios = [one / other for one, other in zip(seconds[mode], seconds[PLAIN], strict=True)]
    medians = sorted(statistics.median(random.choices(ratios, k=len(ratios))) for _ in range(500))
    return statistics.median(ratios), medians[12], medians[487]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--drivers", nargs="*", default=["psycopg", "asyncpg"])
    for name in ("--serve", "--url", "--work"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.url, options.work)
        return

    from session_lint.runtime.postgres import running_server

    print("| driver | work | microseconds | with the probe | control |\n|---|---|---|---|---|")
    with running_server() as server, server.new_database() as database:
        with database.connect() as connection:
            connection.query("CREATE TABLE bench (a integer)")
        for driver in options.drivers:
            for work in WORK:
                seconds = measure(database.url(driver), work, options.rounds)
                each = statistics.median(seconds[PLAIN]) / BATCH * 1e6
                cells = ["{:.3f} [{:.3f}, {:.3f}]".format(*ratio(seconds, mode)) for mode in (PROBED, CONTROL)]
                print(f"| {driver} | {work} | {each:.0f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
