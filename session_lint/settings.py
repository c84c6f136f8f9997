"""The settings of one run: `[tool.session-lint]` of the nearest pyproject.toml, or session-lint.toml."""

# os.path where pathlib raises (directories that may not be read) or follows links:
# ruff: noqa: PTH100, PTH110, PTH112, PTH113, PTH118, PTH120

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from session_lint.findings import Confidence
from session_lint.setting_values import SettingsError, validated, wrong

if TYPE_CHECKING:
    from session_lint.source.gitignore import Memory

__all__ = ["Nearer", "Settings", "SettingsError", "load", "show"]

PYPROJECT = "pyproject.toml"
OWN_FILE = "session-lint.toml"
CACHE_NAME = ".session-lint-cache"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run is asked to do.

    root: directory of the settings file, else the nearest parent with a project file, else where the run
    started. source: the settings file, None if there is none. select: empty means every rule that is not
    preview; "ALL" means all, a prefix such as "SES1" means its rules that are not preview.
    session_types, async_session_types: dotted names of classes that are sessions. providers: dotted names of
    functions and context managers that hand out a session which they close. slow_calls: calls that should
    not happen while a transaction is held. exceptions: classes that mean a failed statement. given: the command
    line's own values, for files that have a nearer settings file; None if those don't count.
    """

    root: Path
    source: Path | None = None
    select: tuple[str, ...] = ()
    extend_select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    per_file_ignores: tuple[tuple[str, tuple[str, ...]], ...] = ()
    exclude: tuple[str, ...] = ()
    extend_exclude: tuple[str, ...] = ()
    force_exclude: bool = False
    respect_gitignore: bool = True
    min_confidence: Confidence = Confidence.LIKELY
    ownership: str = "project"
    show_mitigated: bool = False
    session_types: tuple[str, ...] = ()
    async_session_types: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    slow_calls: tuple[str, ...] = ()
    exceptions: tuple[str, ...] = ()
    fastapi_version: str | None = None
    cache_dir: Path | None = None
    cache: bool = True
    jobs: int | None = None
    given: Mapping[str, object] | None = field(default=None, compare=False, repr=False)

    def enabled(self, code: str, preview: bool) -> bool:
        """Whether a rule runs. The longest selector that fits decides; between equals, `ignore` does.

        A preview rule runs only if its own code or "ALL" selects it. SES902 runs whatever is selected: a file
        that can't be judged is not a file without findings.
        """
        chosen = 0 if code == "SES902" or not (self.select or preview) else -1
        for selector in (*self.select, *self.extend_select):
            if not preview or selector in (code, "ALL"):
                chosen = max(chosen, _fit(selector, code))
        return chosen >= 0 and all(
            _fit(selector, code) < chosen or _fit(selector, code) < 0 for selector in self.ignore
        )

    def ignored_for(self, path: Path | str, memory: Memory | None = None) -> frozenset[str]:
        """The codes and prefixes that `per-file-ignores` silences in a file, for `str.startswith`.

        memory: what patterns have said before.
        """
        if not self.per_file_ignores:
            return frozenset()
        from session_lint.source.gitignore import Memory

        memory = memory or Memory()
        relative = os.path.relpath(os.path.abspath(path), self.root).replace(os.sep, "/")
        ignored: set[str] = set()
        for pattern, codes in self.per_file_ignores:
            # A pattern that fits a directory counts for everything in it, as it does in .gitignore.
            if memory.patterns([pattern]).covers(relative, is_directory=False):
                ignored.update("SES" if code == "ALL" else code for code in codes)
        return frozenset(ignored)

    @property
    def words(self) -> tuple[str, ...]:
        """The names by which code mentions the settings' session types and providers."""
        named = {name.rpartition(".")[2] for name in (*self.session_types, *self.async_session_types, *self.providers)}
        return tuple(sorted(named))

    @property
    def cache_directory(self) -> Path | None:
        """Where the cache lies, None if it is off."""
        if not self.cache:
            return None
        return self.cache_dir if self.cache_dir is not None else self.root / CACHE_NAME

    def analysis_fingerprint(self) -> str:
        """Changes whenever the analysis itself could give another result for the same sources.

        What is only filtered afterwards (selection, confidence, exclusions) is not in it.
        """
        from hashlib import blake2b

        analysed = (
            self.ownership,
            self.session_types,
            self.async_session_types,
            self.providers,
            self.slow_calls,
            self.exceptions,
            self.fastapi_version,
        )
        return blake2b(repr(analysed).encode(), digest_size=16).hexdigest()


def _fit(selector: str, code: str) -> int:
    """How well a selector fits a code: the length of what fits, -1 if nothing does."""
    if selector == "ALL":
        return 0
    return len(selector) if code.startswith(selector) else -1


