"""A file's bytes and text, and the words for everything that can be wrong with them (SES902)."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

_BOM = b"\xef\xbb\xbf"
# Not compiled here: most runs need none of them.
# PEP 263, as Python's own tokenizer reads it.
_COOKIE = rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)"
_BLANK = rb"^[ \t\f]*(?:#[^\r\n]*)?$"
_LINE_END = r"\r\n|\n|\r"
# LibCST says where in its own counting, which is not where its error object says.
_PARSER_NOISE = r"^(?:parser|tokenizer) error: (?:error at \d+:\d+: )?"


@dataclass(frozen=True, slots=True)
class Source:
    """Text that stands for a file, such as an editor's unsaved buffer on standard input."""

    path: Path
    data: bytes


class Problem(Exception):  # noqa: N818 - it is reported, not handled
    """Why a file could not be analysed. line and column are 1-based."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


def read(path: Path | str) -> bytes:
    """A file's bytes. Raises Problem if it can't be read."""
    try:
        # A named pipe may have nobody who writes to it; that of a shell's `<(...)` has no name.
        if stat.S_ISFIFO(os.stat(path).st_mode) and os.path.exists(os.path.realpath(path)):  # noqa: PTH110, PTH116
            raise Problem("cannot be read: it is a named pipe")
        with open(path, "rb") as file:  # noqa: PTH123 - thousands of times in a run
            return file.read()
    except OSError as error:
        raise Problem(f"cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise Problem(f"cannot be read: {error}") from None


def decode(data: bytes) -> str:
    """The text of a Python file, line ends as they are. Raises Problem if it is not text."""
    null = data.find(b"\0")
    if null >= 0:
        raise Problem(f"is not Python source: null byte at offset {null}", *_place(data, null))
    body = data
    declared, line = _declared(data)
    if data.startswith(_BOM):
        body = data[len(_BOM) :]
        if declared is not None and not _is_utf8(declared):
            raise Problem(f'begins with a UTF-8 byte order mark but declares the encoding "{declared}"', line)
    try:
        if declared is None or _is_utf8(declared):
            return body.decode("utf-8")
        text = body.decode(declared)
    except UnicodeDecodeError as error:
        start = error.start + len(data) - len(body)
        name = "UTF-8" if declared is None or _is_utf8(declared) else declared
        raise Problem(f"is not {name} text: byte 0x{data[start]:02x} at offset {start}", *_place(data, start)) from None
    except (LookupError, UnicodeError):
        raise Problem(f'declares an unknown encoding "{declared}"', line) from None
    except Exception as error:  # noqa: BLE001 - codecs of other kinds ("zip", "rot13") raise what they like
        raise Problem(f'cannot be decoded as "{declared}": {error}', line) from None
    if not isinstance(text, str):
        raise Problem(f'declares "{declared}", which is not a text encoding', line)
    return text


def lines_of(text: str) -> list[str]:
    """The lines as Python counts them, without line ends. (`str.splitlines` also splits at form feeds.)"""
    if "\r" not in text:
        return text.split("\n")
    return re.split(_LINE_END, text)


def problem_of(error: BaseException) -> Problem:
    """The words for what a parser raised: SyntaxError, LibCST's ParserSyntaxError, RecursionError, ..."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RecursionError):
        return Problem("is nested too deeply to be analysed")
    if isinstance(error, MemoryError):
        return Problem("is nested too deeply or too large to be analysed")
    if isinstance(error, SyntaxError):
        column = error.offset if error.offset is not None and error.offset > 0 else 1
        return Problem(f"is not valid Python: {error.msg}", error.lineno or 1, column)
    line = getattr(error, "raw_line", None)
    if isinstance(line, int):  # libcst.ParserSyntaxError, which must not be imported for this
        column = getattr(error, "raw_column", 0)
        message = re.sub(_PARSER_NOISE, "", _first_line(str(getattr(error, "message", error))))
        message = message if len(message) <= 80 else f"{message[:77]}..."
        return Problem(f"is not valid Python: {message}", max(line, 1), max(column, 0) + 1)
    return Problem(f"could not be analysed: {type(error).__name__}: {_first_line(str(error))}")


def _first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0]


def _declared(data: bytes) -> tuple[str | None, int]:
    start = len(_BOM) if data.startswith(_BOM) else 0
    head = re.split(rb"\r\n|\n|\r", data[start : start + 4096], maxsplit=2)[:2]
    for number, line in enumerate(head, 1):
        match = re.match(_COOKIE, line)
        if match is not None:
            return match.group(1).decode("ascii", "replace"), number
        if not re.match(_BLANK, line):
            break
    return None, 1


def _is_utf8(encoding: str) -> bool:
    name = encoding.lower().replace("_", "-")
    return name in ("utf-8", "utf8") or name.startswith("utf-8-")


def _place(data: bytes, offset: int) -> tuple[int, int]:
    before = data[:offset].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    last = before.rsplit(b"\n", 1)[-1]
    if before.count(b"\n") == 0:
        last = last.removeprefix(_BOM)
    return before.count(b"\n") + 1, len(last.decode("utf-8", "replace")) + 1
