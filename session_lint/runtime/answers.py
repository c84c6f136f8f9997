"""Sees when a Starlette or FastAPI application answers, so that a COMMIT that fails after that is known to be late.

Neither package is needed, nor imported: nothing is watched as long as the application has not imported it.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from session_lint.runtime.recording import Answer, Recording


def watch(current: Callable[[], Recording]) -> None:
    """From now on, note every answer in the recording that is the current one. To be called again does no harm."""
    module = sys.modules.get("starlette.applications")
    application: Any = getattr(module, "Starlette", None)
    if application is None or hasattr(application.__call__, "session_lint"):
        return
    plain = application.__call__

    @functools.wraps(plain)
    async def call(self: Any, scope: Any, receive: Any, send: Any) -> None:
        recording = current()
        began = len(recording.operations)

        async def noting(message: Any) -> None:
            if message.get("type") == "http.response.start":
                recording.answers.append(Answer(int(message["status"]), began, len(recording.operations)))
            await send(message)

        await plain(self, scope, receive, noting)

    call.session_lint = True  # type: ignore[attr-defined]
    application.__call__ = call
