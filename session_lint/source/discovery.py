"""Which files a run reads.

The walk is a hot loop (thousands of files in a run of a few hundred milliseconds), so it works on strings.
"""

# ruff: noqa: PTH100, PTH109, PTH116, PTH118, PTH120, PTH123

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from session_lint.source.gitignore import IgnorePatterns, Memory

if TYPE_CHECKING:
    from session_lint.settings import Settings

# Never the user's own code. `exclude = ["!build"]` brings one back.
DEFAULT_EXCLUDES = (
    ".bzr",
    ".direnv",
    ".eggs",
    ".git",
    ".hg",
    ".ipynb_checkpoints",
    ".mypy_cache",
    ".nox",
    ".pants.d",
    ".pyenv",
    ".pytest_cache",
    ".pytype",
    ".ruff_cache",
    ".session-lint-cache",
    ".svn",
    ".tox",
    ".venv",
    ".vscode",
    "__pycache__",
    "__pypackages__",
    "_build",
    "buck-out",
    "build",
    "dist",
    "node_modules",
    "site-packages",
    "venv",
)


class UsageError(Exception):
    """The user named something that isn't there. The message is one line."""


@dataclass(slots=True)
class SourceFile:
    """A file to read.

    name: the path to open. display: what findings call it: relative to the working directory with "/" if it
    is below it, else absolute. explicit: the user named it, rather than a directory above it. real: the path
    without links, "" if nobody has asked for it.
    """

    name: str
    display: str
    explicit: bool
    real: str = ""

    @property
    def path(self) -> Path:
        return Path(self.name)


@dataclass(slots=True)
class Found:
    """files: in the order of their displayed names, each file once. problems: one line for each directory
    that could not be read."""

    files: list[SourceFile]
    problems: list[str]


def discover(paths: Sequence[Path | str], settings: Settings, memory: Memory | None = None) -> Found:
    """The Python files below the given directories, and the given files whatever their names.

    memory: what patterns have said before.

    Raises UsageError for a path that doesn't exist, and for a directory that can't be read.
    """
    return _Walk(settings, memory or Memory()).run(paths)


def excluded(path: Path | str, settings: Settings) -> bool:
    """Whether a walk from the project's top would leave a file out. It need not exist."""
    return _Walk(settings, Memory()).is_excluded(os.path.abspath(path), is_directory=False)


def included(files: Iterable[SourceFile], settings: Settings) -> list[str]:
    """The names of those that settings of their own leave in, of files that other settings have found."""
    walk = _Walk(settings, Memory())
    named = not settings.force_exclude
    return [file.name for file in files if (file.explicit and named) or not walk.is_excluded(file.name, False)]


def display_name(path: str | Path) -> str:
    """What findings call a file."""
    absolute = os.path.abspath(path)
    working_directory = os.getcwd()
    base = working_directory if working_directory.endswith(os.sep) else working_directory + os.sep
    relative = absolute.removeprefix(base)
    return relative if os.sep == "/" else relative.replace(os.sep, "/")


# An ignore file and the path from its directory to the directory being walked ("" or ending with "/").
_Level = tuple[IgnorePatterns, str]


