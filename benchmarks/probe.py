"""What the runtime probe costs, as ratios: `python benchmarks/probe.py`.

SQLAlchemy never forgets that an engine once had hooks, so watched and unwatched code cannot share a process. Three
processes stand ready: one plain, one with the probe, and another plain one, the control. Again and again each runs a
small batch of the same work, in random order, on one processor that they share, with the server on another. Of a batch
counts the lower quartile of its operations: what another program on the machine takes away is in the upper ones.

The same program is quicker or slower by some per cent in every process, for as long as the process lives, by where
its memory lies. So there are several such sets of three: shown is the median of their ratios, which are medians
themselves of the batches that ran side by side, and the lowest and the highest of them. A control far from 1 means:
measure again, on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import os
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


def sync_work(url: str, work: str) -> Callable[[], list[float]]:
    """A batch on a synchronous engine: the seconds of each of its operations."""
    from sqlalchemy import create_engine, text
    from sqlalchemy.orm import Session

    engine = create_engine(url)
    statement = text("SELECT 1" if work == WORK[0] else "INSERT INTO bench VALUES (1)")

    def batch() -> list[float]:
        seconds = []
        for _ in range(BATCH):
            begin = time.perf_counter()
            with Session(engine) as session:
                session.execute(statement)
                if work == WORK[1]:
                    session.commit()
            seconds.append(time.perf_counter() - begin)
        return seconds

    return batch


def async_work(url: str, work: str) -> Callable[[], list[float]]:
    """A batch on an asyncio engine: the seconds of each of its operations."""
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    engine = create_async_engine(url)
    statement = text("SELECT 1" if work == WORK[0] else "INSERT INTO bench VALUES (1)")
    loop = asyncio.new_event_loop()

    async def run() -> list[float]:
        seconds = []
        for _ in range(BATCH):
            begin = time.perf_counter()
            async with AsyncSession(engine) as session:
                await session.execute(statement)
                if work == WORK[1]:
                    await session.commit()
            seconds.append(time.perf_counter() - begin)
        return seconds

    return lambda: loop.run_until_complete(run())


def serve(mode: str, url: str, work: str, processor: int | None) -> None:
    """Run in a process of its own: for every line on standard input a batch, for every batch a figure."""
    if processor is not None:
        os.sched_setaffinity(0, {processor})
    probe = None
    if mode == PROBED:
        from session_lint.runtime.probe import Probe

        probe = Probe()
        probe.start()
    batch = (async_work if "asyncpg" in url else sync_work)(url, work)
    for _ in sys.stdin:
        if probe is not None:
            probe.begin()  # as every test does
        print(statistics.quantiles(batch(), n=4)[0], flush=True)


def measure(url: str, work: str, rounds: int, processor: int | None) -> dict[str, list[float]]:
    """The figures of every batch in every process of one set."""
    children = {
        mode: subprocess.Popen(
            [sys.executable, __file__, "--serve", mode, "--url", url, "--work", work]
            + ([] if processor is None else ["--processor", str(processor)]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        for mode in random.sample((PLAIN, PROBED, CONTROL), 3)
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


def ratio(sets: list[dict[str, list[float]]], mode: str) -> str:
    """The median of the sets' ratios to their plain process, and the lowest and the highest."""
    ratios = sorted(
        statistics.median(one / other for one, other in zip(seconds[mode], seconds[PLAIN], strict=True))
        for seconds in sets
    )
    return f"{statistics.median(ratios):.3f} [{ratios[0]:.3f}, {ratios[-1]:.3f}]"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25, help="batches of each process")
    parser.add_argument("--sets", type=int, default=9, help="of three processes")
    parser.add_argument("--drivers", nargs="*", default=["psycopg", "asyncpg"])
    for name in ("--serve", "--url", "--work"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--processor", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.url, options.work, options.processor)
        return
    processor = None
    if hasattr(os, "sched_setaffinity") and len(os.sched_getaffinity(0)) > 1:
        processor, *others = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, others)  # those of the server, too

    from session_lint.runtime.postgres import running_server

    print("| driver | work | microseconds | with the probe | control |\n|---|---|---|---|---|")
    with running_server() as server, server.new_database() as database:
        with database.connect() as connection:
            connection.query("CREATE TABLE bench (a integer)")
        for driver in options.drivers:
            for work in WORK:
                sets = [measure(database.url(driver), work, options.rounds, processor) for _ in range(options.sets)]
                each = statistics.median(second for seconds in sets for second in seconds[PLAIN]) * 1e6
                cells = [ratio(sets, mode) for mode in (PROBED, CONTROL)]
                print(f"| {driver} | {work} | {each:.0f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
