"""The files of a run: those that are asked for, the rest of their project, and what each holds at first sight.

Done for every file of the project before anything else, also when nothing has changed; so it works on strings.
"""

# ruff: noqa: PTH100, PTH110, PTH111, PTH112, PTH116, PTH118, PTH119, PTH120

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from session_lint._hashing import blake2b
from session_lint.source import discovery, reading, suppressions
from session_lint.source.discovery import SourceFile
from session_lint.source.gitignore import Memory
from session_lint.source.reading import Problem, Source
from session_lint.source.words import may_matter

if TYPE_CHECKING:
    from session_lint.cache import Cache
    from session_lint.settings import Settings

_MARKERS = ("pyproject.toml", "session-lint.toml", "setup.cfg", "setup.py", ".git", "requirements.txt")
_SETTLED = 2_000_000_000
"""Nanoseconds since its last change after which a file's times and size are believed: a second change at once
would leave them as they are."""
_LOOSE = 5_000
"""So many files that belong to no project are remembered."""

Plain = tuple[Any, ...]


@dataclass(slots=True)
class File:
    """A file of the project.

    root: the project's directory, ending with a separator. wanted: it was asked for. data: its text where it is at
    hand. digest: of its content. matters: it may hold a session. comments: of a file that does not matter, the
    silencing comments that may be wrong all the same, as plain data. problem: why it can't be judged. checked:
    whether its syntax is known to be good or bad; only asked of files that don't matter, the others are parsed
    anyway. passing: the problem may be gone the next time. words: those of the settings that mean a session.
    """

    source: SourceFile
    root: str
    wanted: bool
    data: bytes | None = None
    digest: str = ""
    matters: bool = False
    lines: int = 0
    comments: Plain = ()
    problem: Problem | None = None
    checked: bool = False
    passing: bool = False
    signature: tuple[int, int, int] | None = None
    words: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """What findings call it."""
        return self.source.display

    @property
    def name(self) -> str:
        """Dotted, from the project's root."""
        parts = self._parts()
        if self.is_package:
            parts = parts[:-1] or parts
        return ".".join([part.replace(".", "_") for part in parts])

    @property
    def is_package(self) -> bool:
        return os.path.basename(self.source.name) == "__init__.py"

    def _parts(self) -> list[str]:
        name, root = self.source.name, self.root
        relative = name[len(root) :] if name.startswith(root) else os.path.relpath(name, root)
        parts = relative.replace(os.sep, "/").removesuffix(".py").split("/")
        return [part for part in parts if part not in (".", "..")]

    @property
    def key(self) -> str:
        """What the file's IR depends on."""
        return f"{self.digest} {self.name} {self.is_package} {' '.join(self.words)}".rstrip()


@dataclass(slots=True)
class Inventory:
    """files: in the order of their paths. problems: a line for each directory that can't be read. nearer: of what was
    asked for, the files that have settings of their own, and those; they are judged by themselves.

    The rest is for `remember`.
    """

    files: list[File]
    problems: list[str]
    scope: str
    name: str
    known: dict[str, Plain]
    root: str
    memory: Memory
    nearer: list[tuple[Settings, list[SourceFile]]]
    changed: bool = True


# ----------------------------------------------------------------------------------------------- which files


def take(paths: Sequence[Path], settings: Settings, stdin: Source | None, cache: Cache) -> Inventory:
    """Find the files and look at those that have changed.

    Raises UsageError if a path does not exist or a directory can't be read.
    """
    # The buffer's file need not exist yet.
    buffer = os.path.abspath(stdin.path) if stdin is not None else None
    asked: list[Path | str] = [path for path in paths if os.path.abspath(path) != buffer]
    root = _base(settings.root)
    memory = Memory(cache.get("ignored", root))
    found = discovery.discover(asked, settings, memory)
    nearer = _nearer(found.files, settings)
    apart = {file.name for _, group in nearer for file in group}
    files = {file.real or os.path.realpath(file.name): File(file, root, True) for file in found.files}
    for file in files.values() if apart else ():
        file.wanted = file.source.name not in apart
    if stdin is not None and buffer is not None:
        file = File(SourceFile(buffer, discovery.display_name(buffer), True), root, True)
        file.data = stdin.data
        files[os.path.realpath(buffer)] = file
    scope = _scope(settings, files)
    if scope is not None and scope not in map(os.path.abspath, asked):
        for source in _project_files(scope, settings, memory):
            real = source.real or os.path.realpath(source.name)
            if real not in files:
                files[real] = File(source, root, False)
    if scope is None and apart:
        files = {real: file for real, file in files.items() if file.wanted}
    words = settings.words
    name = f"{scope or ''} {' '.join(words)}"
    known = cache.get("index", name)
    ordered = sorted(files.values(), key=lambda file: file.source.display)
    index = known if isinstance(known, dict) else {}
    inventory = Inventory(ordered, found.problems, scope or "", name, index, root, memory, nearer)
    for file in ordered:
        file.words = words
    unchanged = [_look(file, inventory.known) for file in ordered]
    inventory.changed = not all(unchanged) or (scope is not None and len(inventory.known) != len(ordered))
    return inventory