class _Walk:
    def __init__(self, settings: Settings, memory: Memory) -> None:
        self._settings = settings
        self._memory = memory
        self._files: dict[str, SourceFile] = {}  # by real path
        self._problems: list[str] = []
        self._directories: set[str] = set()  # real paths
        self._links: list[tuple[str, tuple[_Level, ...]]] = []
        self._real: dict[str, str] = {}
        self._excludes = memory.patterns((*DEFAULT_EXCLUDES, *settings.exclude, *settings.extend_exclude))
        self._root = str(settings.root)
        self._working_directory = os.getcwd()
        self._tops: set[str] = set()
        self._named: set[str] = set()
        self._levels: dict[str, tuple[_Level, ...]] = {}  # of directories above named files
        self._excluded: dict[str, bool] = {}
        self._repositories: dict[str, str | None] = {}

    def run(self, paths: Iterable[Path | str]) -> Found:
        directories = []
        for path in paths:
            absolute = os.path.abspath(path)
            try:
                status = os.lstat(absolute)
                linked = stat.S_ISLNK(status.st_mode)
                if linked:
                    status = os.stat(absolute)
            except OSError as error:
                missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
                said = "no such file or directory" if missing else (error.strerror or str(error)).lower()
                raise UsageError(f"{said}: {os.fspath(path)}") from None
            except ValueError as error:
                raise UsageError(f"{error}: {os.fspath(path)!r}") from None
            if self._settings.force_exclude and self.is_excluded(absolute, stat.S_ISDIR(status.st_mode)):
                continue
            if stat.S_ISDIR(status.st_mode):
                directories.append(absolute)
            else:
                real = os.path.realpath(absolute) if linked else self._real_file(absolute)
                self._files.setdefault(real, SourceFile(absolute, display_name(absolute), True, real))
        for directory in directories:
            self._named.add(directory)
            # What leaves out the directory itself would leave out all of it, and it was asked for.
            *ignored, own = self._levels_above(directory)
            self._walk(directory, (*[level for level in ignored if not _leaves_out(level)], own))
        while self._links:
            # After everything else, so that a file is shown by its own path rather than by a link's.
            directory, levels = self._links.pop(0)
            self._walk(directory, levels)
        files = sorted(self._files.values(), key=lambda file: file.display)
        return Found(files, self._problems)

    def _real_file(self, absolute: str) -> str:
        directory, name = os.path.split(absolute)
        real = self._real.get(directory)
        if real is None:
            real = self._real[directory] = os.path.realpath(directory)
        return os.path.join(real, name)

    # ------------------------------------------------------------------------------------------ the walk

    def _walk(self, top: str, levels: tuple[_Level, ...]) -> None:
        self._tops.add(top)
        shown = display_name(top)
        prefix = "" if top == self._working_directory else shown if shown.endswith("/") else shown + "/"
        waiting = [(top, os.path.realpath(top), prefix, levels)]
        while waiting:
            waiting.extend(self._directory(*waiting.pop()))

    def _directory(
        self, path: str, real: str, prefix: str, levels: tuple[_Level, ...]
    ) -> list[tuple[str, str, str, tuple[_Level, ...]]]:
        """Takes a directory's files and returns its directories with what is needed to walk them."""
        if real in self._directories:
            return []
        self._directories.add(real)
        try:
            with os.scandir(path) as iterator:
                entries = list(iterator)
        except OSError as error:
            if path in self._named:
                shown = display_name(path) if path != self._working_directory else "."
                raise UsageError(f"cannot read the directory {shown}: {error.strerror or error}") from None
            self._problems.append(f"{prefix or './'}: cannot read the directory: {error.strerror or error}")
            return []
        children: list[os.DirEntry[str]] = []
        files: list[os.DirEntry[str]] = []
        ignore_file = False
        for entry in entries:
            name = entry.name
            if name.endswith(".py"):
                files.append(entry)
            elif name == ".gitignore":
                ignore_file = True
            elif name == "pyvenv.cfg" and path not in self._tops:
                return []  # a virtual environment, under whatever name
            elif entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and _is_directory(entry)):
                children.append(entry)
        if ignore_file and self._settings.respect_gitignore:
            patterns = self._read_patterns(os.path.join(path, ".gitignore"))
            if patterns:
                levels = (*levels[:-1], (patterns, ""), levels[-1])
        found = self._files
        real_base = real if real.endswith(os.sep) else real + os.sep
        base = path if path.endswith(os.sep) else path + os.sep
        for entry in files:
            name = entry.name
            if _ignored(levels, name, is_directory=False):
                continue
            try:
                if not entry.is_file(follow_symlinks=False):
                    if entry.is_dir():
                        children.append(entry)
                        continue
                    if not entry.is_file():
                        continue
            except OSError:
                continue
            where = os.path.realpath(entry.path) if entry.is_symlink() else real_base + name
            if where not in found:
                found[where] = SourceFile(base + name, prefix + name, False, where)
        result = []
        for entry in children:
            name = entry.name
            if _ignored(levels, name, is_directory=True):
                continue
            below = tuple([(patterns, f"{relative}{name}/") for patterns, relative in levels])
            if entry.is_symlink():
                self._links.append((base + name, below))
            else:
                child = base + name
                shown = "" if child == self._working_directory else f"{prefix}{name}/"
                result.append((child, real_base + name, shown, below))
        return result

    # --------------------------------------------------------------------------------- what applies from above

    def _levels_above(self, directory: str) -> tuple[_Level, ...]:
        """What counts in a directory before its own .gitignore: the strongest last, which is our own excludes."""
        relative = _below(directory, self._root)
        levels: list[_Level] = []
        if self._settings.respect_gitignore:
            top = self._repository(directory) or (self._root if relative is not None else directory)
            steps = (_below(directory, top) or "").split("/")[:-1]
            patterns = self._read_patterns(os.path.join(top, ".git", "info", "exclude"))
            if patterns:
                levels.append((patterns, "".join(f"{step}/" for step in steps)))
            current = top
            for number, step in enumerate(steps):
                patterns = self._read_patterns(os.path.join(current, ".gitignore"))
                if patterns:
                    levels.append((patterns, "".join(f"{part}/" for part in steps[number:])))
                current = os.path.join(current, step)
        levels.append((self._excludes, relative if relative is not None else f"{directory}/"))
        return tuple(levels)

    def _levels_at(self, directory: str) -> tuple[_Level, ...]:
        """What counts for the entries of a directory."""
        levels = self._levels.get(directory)
        if levels is None:
            levels = self._levels_above(directory)
            if self._settings.respect_gitignore:
                patterns = self._read_patterns(os.path.join(directory, ".gitignore"))
                if patterns:
                    levels = (*levels[:-1], (patterns, ""), levels[-1])
            self._levels[directory] = levels
        return levels

    def is_excluded(self, absolute: str, is_directory: bool) -> bool:
        """Whether a walk from the project's top would have left this out (for --force-exclude)."""
        if is_directory and absolute in (self._root, self._repository(absolute)):
            return False
        directory, name = os.path.split(absolute)
        if not name:
            return False
        above = self._excluded.get(directory)
        if above is None:
            above = self._excluded[directory] = self.is_excluded(directory, is_directory=True)
        return above or _ignored(self._levels_at(directory), name, is_directory)

    def _repository(self, directory: str) -> str | None:
        """The nearest directory upwards that holds a .git (which is a file in work trees and submodules)."""
        if directory not in self._repositories:
            parent = os.path.dirname(directory)
            if os.path.lexists(os.path.join(directory, ".git")):
                self._repositories[directory] = directory
            else:
                self._repositories[directory] = None if parent == directory else self._repository(parent)
        return self._repositories[directory]

    def _read_patterns(self, path: str) -> IgnorePatterns | None:
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                return self._memory.patterns(file.read().split("\n"))
        except OSError:
            return None


def _ignored(levels: tuple[_Level, ...], name: str, is_directory: bool) -> bool:
    for patterns, relative in reversed(levels):
        answer = patterns.match(relative + name, name, is_directory)
        if answer is not None:
            return answer
    return False


def _leaves_out(level: _Level) -> bool:
    """Whether patterns are about a directory as a whole: itself or one above it."""
    patterns, relative = level
    return bool(relative) and patterns.covers(relative.removesuffix("/"), is_directory=True)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a loop of links


def _below(directory: str, top: str) -> str | None:
    """The way from `top` down to `directory`, "" or ending with "/"; None if it isn't below."""
    if directory == top:
        return ""
    base = top if top.endswith(os.sep) else top + os.sep
    if not directory.startswith(base):
        return None
    return directory[len(base) :].replace(os.sep, "/") + "/"
