"""A module's top-level statements, found without parsing: for files that `ast` can't read as a whole."""

from __future__ import annotations

import re
from collections.abc import Sequence

from session_lint.syntax.depth import TOKEN

# What goes on with the statement before it, at the left margin all the same, is no beginning.
_BEGIN = re.compile(r"(?!(?:else|elif|except|finally)\b)[^\s#)\]},:]")


def pieces(lines: Sequence[str]) -> list[tuple[int, list[str]]]:
    """Stretches of a module that can be parsed one by one: the number of lines before each, and its lines.

    lines: with their line ends. A piece is a statement with its decorators and branches, or several of them.
    Where brackets or strings don't end, the last piece reaches to the end of the file.
    """
    text = "".join(lines)
    starts: list[int] = []
    depth = 0
    decorated = False
    # With a line end in front, so that the first line begins like any other.
    for token in TOKEN.finditer(f"\n{text}"):
        kind = token.lastgroup
        if kind == "open":
            depth += 1
        elif kind == "close":
            depth = max(depth - 1, 0)
        elif kind == "newline" and not depth:
            begin = token.start()
            if _BEGIN.match(text, begin) is not None:
                if not decorated:
                    starts.append(begin)
                decorated = text.startswith("@", begin)
    numbers = [0]
    line = counted = 0
    for start in starts:
        line += text.count("\n", counted, start)
        counted = start
        numbers.append(line)
    ends = [*numbers[1:], len(lines)]
    return [(first, list(lines[first:last])) for first, last in zip(numbers, ends, strict=True) if first < last]
