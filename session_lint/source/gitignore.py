"""Patterns as git reads them in .gitignore, for ignore files and for our own `exclude` settings.

Our own and not a library's: importing one costs more than a whole warm run may, and nearly every pattern in
real ignore files is a plain name or a suffix, which a set answers faster than a regular expression does.
The tests compare it with `git check-ignore`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable


class IgnorePatterns:
    """The patterns of one ignore file. The last pattern that matches decides, as in git."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._negated: list[bool] = []
        self._only_directories: list[bool] = []
        # Rule numbers in rising order, per way of matching. Names and suffixes match the last part of a path
        # at any depth, paths match from the directory of the ignore file, globs hold a regular expression.
        self._names: dict[str, list[int]] = {}
        self._paths: dict[str, list[int]] = {}
        self._suffixes: dict[str, list[int]] = {}
        self._globs: list[tuple[int, str, bool]] = []
        self._compiled: list[tuple[int, re.Pattern[str], bool]] | None = None
        for line in lines:
            self._add(line)
        self._suffix_ends = tuple(self._suffixes)

    def __bool__(self) -> bool:
        return bool(self._negated)

    def match(self, path: str, name: str, is_directory: bool) -> bool | None:
        """True: ignored, False: explicitly not ignored, None: nothing said.

        path: relative to the directory of the ignore file, with "/". name: its last part.
        """
        best = -1
        rules = self._names.get(name)
        if rules is not None:
            best = self._last(rules, best, is_directory)
        if self._paths:
            rules = self._paths.get(path)
            if rules is not None:
                best = self._last(rules, best, is_directory)
        if self._suffix_ends and name.endswith(self._suffix_ends):
            for suffix, rules in self._suffixes.items():
                if name.endswith(suffix):
                    best = self._last(rules, best, is_directory)
        if self._globs:
            for number, pattern, whole in self._patterns():
                if (
                    number > best
                    and (is_directory or not self._only_directories[number])
                    and pattern.fullmatch(path if whole else name)
                ):
                    best = number
        return None if best < 0 else not self._negated[best]

    def _last(self, rules: list[int], best: int, is_directory: bool) -> int:
        for number in reversed(rules):
            if number <= best:
                break
            if is_directory or not self._only_directories[number]:
                return number
        return best

    def _patterns(self) -> list[tuple[int, re.Pattern[str], bool]]:
        if self._compiled is None:
            self._compiled = []
            for number, pattern, whole in self._globs:
                try:
                    self._compiled.append((number, re.compile(_regex(pattern), re.DOTALL), whole))
                except re.error:
                    continue  # git, too, passes over a pattern that can't match, such as "[z-a]"
        return self._compiled

    def _add(self, line: str) -> None:
        pattern = _strip(line)
        if not pattern or pattern.startswith("#"):
            return
        negated = pattern.startswith("!")
        if negated:
            pattern = pattern[1:]
        only_directories = pattern.endswith("/")
        if only_directories:
            pattern = pattern[:-1]
        while pattern.startswith("**/") and "/" not in pattern[3:]:
            pattern = pattern[3:]  # "**/name" is "name"
        if not pattern:
            return
        number = len(self._negated)
        whole = "/" in pattern
        pattern = pattern.removeprefix("/")
        if not _MAGIC.intersection(pattern):
            (self._paths if whole else self._names).setdefault(pattern, []).append(number)
        elif not whole and pattern[0] == "*" and len(pattern) > 1 and not _MAGIC.intersection(pattern[1:]):
            self._suffixes.setdefault(pattern[1:], []).append(number)
        else:
            self._globs.append((number, pattern, whole))
        self._negated.append(negated)
        self._only_directories.append(only_directories)


_MAGIC = frozenset("*?[\\")

_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": " \\t",
    "digit": "0-9",
    "lower": "a-z",
    "space": "\\s",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}


def _strip(line: str) -> str:
    """Without the line end and without trailing spaces, unless a backslash keeps the space."""
    line = line.rstrip("\r\n")
    stripped = line.rstrip(" ")
    backslashes = len(stripped) - len(stripped.rstrip("\\"))
    return stripped + " " if backslashes % 2 and len(stripped) < len(line) else stripped


def _regex(pattern: str) -> str:
    """A pattern (no leading or trailing slash) as a regular expression for the whole path or name."""
    result = []
    position = 0
    end = len(pattern)
    while position < end:
        character = pattern[position]
        if character == "*":
            stars = position
            while position < end and pattern[position] == "*":
                position += 1
            before = stars == 0 or pattern[stars - 1] == "/"
            if position - stars == 2 and before and position == end:
                result.append(".+")
            elif position - stars == 2 and before and pattern[position] == "/":
                result.append("(?:.+/)?")
                position += 1
            else:
                result.append("[^/]*")
        elif character == "?":
            result.append("[^/]")
            position += 1
        elif character == "[":
            text, position = _bracket(pattern, position)
            result.append(text)
        elif character == "\\" and position + 1 < end:
            result.append(re.escape(pattern[position + 1]))
            position += 2
        else:
            result.append(re.escape(character))
            position += 1
    return "".join(result)


def _bracket(pattern: str, start: int) -> tuple[str, int]:
    """The character class that begins at `start`, and the position after it."""
    position = start + 1
    negated = pattern[position : position + 1] in ("!", "^")
    if negated:
        position += 1
    parts: list[str] = []
    first = True
    while position < len(pattern):
        character = pattern[position]
        if character == "]" and not first:
            body = "".join(parts)
            return (f"(?!/)[{'^' if negated else ''}{body}]"), position + 1
        first = False
        if pattern.startswith("[:", position):
            close = pattern.find(":]", position + 2)
            if close > 0 and pattern[position + 2 : close] in _CLASSES:
                parts.append(_CLASSES[pattern[position + 2 : close]])
                position = close + 2
                continue
        if character == "\\" and position + 1 < len(pattern):
            position += 1
            character = pattern[position]
        parts.append("-" if character == "-" and pattern[position - 1] != "\\" else re.escape(character))
        position += 1
    # No closing bracket: the pattern matches nothing, as in git.
    return r"(?!)", len(pattern)
