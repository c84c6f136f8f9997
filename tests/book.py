"""Cases in Markdown: the rule book's pages and `tests/cases/**/*.md` hold the linter's tests.

Every Python block is linted. `# error: [SES101]` at the end of a line says that this line, and no other, is
reported; several codes stand in one bracket, and a text in double quotes after it must occur in the message.
`# possible: [SES101]` says that the finding is there but held back by default. A block without marks is silent.

- A block stands for `example.py` and is a case of its own. If the line before it names a file, as in
  "`app/db.py`:", then all named blocks under the same heading are one project, linted together.
- A ```toml block holds settings as in `session-lint.toml`; they count for its heading and those below.
- `<!-- known: why -->` makes the cases of its heading expected failures: they must fail, and be told when they pass.
- A block that defines `scenario(...)` is also meant to be run on PostgreSQL.
- `<!-- not run: why -->`: no block under this very heading defines one, for that reason.
- `<!-- shows: partial commit -->`: what the runs of good code under this heading show; its text says why that is fine.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import libcst

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULTS: Mapping[str, object] = {"select": ["ALL"], "min-confidence": "likely", "ownership": "project", "cache": False}
"""The settings of a case that says nothing."""

ERROR, POSSIBLE = "error", "possible"
NOT_ANALYSED = "SES902"
"""The only rule whose examples may hold what is not Python."""
EXAMPLE_OF_A_MARK = '# error: [SES101] "text in the message"'

_HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*$")
_FENCE = re.compile(r"(\s*)(`{3,}|~{3,})\s*(\S*)\s*(.*?)\s*$")
_FILE_NAME = re.compile(r"`([^`]+)`:\s*$")
_REMARK = re.compile(r"<!--\s*(known|not run|shows):\s*(.*?)\s*-->\s*$")
_MARK_START = re.compile(r"#\s*(error|possible):")
_MARK = re.compile(r"""#\s*(?P<kind>error|possible):\s*\[(?P<codes>[^\]]*)\](?:\s*"(?P<text>[^"]+)")?\s*$""")
_SCENARIO = re.compile(r"^(?:async )?def scenario\(", re.MULTILINE)


class BookError(Exception):
    """A case file is misused. Its text begins with the file and the line."""


@dataclass(frozen=True)
class Mark:
    """What a line's comment expects. line: in the block, 1-based."""

    line: int
    kind: str
    codes: tuple[str, ...]
    text: str | None


@dataclass(frozen=True)
class Source:
    """One block. at: the line of the Markdown file before its first line of code."""

    name: str
    text: str
    at: int
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Case:
    """Files that are linted together, with what is expected of them.

    known: why it fails for now. not_run: why it has no scenario. shows: the oracles that speak though it is fine.
    """

    path: Path
    headings: tuple[str, ...]
    number: int
    sources: tuple[Source, ...]
    settings: Mapping[str, object]
    known: str | None
    not_run: str = ""
    shows: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return " > ".join(self.headings) + (f" ({self.number})" if self.number > 1 else "")

    @property
    def place(self) -> str:
        return f"{self.path.name}:{self.sources[0].at}"

    @property
    def marks(self) -> list[Mark]:
        return [mark for source in self.sources for mark in source.marks]

    @property
    def has_scenario(self) -> bool:
        return any(_SCENARIO.search(source.text) for source in self.sources)


@dataclass
class _Section:
    """A heading and what stands directly below it."""

    headings: tuple[str, ...]
    levels: tuple[int, ...]
    settings: dict[str, object]
    known: str | None
    not_run: str = ""
    shows: tuple[str, ...] = ()
    sources: list[Source] = field(default_factory=list)


def read(path: Path, known_codes: Collection[str]) -> list[Case]:
    """All cases of a Markdown file, in its order.

    Raises:
        BookError: the file holds something that would silently test nothing or something else.
    """
    reader = _Reader(path, known_codes)
    reader.read()
    return [case for section in reader.sections for case in _cases(path, section)]


def _cases(path: Path, section: _Section) -> Iterator[Case]:
    named = tuple(source for source in section.sources if source.name)
    alone: list[tuple[Source, ...]] = [
        (replace(source, name="example.py"),) for source in section.sources if not source.name
    ]
    for number, sources in enumerate(([named] if named else []) + alone, 1):
        settings = {**DEFAULTS, **section.settings}
        yield Case(path, section.headings, number, sources, settings, section.known, section.not_run, section.shows)