def _nearer(files: Iterable[SourceFile], settings: Settings) -> list[tuple[Settings, list[SourceFile]]]:
    if settings.given is None:
        return []
    from session_lint.settings import Nearer

    nearer = Nearer(settings)
    groups: dict[Path | None, tuple[Settings, list[SourceFile]]] = {}
    for file in files:
        own = nearer.of(os.path.dirname(file.name))
        if own is not None:
            groups.setdefault(own.source, (own, []))[1].append(file)
    return list(groups.values())


def _project_files(scope: str, settings: Settings, memory: Memory) -> list[SourceFile]:
    try:
        files = discovery.discover([scope], settings, memory).files
    except discovery.UsageError:  # nobody has named the project's directory, and it need not be readable
        return []
    if _is_project(scope):
        return files
    # A script that lies among somebody's projects has nothing to do with them.
    others: dict[str, bool] = {scope: False}
    return [file for file in files if not _is_of_another(os.path.dirname(file.name), others)]


def _is_of_another(directory: str, known: dict[str, bool]) -> bool:
    if directory not in known:
        known[directory] = _is_project(directory) or _is_of_another(os.path.dirname(directory), known)
    return known[directory]


def _is_project(directory: str) -> bool:
    return any([os.path.exists(os.path.join(directory, marker)) for marker in _MARKERS])


def _scope(settings: Settings, files: dict[str, File]) -> str | None:
    """The directory whose files decide about each other; None for loose files that belong to no project."""
    if _is_project(os.fspath(settings.root)):
        return os.fspath(settings.root)
    if len(files) == 1:
        # A file on its own: the packages that it lies in, and what lies beside it.
        directory = os.path.dirname(next(iter(files)))
        while os.path.exists(os.path.join(directory, "__init__.py")):
            directory = os.path.dirname(directory)
        if os.path.isdir(directory) and directory not in (os.path.dirname(directory), os.path.expanduser("~")):
            return directory
    return None


def _base(root: Path) -> str:
    text = os.fspath(root)
    return text if text.endswith(os.sep) else text + os.sep


# ---------------------------------------------------------------------------------------------- what they hold


def _look(file: File, known: dict[str, Plain]) -> bool:
    """Whether the file is unchanged (by times and size): such a file is not even opened."""
    if file.data is not None:
        _examine(file, file.data)
        return False
    name = file.source.name
    try:
        status = os.stat(name)
        file.signature = (status.st_mtime_ns, status.st_ctime_ns, status.st_size)
    except (OSError, ValueError):
        file.signature = None
    entry = known.get(name)
    if entry is not None and entry[0] == file.signature and file.signature is not None:
        _, file.digest, file.matters, file.lines, file.comments, problem, file.checked = entry
        if problem is not None:
            file.problem = Problem(*problem)
        return True
    try:
        data = reading.read(name)
    except Problem as problem:
        file.problem = problem
        file.signature = None
        return False
    _examine(file, data)
    if file.matters:
        file.data = data
    return False


def _examine(file: File, data: bytes) -> None:
    file.digest = blake2b(data, digest_size=16).hexdigest()
    file.matters = may_matter(data, file.words, file.is_package)
    file.lines = data.count(b"\n") + (not data.endswith(b"\n") and bool(data))
    if file.matters:
        return
    try:
        text = reading.decode(data)
    except Problem as problem:
        file.problem = problem
        file.checked = True
        return
    if suppressions.may_hold(data):
        file.comments = suppressions.parse(text).ours().to_plain()


def remember(inventory: Inventory, cache: Cache) -> None:
    """Keep for the next run what was found out about the files."""
    if inventory.memory.learnt:
        cache.put("ignored", inventory.root, inventory.memory.plain)
    if not inventory.changed:
        return
    now = time.time_ns()
    index: dict[str, Plain] = {}
    for file in inventory.files:
        signature = file.signature
        if signature is None or now - max(signature[:2]) < _SETTLED:
            continue
        problem = None
        if file.problem is not None and not file.matters:
            problem = (file.problem.message, file.problem.line, file.problem.column)
        index[file.source.name] = (
            signature, file.digest, file.matters, file.lines, file.comments, problem, file.checked,
        )  # fmt: skip
    if not inventory.scope:
        rest = [item for item in inventory.known.items() if item[0] not in index]
        index = {**dict(rest[-_LOOSE:]), **index}
    if index != inventory.known:
        cache.put("index", inventory.name, index)


def unchecked(files: Iterable[File]) -> list[File]:
    """The files whose syntax nobody has looked at and nobody will."""
    return [file for file in files if file.wanted and not (file.matters or file.checked or file.problem)]
