"""Sees when an application of Starlette, FastAPI or Flask answers: a COMMIT that fails after that is known to be late,
and one that succeeds though the answer is an error, to be more than the client was told.

None of the packages is needed, nor imported: nothing is watched as long as the application has not imported it.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from session_lint.runtime.recording import Answer, Recording

_Current = Callable[[], Recording]


def watch(current: _Current) -> None:
    """From now on, note every answer in the recording that is the current one. To be called again does no harm."""
    for module, name, watched in (("starlette.applications", "Starlette", _asgi), ("flask.app", "Flask", _wsgi)):
        application: Any = getattr(sys.modules.get(module), name, None)
        if application is not None and not hasattr(application.__call__, "session_lint"):
            call: Any = watched(application.__call__, current)
            call.session_lint = True
            application.__call__ = call


def _asgi(plain: Any, current: _Current) -> Any:
    @functools.wraps(plain)
    async def call(self: Any, scope: Any, receive: Any, send: Any) -> None:
        recording = current()
        began = len(recording.operations)

        async def noting(message: Any) -> None:
            if message.get("type") == "http.response.start":
                recording.answers.append(Answer(int(message["status"]), began, len(recording.operations)))
            await send(message)

        await plain(self, scope, receive, noting)

    return call


def _wsgi(plain: Any, current: _Current) -> Any:
    @functools.wraps(plain)
    def call(self: Any, environment: Any, start_response: Any) -> Any:
        recording = current()
        began = len(recording.operations)

        def noting(status: str, *others: Any) -> Any:
            recording.answers.append(Answer(int(status[:3]), began, len(recording.operations)))
            return start_response(status, *others)

        return plain(self, environment, noting)

    return call
