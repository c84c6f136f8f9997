"""The versions of the packages that a module runs with, as far as the files around it say so.

A lock file says it exactly, a requirement within bounds. The nearest one counts, from the module's directory up to
the project's root; a lock file further up is believed before bounds that are nearer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from session_lint.settings import Settings

FASTAPI, SQLALCHEMY = "fastapi", "sqlalchemy"
PACKAGES = (FASTAPI, SQLALCHEMY)

Number = tuple[int, ...]

_ENDS_FIRST = ((0, 106), (0, 118))
"""FastAPI ended dependencies before it sent the response from 0.106 on, and does not from 0.118 on."""

_LOCKS = ("uv.lock", "poetry.lock", "pdm.lock", "pylock.toml", "Pipfile.lock")
_DECLARATIONS = ("pyproject.toml", "setup.cfg", "setup.py", "Pipfile")
_DRIVERS = {
    **dict.fromkeys(("aiomysql", "asyncmy", "pymysql", "mysqlclient", "mysql-connector-python"), "mysql"),
    "mariadb": "mariadb",
    "aiosqlite": "sqlite",
    **dict.fromkeys(("psycopg2", "psycopg2-binary", "psycopg", "asyncpg", "pg8000", "psycopg2cffi"), "postgresql"),
    **dict.fromkeys(("oracledb", "cx-oracle"), "oracle"),
    **dict.fromkeys(("pyodbc", "pymssql", "aioodbc"), "mssql"),
    "snowflake-sqlalchemy": "snowflake",
    "duckdb-engine": "duckdb",
}
"""What SQLAlchemy reaches which database with; some are extras of its own, too (`sqlalchemy[aiomysql]`)."""

_MAX_LEVELS = 12
_MAX_BYTES = 16_000_000


class Version(NamedTuple):
    """The versions from low on, and below high if that is known. where: the file that says so."""

    low: Number
    high: Number | None
    where: str

    @property
    def text(self) -> str:
        return ".".join([str(part) for part in self.low])

    @property
    def is_exact(self) -> bool:
        return self.high == (*self.low, 0)

    def at_least(self, *number: int) -> bool | None:
        """Whether the package is of this version or newer; None if it may be or not."""
        if self.low >= number:
            return True
        return False if self.high is not None and self.high <= number else None


class _Said(NamedTuple):
    """What the files of a directory say. databases: those whose drivers are asked for, in whatever version."""

    locked: dict[str, Version]
    declared: dict[str, Version]
    databases: frozenset[str]


class Versions:
    """Reads the files around the linted modules, each once."""

    def __init__(self, settings: Settings) -> None:
        self._root = settings.root.resolve()
        self._fastapi = settings.fastapi_version
        self._found: dict[Path, _Said] = {}

    def of(self, path: str, package: str) -> Version | None:
        """The version of a package that the module at a path runs with; None if nothing says it."""
        if package == FASTAPI and self._fastapi is not None:
            return _exactly(self._fastapi, "the settings")
        declared = None
        for directory in self._directories(Path(path).resolve().parent):
            said = self._read(directory)
            if package in said.locked:
                return said.locked[package]
            declared = declared or said.declared.get(package)
        return declared

    def databases(self, paths: Iterable[str]) -> frozenset[str]:
        """Those whose drivers are asked for in the directories of these paths and above; lock files name more."""
        around = {step for path in paths for step in self._directories(Path(path).resolve().parent)}
        return frozenset().union(*[self._read(directory).databases for directory in around])

    def dependencies_end_first(self, path: str) -> bool | None:
        """Whether FastAPI ends dependencies before it sends the response and begins background tasks.

        None if the version that the module at the path runs with may be one of either kind.
        """
        version = self.of(path, FASTAPI)
        if version is None:
            return None
        begun, over = [version.at_least(*number) for number in _ENDS_FIRST]
        if begun is False or over:
            return False
        return True if begun and over is False else None

    def is_sqlalchemy_1(self, path: str) -> bool:
        """Whether something says that the module at the path runs with SQLAlchemy 1."""
        version = self.of(path, SQLALCHEMY)
        return version is not None and version.at_least(2) is False

    def is_sqlalchemy_2(self, path: str) -> bool:
        """Whether something says that it does not run with SQLAlchemy 1."""
        version = self.of(path, SQLALCHEMY)
        return version is not None and version.at_least(2) is True

    def fingerprint(self, paths: Iterable[str]) -> str:
        """Changes with whatever `of` says about the modules at these paths."""
        directories = sorted({str(Path(path).parent) for path in paths})
        said = [
            f"{directory} {package} {self.of(f'{directory}/x', package)}"
            for directory in directories
            for package in PACKAGES
        ]
        databases = self.databases([f"{directory}/x" for directory in directories])
        return "\n".join([*said, " ".join(sorted(databases))])

    def _directories(self, directory: Path) -> Iterator[Path]:
        for _ in range(_MAX_LEVELS):
            yield directory
            if directory in (self._root, directory.parent) or (directory / ".git").exists():
                return
            directory = directory.parent

    def _read(self, directory: Path) -> _Said:
        """What the lock files and the requirements of a directory say."""
        if directory not in self._found:
            locked: dict[str, Version] = {}
            declared: dict[str, Version] = {}
            databases: set[str] = set()
            for name in _files(directory):
                text = _text(directory / name)
                databases |= _asked_for(text) if name not in _LOCKS else set()
                for package in PACKAGES if text else ():
                    if name in _LOCKS:
                        found = _locked(text, package, name)
                        locked |= {package: found} if found and package not in locked else {}
                    else:
                        found = _declared(text, package, name)
                        declared |= {package: found} if found and package not in declared else {}
            # A requirements file that pins is as good as a lock file.
            locked |= {key: found for key, found in declared.items() if found.is_exact and key not in locked}
            self._found[directory] = _Said(locked, declared, frozenset(databases))
        return self._found[directory]


def _files(directory: Path) -> list[str]:
    present = _names(directory)
    named = [name for name in (*_LOCKS, *_DECLARATIONS) if name in present]
    listed = [name for name in present if name.startswith("requirements") and name.endswith((".txt", ".in"))]
    if "requirements" in present:
        inner = _names(directory / "requirements")
        listed += [f"requirements/{name}" for name in inner if name.endswith((".txt", ".in"))]
    return [*named, *sorted(listed, key=lambda name: ("dev" in name or "test" in name, len(name), name))]


def _names(directory: Path) -> set[str]:
    try:
        return {entry.name for entry in directory.iterdir()}
    except OSError:
        return set()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace") if path.stat().st_size <= _MAX_BYTES else ""
    except OSError:
        return ""


def _locked(text: str, package: str, name: str) -> Version | None:
    if name == "Pipfile.lock":
        pattern = rf'"{package}":\s*\{{[^{{}}]*?"version":\s*"==([^"]+)"'
    else:
        pattern = rf'^name = "{package}"\nversion = "([^"]+)"'
    found = re.search(pattern, text, re.MULTILINE | re.IGNORECASE)
    return _exactly(found[1], name) if found else None


def _declared(text: str, package: str, name: str) -> Version | None:
    """The bounds of a requirement: `fastapi[all]>=0.110,<1`, `"fastapi==0.115.2"`, `fastapi = "^0.115"`."""
    extras = r"(?:\s*\[[^\]\n]*\])?"
    for pattern in (
        rf"""^\s*["']?{package}{extras}\s*\(?([=<>!~][^;#"'\n)]*)""",
        rf"""["']{package}{extras}\s*\(?([=<>!~][^;"'\n)]*)["';)]""",
        rf"""^{package}\s*=\s*(?:\{{[^}}\n]*?version\s*=\s*)?["']([^"'\n]+)["']""",
    ):
        found = re.search(pattern, text, re.MULTILINE | re.IGNORECASE)
        if found:
            bounds = _bounds(found[1])
            if bounds is not None:
                return Version(*bounds, name)
    return None


