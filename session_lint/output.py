"""Writing to standard output, standard error and files, whatever they are connected to."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from session_lint.options import CommandError


def say(text: str) -> None:
    """A line of ours on standard error."""
    if sys.stderr is not None:
        try:
            print(f"session-lint: {text}", file=sys.stderr, flush=True)
        except (OSError, ValueError):
            return  # nobody listens


def is_terminal(stream: object) -> bool:
    """Whether a person reads the stream; not if it is closed or there is none."""
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, ValueError):
        return False


def use_color(wish: str, *, to_terminal: bool) -> bool:
    """Colours as asked for; "auto" honours NO_COLOR and FORCE_COLOR and else wants a terminal."""
    if wish != "auto":
        return wish == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return to_terminal and os.environ.get("TERM") != "dumb"


def write(text: str, file: Path | None, *, for_people: bool) -> None:
    """To a file, or to standard output: in its encoding for people, in UTF-8 for machines.

    What can't be encoded is written with backslashes. Raises CommandError if it can't be written.
    """
    try:
        if file is not None:
            file.write_bytes(text.encode("utf-8", "backslashreplace"))
            return
        stream = sys.stdout
        if stream is None:
            raise CommandError("cannot write the output: standard output is closed")
        encoding = stream.encoding if for_people and stream.encoding else "utf-8"
        data = text.encode(encoding, "backslashreplace")
        stream.flush()
        stream.buffer.write(data)
        stream.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        target = "the output" if file is None else str(file)
        raise CommandError(f"cannot write {target}: {error.strerror or error}") from None


def forget_output() -> None:
    """Keep Python from complaining about a closed pipe when it flushes standard output at exit."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        return
