"""One file's work, done in this process or in a worker: from its bytes to plain data."""

from __future__ import annotations

from typing import Any, NamedTuple

from session_lint import cache
from session_lint._process import prepared
from session_lint.source import reading, suppressions
from session_lint.source.reading import Problem

PlainProblem = tuple[str, int, int]
"""Message, line, column."""


class Job(NamedTuple):
    """A file to work on. data: its bytes if they are at hand. module: its dotted name.

    lower: False if only its syntax is to be checked. words: those of the settings that mean a session.
    """

    path: str
    data: bytes | None
    module: str
    is_package: bool
    lower: bool
    words: tuple[str, ...] = ()


def work(jobs: list[Job]) -> list[bytes]:
    """The answer for each file, as bytes for `cache.loads`.

    ("tree", the IR, the suppression comments, what was left out as plain problems); ("good",) for a file whose
    syntax was checked; ("problem", a plain problem); ("died", a plain problem) for one that nobody could look at.
    """
    with prepared():
        return [_dumped(_answer(job)) for job in jobs]


def crashed() -> bytes:
    """The answer for a file that has killed the process that worked on it."""
    return _dumped(("died", ("cannot be analysed: the process that parsed it died; please report it", 1, 1)))


def start_worker() -> None:
    """Make ready a process that does nothing else."""
    import functools
    import signal
    import threading

    import libcst

    # An interrupt is the parent's to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # LibCST checks each node that is made, also those that its own parser makes: a tenth of a parse.
    libcst.CSTNode.__post_init__ = _no_check  # type: ignore[method-assign,assignment]
    # Two nodes of five are a space or the lack of one. Nobody changes them, so the same one will do: a tenth.
    libcst.SimpleWhitespace = functools.lru_cache(_SPACES)(libcst.SimpleWhitespace)  # type: ignore[misc,assignment]


def _end_with_parent() -> None:
    """A parent that was killed can't tell its workers, which would wait for work for ever."""
    import multiprocessing
    import os
    from multiprocessing.connection import wait

    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


_SPACES = 1_000
"""So many different ones are kept."""


def _no_check(_: object) -> None:
    return None


def _answer(job: Job) -> tuple[Any, ...]:
    from session_lint import ir
    from session_lint.syntax.lower import check_syntax, lower

    try:
        data = job.data if job.data is not None else reading.read(job.path)
        text = reading.decode(data)
        if not job.lower:
            check_syntax(text)
            return ("good",)
        module, left_out = lower(text, job.module, job.is_package, job.words)
        plain = ir.to_plain(module)
    except Problem as problem:
        return ("problem", plain_problem(problem))
    except (RecursionError, MemoryError) as error:
        return ("problem", plain_problem(reading.problem_of(error)))
    except Exception as error:  # noqa: BLE001 - a bug of ours in one file must not cost the others their findings
        detail = " ".join(f"{type(error).__name__}: {error}".split())
        return ("problem", (f"internal error, please report it: {detail}", 1, 1))
    comments = suppressions.parse(text).to_plain() if suppressions.may_hold(data) else ()
    return ("tree", plain, comments, tuple([plain_problem(problem) for problem in left_out]))


def plain_problem(problem: Problem) -> PlainProblem:
    return (problem.message, problem.line, problem.column)


def _dumped(answer: tuple[Any, ...]) -> bytes:
    try:
        return cache.dumps(answer)
    except ValueError as error:
        return cache.dumps(("problem", (f"is nested too deeply to be analysed: {error}", 1, 1)))