class _Reader:
    """Goes through the lines once; `sections` is the result."""

    def __init__(self, path: Path, known_codes: Collection[str]) -> None:
        self.path = path
        self.known_codes = known_codes
        self.lines = path.read_text(encoding="utf-8").splitlines()
        self.sections: list[_Section] = []

    def read(self) -> None:
        index = self._after_front_matter()
        file_name = ""
        while index < len(self.lines):
            line = self.lines[index]
            index += 1
            if fence := _FENCE.match(line):
                index = self._block(fence, file_name, index)
                file_name = ""
            elif line.strip():
                if file_name:
                    raise self._error(index, f"no code block follows the file name {file_name}")
                if name := _FILE_NAME.match(line):
                    file_name = name[1]
                elif heading := _HEADING.match(line):
                    self._heading(len(heading[1]), heading[2], index)
                elif remark := _REMARK.match(line):
                    self._remark(self._section(index), *remark.groups())

    def _remark(self, section: _Section, about: str, text: str) -> None:
        if about == "known":
            section.known = text
        elif about == "not run":
            section.not_run = text
        else:
            section.shows = tuple(text.split(", "))

    def _error(self, line: int, message: str) -> BookError:
        return BookError(f"{self.path.name}:{line}: {message}")

    def _after_front_matter(self) -> int:
        if self.lines[:1] != ["+++"]:
            return 0
        if "+++" not in self.lines[1:]:
            raise self._error(1, "the front matter does not end")
        return self.lines.index("+++", 1) + 1

    def _section(self, line: int) -> _Section:
        if not self.sections:
            raise self._error(line, "a block must stand under a heading")
        return self.sections[-1]

    def _heading(self, level: int, title: str, line: int) -> None:
        headings: tuple[str, ...] = (title,)
        levels: tuple[int, ...] = (level,)
        settings: dict[str, object] = {}
        known = None
        for parent in reversed(self.sections):
            if parent.levels[-1] < level:
                headings, levels = (*parent.headings, title), (*parent.levels, level)
                settings, known = dict(parent.settings), parent.known
                break
        if any(section.headings == headings for section in self.sections):
            raise self._error(line, f"two headings with the same name: {title}")
        self.sections.append(_Section(headings, levels, settings, known))

    def _block(self, fence: re.Match[str], file_name: str, start: int) -> int:
        """Read a block whose first line of code is `lines[start]`; gives the index after its closing fence."""
        indent, ticks, language, rest = fence.groups()
        end = start
        while end < len(self.lines) and self.lines[end].strip() != ticks:
            end += 1
        if end == len(self.lines):
            raise self._error(start, "the code block does not end")
        text = "".join(f"{line}\n" for line in self.lines[start:end])
        python = language in ("python", "py", "python3")
        if (python or language == "toml" or file_name) and (indent or rest):
            raise self._error(start, "a block says its language only, at the line's start; its file is named before it")
        section = self._section(start)
        if file_name:
            if PurePosixPath(file_name).is_absolute() or ".." in PurePosixPath(file_name).parts:
                raise self._error(start, f"the file name {file_name} leads out of the project")
            if any(source.name == file_name for source in section.sources):
                raise self._error(start, f"two blocks named {file_name} under one heading")
        if python:
            section.sources.append(self._python(file_name, text, start))
        elif file_name:
            section.sources.append(Source(file_name, text, start, ()))
        elif language == "toml":
            try:
                section.settings.update(tomllib.loads(text))
            except tomllib.TOMLDecodeError as error:
                raise self._error(start, f"settings: {error}") from error
        return end + 1

    def _python(self, name: str, text: str, start: int) -> Source:
        marks = tuple(self._marks(text, start))
        if not any(NOT_ANALYSED in mark.codes for mark in marks):
            try:
                libcst.parse_module(text)
            except libcst.ParserSyntaxError as error:
                raise self._error(start + error.raw_line, "the block is not Python") from error
        return Source(name, text, start, marks)

    def _marks(self, text: str, start: int) -> Iterator[Mark]:
        for number, line in enumerate(text.splitlines(), 1):
            if not _MARK_START.search(line):
                continue
            match = _MARK.search(line)
            if match is None:
                raise self._error(start + number, f"a mark looks like {EXAMPLE_OF_A_MARK}")
            codes = tuple(code.strip() for code in match["codes"].split(","))
            for code in codes:
                if code not in self.known_codes:
                    raise self._error(start + number, f"no such rule: {code or 'nothing'}")
            yield Mark(number, match["kind"], codes, match["text"])