def _asked_for(text: str) -> set[str]:
    """The databases of the drivers that a file names outside of its comments."""
    code = re.sub(r"(?m)(^|\s)#.*$", "", text)
    words = {word.lower().replace("_", "-") for word in re.findall(r"[A-Za-z][\w-]*", code)}
    return {_DRIVERS[word] for word in words & _DRIVERS.keys()}


def _bounds(text: str) -> tuple[Number, Number | None] | None:
    low: Number = ()
    high: Number | None = None
    for part in text.split(","):
        found = re.match(r"\s*(===?|>=|<=|~=|!=|<|>|\^|~|)\s*v?(\d+(?:\.\d+)*)(\.\*)?", part)
        if found is None:
            continue
        operator, number = found[1], tuple([int(piece) for piece in found[2].split(".")])
        if (operator == "==" and found[3]) or operator in ("^", "~", "~="):
            low, high = number, _next(number, operator if not found[3] else "")
        elif operator in ("==", "===", ""):
            return number, (*number, 0)
        elif operator in (">=", ">"):
            low = max(low, number)
        elif operator == "<":
            high = min(high or number, number)
        elif operator == "<=":
            high = min(high or (*number, 0), (*number, 0))
    return (low, high) if low or high else None


def _next(number: Number, operator: str) -> Number:
    """The first version that `^`, `~`, `~=` or `.*` leave out."""
    if operator == "^":
        index = next((index for index, part in enumerate(number) if part), len(number) - 1)
    elif operator == "~=":
        index = max(len(number) - 2, 0)
    elif operator == "~":
        index = min(1, len(number) - 1)
    else:
        index = len(number) - 1
    return (*number[:index], number[index] + 1)


def _exactly(text: str, where: str) -> Version | None:
    bounds = _bounds(f"=={text}")
    return Version(*bounds, where) if bounds else None
