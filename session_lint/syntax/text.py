"""The text of a file: its lines, and on which of them words stand."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

_ALONE = re.compile(r"^[ \t]+(?:\w+\.)*(\w+)\(", re.MULTILINE)


class Text:
    """lines: with their line ends."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = lines
        lower = [line.lower() for line in lines]
        self._lower = "".join(lower)
        self._starts = list(accumulate(map(len, lower), initial=0))
        self._hits: dict[tuple[str, ...], list[int]] = {}

    def has(self, words: tuple[str, ...], first: int, last: int) -> bool:
        """Whether one of the words stands on these lines (1-based, both included)."""
        hits = self._hits.get(words)
        if hits is None:
            hits = self._hits[words] = sorted([hit for word in words for hit in _find(self._lower, word)])
        index = bisect_left(hits, self._starts[first - 1])
        return index < len(hits) and hits[index] < self._starts[min(last, len(self.lines))]

    def called_alone(self) -> frozenset[str]:
        """The functions that lines begin with a call of."""
        return frozenset(_ALONE.findall("".join(self.lines)))

    def between(self, first: int, last: int) -> str:
        return "".join(self.lines[first - 1 : last])


def _find(text: str, word: str) -> list[int]:
    """Where the word stands."""
    bare = word.strip("|")
    hits = []
    position = text.find(bare)
    while position >= 0:
        end = position + len(bare)
        before, after = text[position - 1 : position], text[end : end + 1]
        if not (
            (word[0] == "|" and (before.isalnum() or before == "_"))
            or (word[-1] == "|" and (after.isalnum() or after == "_"))
        ):
            hits.append(position)
        position = text.find(bare, end)
    return hits
