"""Patterns as git reads them in .gitignore, for ignore files and for our own settings, matched by pathspec.

To import pathspec and to compile a repository's patterns takes a good part of the time that a run without changes
may take. So what the patterns say is kept for the next run, and pathspec is imported for a path that is new.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from session_lint._hashing import blake2b

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

Answers = dict[str, "bool | None"]
"""What patterns say of paths; those of directories end with "/"."""

_SPECIAL = frozenset("*?[\\/! \t#")


class IgnorePatterns:
    """The patterns of one ignore file. The last pattern that matches decides, as in git."""

    def __init__(self, lines: Iterable[str], known: Answers | None = None) -> None:
        lines = [line.rstrip("\r\n") for line in lines]
        self._lines = [line for line in lines if line.strip() and not line.startswith("#")]
        plain = _SPECIAL.isdisjoint("".join(self._lines))
        self._names = frozenset(self._lines) if plain else None
        self._known = known or {}
        self._specs: tuple[GitIgnoreSpec, GitIgnoreSpec] | None = None
        self.asked: Answers = {}
        self.learnt = False

    def __bool__(self) -> bool:
        return bool(self._lines)

    def match(self, path: str, name: str, is_directory: bool) -> bool | None:
        """True: ignored, False: explicitly not ignored, None: nothing said.

        path: relative to the directory of the ignore file, with "/". name: its last part. The directories above
        it are known not to be ignored.
        """
        if self._names is not None:  # such as our own defaults
            return True if name in self._names else None
        key = f"{path}/" if is_directory else path
        if key in self.asked:
            return self.asked[key]
        if key in self._known:
            answer = self._known[key]
        else:
            answer = self._worked_out(path, is_directory)
            self.learnt = True
        self.asked[key] = answer
        return answer

    def covers(self, path: str, *, is_directory: bool) -> bool:
        """Whether a path is ignored, or any of the directories above it."""
        parts = path.split("/")
        return any(
            self.match("/".join(parts[:end]), parts[end - 1], is_directory or end < len(parts))
            for end in range(1, len(parts) + 1)
        )

    def _worked_out(self, path: str, is_directory: bool) -> bool | None:
        if self._specs is None:
            # A pattern counts also for what lies in the directories that it matches, and for a path "src/build/" as
            # much as one that matches it itself: after "build/" a "!src/" would bring back src/build. Only what
            # matches a file itself is stronger; so directories are asked for as if they were files.
            stripped = [(line, line.rstrip()) for line in self._lines]
            directories = [bare[:-1] if bare.endswith("/") else line for line, bare in stripped]
            self._specs = _compiled(self._lines), _compiled(directories)
        return self._specs[is_directory].check_file(path, separators=()).include


class Memory:
    """What all patterns have said in earlier runs. known: the `plain` of the last one."""

    def __init__(self, known: object = None) -> None:
        self._known: dict[str, Answers] = known if isinstance(known, dict) else {}
        self._patterns: dict[str, IgnorePatterns] = {}

    def patterns(self, lines: Iterable[str]) -> IgnorePatterns:
        """The patterns in these lines."""
        text = "".join([f"{line}\n" for line in lines])
        key = blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
        patterns = self._patterns.get(key)
        if patterns is None:
            patterns = self._patterns[key] = IgnorePatterns(text.split("\n"), self._known.get(key))
        return patterns

    @property
    def learnt(self) -> bool:
        """Whether there is anything that was not known before."""
        return any([patterns.learnt for patterns in self._patterns.values()])

    @property
    def plain(self) -> dict[str, Answers]:
        """What was asked for in this run, as plain data; the rest is gone from the tree, or from the patterns."""
        return {key: patterns.asked for key, patterns in self._patterns.items() if patterns.asked}


def _compiled(lines: Sequence[str]) -> GitIgnoreSpec:
    import warnings

    from pathspec import GitIgnoreSpec

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "[[" in a regular expression made of somebody's pattern
        try:
            return GitIgnoreSpec.from_lines(lines)
        except (ValueError, re.error):
            return GitIgnoreSpec.from_lines([line for line in lines if _is_pattern(line)])


def _is_pattern(line: str) -> bool:
    """Git, too, passes over a pattern that can't match, such as a single backslash."""
    from pathspec import GitIgnoreSpec

    try:
        GitIgnoreSpec.from_lines([line])
    except (ValueError, re.error):
        return False
    return True
