"""Runs a pytest item once more, without its leaving anything in the user's own run: no report, no warning, no hang."""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from _pytest.outcomes import Exit

from session_lint.runtime.tidying import no_logging


class TimedOutError(BaseException):
    """A run with a fault took too long. No Exception, so that no handler of the application takes it."""


def run_again(item: pytest.Function, seconds: float) -> str:
    """Once more, from the test's own fixtures to their teardown; the module's fixtures stay. Gives why it can't be.

    seconds: the most for the test, and for its teardown. Nothing is made to fail before, and a fixture that is stopped
    half way would be broken for the tests to come.
    No reports are made: to format a failure that is meant to be costs more than the run.
    """
    problem = ""
    kept = item._request, item.funcargs, item._report_sections
    stash = dict(item.stash._storage)  # where pytest's own plugins keep what belongs to the run that is under way
    item._initrequest()
    item._report_sections = []
    for when in ("setup", "call", "teardown"):
        if when == "call" and problem:
            continue
        hook = getattr(item.ihook, f"pytest_runtest_{when}")
        # To be torn down "for the sake of its parent" is what takes away the item and nothing above it.
        more = {"nextitem": item.parent} if when == "teardown" else {}
        with contextlib.nullcontext() if when == "setup" else time_limit(seconds):
            call = pytest.CallInfo.from_call(
                lambda hook=hook, more=more: hook(item=item, **more),  # type: ignore[misc]
                when=when,
                reraise=(Exit, KeyboardInterrupt),
            )
        if when == "setup" and call.excinfo is not None:
            problem = call.excinfo.exconly(tryshort=True).partition("\n")[0]
    item._request, item.funcargs, item._report_sections = kept
    item.stash._storage.clear()
    item.stash._storage.update(stash)
    return problem


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Stop what takes longer. Only where signals can: in the main thread of a system that has them."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise TimedOutError

    before = signal.signal(signal.SIGALRM, stop)
    # Again and again, because asyncio gives the first one to whichever task runs, and a teardown may hang as well.
    others = signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    except TimedOutError:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *others)  # such as a limit of pytest-timeout's, which does not count here


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """What runs with a fault leave to the garbage collector is collected here, and its complaints are not the user's.

    At a moment of our own choosing: what finalizers do to connections and greenlets, in the middle of somebody's
    ast.parse, can make CPython fail.
    """
    before, sys.unraisablehook = sys.unraisablehook, _ignore
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
            with no_logging():
                gc.collect()
    finally:
        sys.unraisablehook = before


def _ignore(_: object) -> None:
    """Say nothing."""


class Progress:
    """Says to the right of pytest's dots how far the runs of one test are; on a terminal, and only if it takes long."""

    _PATIENCE = 1.0
    _INTERVAL = 0.1

    def __init__(self, config: pytest.Config) -> None:
        reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
        writer = getattr(reporter, "_tw", None)
        self._file = getattr(writer, "_file", None) if getattr(writer, "hasmarkup", False) else None
        self._next = time.monotonic() + self._PATIENCE
        self._shown = False

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._file is not None and now >= self._next:
            self._next, self._shown = now + self._INTERVAL, True
            self._write(f" run {done} of {total} with a fault")

    def clear(self) -> None:
        """Take the words away."""
        if self._shown:
            self._write("")

    def _write(self, words: str) -> None:
        if self._file is not None:
            self._file.write(f"\0337\x1b[K{words}\0338")  # from the cursor on, which stays where it is
            self._file.flush()
