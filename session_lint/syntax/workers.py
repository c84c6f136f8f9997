"""Work on many files in several processes, or wherever an executor does it.

A file that brings its process down (LibCST's parser is native code) costs the others nothing.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
from collections.abc import Iterator, Sequence

from session_lint.syntax.work import Job, crashed, start_worker, work

_GROUP = 1_500
"""The cost of a group of files, in lines: small enough that nobody waits long for the last one."""

Item = tuple[Job, int]
"""A file and its cost."""


def processors() -> int:
    """How many of them this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def may_have_children() -> bool:
    """Whether this process may start others: daemons, such as flake8's workers, may not."""
    return not multiprocessing.current_process().daemon


def answers(
    items: Sequence[Item], jobs: int, executor: concurrent.futures.Executor | None
) -> Iterator[tuple[Job, bytes]]:
    """Each file with its answer, as they come."""
    lost: list[Job] = []
    groups = _groups(items)
    others = multiprocessing.active_children()
    pool = executor or _pool(min(jobs, len(groups)))
    try:
        futures = {}
        for group in groups:
            try:
                futures[pool.submit(work, group)] = group
            except concurrent.futures.BrokenExecutor:
                lost += group
        for future in concurrent.futures.as_completed(futures):
            group = futures[future]
            try:
                results = future.result()
            except concurrent.futures.BrokenExecutor:
                lost += group
                continue
            yield from zip(group, results, strict=True)
    except (KeyboardInterrupt, GeneratorExit):  # nobody wants what they are doing, which may take a while
        if executor is None:
            for child in multiprocessing.active_children():
                if child not in others:
                    child.kill()
        raise
    finally:
        if executor is None:
            pool.shutdown(cancel_futures=True)
    yield from _one_by_one(lost)


def _groups(items: Sequence[Item]) -> list[list[Job]]:
    """The largest files first, so that no worker is left alone with a giant at the end."""
    groups: list[list[Job]] = []
    room = 0
    for job, cost in sorted(items, key=lambda item: -item[1]):
        if room < cost:
            groups.append([])
            room = _GROUP
        groups[-1].append(job)
        room -= cost
    return groups


def _pool(workers: int) -> concurrent.futures.ProcessPoolExecutor:
    if multiprocessing.get_start_method() == "fork":
        # What is imported here need not be imported by each of them.
        import session_lint.ir
        import session_lint.syntax.lower  # noqa: F401
    return concurrent.futures.ProcessPoolExecutor(workers, initializer=start_worker)


def _one_by_one(jobs: Sequence[Job]) -> Iterator[tuple[Job, bytes]]:
    """Files of which one has killed its worker, and the pool with it. Now it kills nobody but itself."""
    pool: concurrent.futures.ProcessPoolExecutor | None = None
    try:
        for job in jobs:
            if pool is None:
                pool = _pool(1)
            try:
                [answer] = pool.submit(work, [job]).result()
            except concurrent.futures.BrokenExecutor:
                pool.shutdown()
                pool = None
                answer = crashed()
            yield job, answer
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)