def load(
    start: Path,
    *,
    config: Path | None = None,
    isolated: bool = False,
    overrides: Mapping[str, object] | None = None,
) -> Settings:
    """The settings for a run that begins at `start` (a file or directory).

    config: this file and no other. isolated: no file at all. overrides: values of the command line, by field
    name; they win over the file's. If they have `select`, the file's whole choice of rules is replaced.

    Raises SettingsError.
    """
    start = Path(os.path.abspath(start))
    path: Path | None = None
    table: Mapping[str, object] = {}
    if isolated and config is not None:
        raise SettingsError("--isolated and --config exclude each other")
    if config is not None:
        path = Path(os.path.abspath(config))
        table = _table_of(path, required=True) or {}
    elif not isolated:
        path, table = _nearest(start)
    # A file given by --config may lie anywhere; the project is still where the run starts.
    inside = path is not None and path.parent in (start, *start.parents)
    root = path.parent if path is not None and inside else _project_root(start)
    values = validated(table, _label(path), root, by_field=False) if path is not None else {}
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    if given:
        own = validated(given, None, Path.cwd(), by_field=True)
        if "select" in own:
            for key in ("select", "extend_select", "ignore"):
                values.pop(key, None)
        for key in ("extend_select", "ignore", "extend_exclude"):
            if key in own:
                own[key] = (*_strings(values.get(key)), *_strings(own[key]))
        values.update(own)
    nearer = given if config is None and not isolated else None
    return replace(Settings(root=root, source=path, given=nearer), **values)  # type: ignore[arg-type]


class Nearer:
    """Which files below a run's root have a nearer settings file than the run."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._root = os.fspath(settings.root)
        self._known: dict[str, Settings | None] = {self._root: None}

    def of(self, directory: str) -> Settings | None:
        """The settings of the files in a directory, None if they are the run's own. Raises SettingsError."""
        if self._settings.given is None:
            return None
        if directory not in self._known:
            parent = os.path.dirname(directory)
            found = None
            if parent != directory and directory.startswith(os.path.join(self._root, "")):
                table = _settings_in(Path(directory))
                found = self.of(parent) if table is None else load(Path(directory), overrides=self._settings.given)
            self._known[directory] = found
        return self._known[directory]


def _strings(value: object) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else ()


# ------------------------------------------------------------------------------------------ finding the file


def _parents(start: Path) -> Iterable[Path]:
    if os.path.isdir(start):
        yield start
    yield from start.parents


def _nearest(start: Path) -> tuple[Path | None, Mapping[str, object]]:
    for directory in _parents(start):
        found = _settings_in(directory)
        if found is not None:
            return found
    return None, {}


def _settings_in(directory: Path) -> tuple[Path, Mapping[str, object]] | None:
    for name in (OWN_FILE, PYPROJECT):
        path = directory / name
        if os.path.isfile(path):
            table = _table_of(path, required=False)
            if table is not None:
                return path, table
    return None


def _project_root(start: Path) -> Path:
    for directory in _parents(start):
        if any(os.path.exists(directory / name) for name in (PYPROJECT, OWN_FILE, ".git")):
            return directory
    return start if os.path.isdir(start) else Path.cwd()


def _label(path: Path | None) -> str:
    """A file's name in messages: relative to the working directory if it is below it."""
    if path is None:
        return ""
    try:
        return path.relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.as_posix()


def _table_of(path: Path, *, required: bool) -> Mapping[str, object] | None:
    """The file's table of ours; None if it has none and needs none."""
    label = _label(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{label}: cannot read the settings: {error.strerror or error}") from None
    own = path.name != PYPROJECT
    if not own and re.search(rb"(?i)session[-_ ]?lint", data) is None:
        # Most pyproject.toml files say nothing of us, and parsing TOML costs as much as a warm run.
        if required:
            raise SettingsError(f"{label}: has no table [tool.session-lint]")
        return None
    document = _parsed(data, label)
    tool = document.get("tool")
    table = tool.get("session-lint") if isinstance(tool, dict) else None
    if table is None:
        if own:
            return document
        misspelt = _misspelt(document)
        if misspelt is not None:
            raise SettingsError(f"{label}: unknown table [{misspelt}]; did you mean [tool.session-lint]?")
        if required:
            raise SettingsError(f"{label}: has no table [tool.session-lint]")
        return None
    if not isinstance(table, dict):
        raise wrong(f"{label}: tool.session-lint", "a table", table)
    return table


def _misspelt(document: Mapping[str, object]) -> str | None:
    """The table that was probably meant to be ours."""
    tool = document.get("tool")
    names = [*(("tool", name) for name in (tool if isinstance(tool, dict) else ())), *((name,) for name in document)]
    ours = [name for name in names if re.fullmatch(r"(?i)session[-_ ]?lint(er)?", name[-1])]
    return ".".join(ours[0]) if ours else None


def _parsed(data: bytes, label: str) -> dict[str, object]:
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise SettingsError(f"{label}: is not UTF-8 text: byte 0x{data[error.start]:02x} at {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{label}: is not valid TOML: {error}".replace("\n", " ")) from None


# ----------------------------------------------------------------------------------------------- showing


def show(settings: Settings) -> str:
    """All settings in the form of a settings file, for `--show-settings`."""
    lines = [f"# root: {settings.root}", f"# settings file: {settings.source or 'none'}"]
    for each in fields(settings):
        if each.name in ("root", "source", "per_file_ignores", "given"):
            continue
        value: object = getattr(settings, each.name)
        key = each.name.replace("_", "-")
        if each.name == "cache_dir":
            value = settings.cache_directory
        is_set = value is not None and not (key == "select" and not value)
        lines.append(f"{key} = {_toml(value)}" if is_set else f"# {key} is not set")
    lines.append("[per-file-ignores]")
    lines.extend(f"{_toml(pattern)} = {_toml(codes)}" for pattern, codes in settings.per_file_ignores)
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, Confidence):
        value = value.value
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
