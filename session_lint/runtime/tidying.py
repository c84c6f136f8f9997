"""After a judgement: gives back what was left behind, so that the next run begins with a whole pool."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from session_lint.runtime.drivers import backend_pid
from session_lint.runtime.observer import Observers
from session_lint.runtime.recording import Recording


def tidy(recording: Recording, observers: Observers) -> None:
    """End what is still open: the backend, the pool's count, the session. Needs no event loop."""
    with no_logging():
        _tidy(recording, observers)


@contextlib.contextmanager
def no_logging() -> Iterator[None]:
    """The pool logs every connection that it can't close since the loop has gone; nobody needs to read that."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _tidy(recording: Recording, observers: Observers) -> None:
    for use in recording.out:
        if use.pool_record is not None:
            # From the outside, because an asyncio driver's connection can't be closed without its loop.
            pid = backend_pid(use.pool_record.dbapi_connection)
            if pid is not None:
                observers.of(use.engine).terminate(pid)
        with contextlib.suppress(Exception):
            use.proxy.invalidate()
    for record in recording.sessions:
        if record.session is not None:
            with contextlib.suppress(Exception):
                record.session.close()
    recording.release()
