"""After a judgement: gives back what was left behind, so that the next run begins with a whole pool."""

from __future__ import annotations

import contextlib

from session_lint.runtime.drivers import backend_pid
from session_lint.runtime.observer import Observers
from session_lint.runtime.recording import Recording


def tidy(recording: Recording, observers: Observers) -> None:
    """End what is still open: the backend, the pool's count, the session. Needs no event loop."""
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
