"""What the value of each setting may be, in a settings file and on the command line."""

# os.path where pathlib raises, for a user without a home:
# ruff: noqa: PTH111

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from session_lint.codes import known_codes, nearest, unknown_code
from session_lint.findings import Confidence

OWNERSHIPS = ("project", "local")


class SettingsError(Exception):
    """The settings can't be used. The message is one line that names the file (or option) and the key."""


Converter = Callable[[object, str, Path], object]


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    return repr(value).replace("'", '"')


def wrong(where: str, wanted: str, value: object) -> SettingsError:
    """The error about a value of the wrong kind. where: the file or option, and the key."""
    return SettingsError(f"{where} must be {wanted}, not {_shown(value)}")


def _list(value: object, where: str, what: str) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise wrong(where, f"a list of {what}", value)
    for item in value:
        if not isinstance(item, str) or not item.strip():
            raise wrong(where, f"a list of {what}", item)
    return tuple(item.strip() for item in value)


def _codes(value: object, where: str, _root: Path) -> tuple[str, ...]:
    codes = _list(value, where, "rule codes")
    if codes:
        known = known_codes()
        for code in codes:
            if code != "ALL" and not any(candidate.startswith(code) for candidate in known):
                raise SettingsError(f"{where}: {unknown_code(code)}")
    return codes


def _selected(value: object, where: str, root: Path) -> tuple[str, ...]:
    codes = _codes(value, where, root)
    if not codes:
        raise SettingsError(f'{where} names no rule; leave it out for every rule that is not preview, or write "ALL"')
    return codes


def _patterns(value: object, where: str, _root: Path) -> tuple[str, ...]:
    return tuple(map(_from_root, _list(value, where, "file patterns")))


def _from_root(pattern: str) -> str:
    """`./src` as people write it; .gitignore has `/src` for that."""
    no = "!" if pattern.startswith("!") else ""
    return f"{no}/{pattern[len(no) + 2 :]}" if pattern[len(no) :].startswith("./") else pattern


def _dotted(value: object, where: str, _root: Path) -> tuple[str, ...]:
    names = _list(value, where, "dotted names")
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise SettingsError(f'{where}: "{name}" is not a dotted name such as "app.database.Session"')
    return names


def _per_file(value: object, where: str, root: Path) -> tuple[tuple[str, tuple[str, ...]], ...]:
    if not isinstance(value, dict):
        raise wrong(where, "a table of file patterns and rule codes", value)
    return tuple((_from_root(pattern), _codes(codes, f'{where}."{pattern}"', root)) for pattern, codes in value.items())


def _flag(value: object, where: str, _root: Path) -> bool:
    if not isinstance(value, bool):
        raise wrong(where, "true or false", value)
    return value


def _one_of(value: object, where: str, possible: Collection[str]) -> str:
    if not isinstance(value, str) or value not in possible:
        wanted = ", ".join(f'"{item}"' for item in possible)
        raise wrong(where, f"one of {wanted}", value)
    return value


def _confidence(value: object, where: str, _root: Path) -> Confidence:
    return Confidence(_one_of(value, where, [confidence.value for confidence in Confidence]))


def _ownership(value: object, where: str, _root: Path) -> str:
    return _one_of(value, where, OWNERSHIPS)


def _version(value: object, where: str, _root: Path) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"\d+(\.\d+)*", value):
        raise wrong(where, 'a version such as "0.115.2"', value)
    return value


def _directory(value: object, where: str, root: Path) -> Path:
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str) or not value:
        raise wrong(where, "a directory", value)
    return root / os.path.expanduser(value)


def _jobs(value: object, where: str, _root: Path) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise wrong(where, "a whole number from 1", value)
    return value


_CONVERTERS: dict[str, Converter] = {
    "select": _selected,
    "extend-select": _codes,
    "ignore": _codes,
    "per-file-ignores": _per_file,
    "exclude": _patterns,
    "extend-exclude": _patterns,
    "force-exclude": _flag,
    "respect-gitignore": _flag,
    "min-confidence": _confidence,
    "ownership": _ownership,
    "show-mitigated": _flag,
    "session-types": _dotted,
    "async-session-types": _dotted,
    "providers": _dotted,
    "slow-calls": _dotted,
    "exceptions": _dotted,
    "fastapi-version": _version,
    "cache-dir": _directory,
    "cache": _flag,
    "jobs": _jobs,
}


def validated(table: Mapping[str, object], label: str | None, root: Path, *, by_field: bool) -> dict[str, object]:
    """The table's values by field name. label: the file, None for the command line's own options."""
    values: dict[str, object] = {}
    for key, value in table.items():
        name = key.replace("_", "-") if by_field else key
        where = f"{label}: {name}" if label else f"--{name}"
        converter = _CONVERTERS.get(name)
        if converter is None:
            meant = nearest(name, _CONVERTERS)
            hint = f'; did you mean "{meant}"?' if meant else ""
            raise SettingsError(f'{label or "settings"}: unknown key "{name}"{hint}')
        values[name.replace("-", "_")] = converter(value, where, root)
    return values
