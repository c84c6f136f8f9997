"""What the project's other tools would do to our comments."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

# In the order in which Ruff looks for them in a directory.
_FILES = (".ruff.toml", "ruff.toml", "pyproject.toml")
# "Unused noqa" and "invalid code in noqa": both take our codes out.
_DELETING = ("RUF100", "RUF102")


def ruff_hint(root: Path) -> str | None:
    """One line if the project's Ruff would delete `# noqa: SES...` comments, else None.

    Anything that can't be read is Ruff's own business.
    """
    found = _ruff_table(root)
    if found is None:
        return None
    path, table = found
    lint = table.get("lint")
    tables = [table, lint] if isinstance(lint, dict) else [table]
    external = _texts(tables, "external")
    if any(code.startswith("SES") or (code and "SES".startswith(code)) for code in external):
        return None
    selected = _texts(tables, "select") + _texts(tables, "extend-select")
    ignored = _texts(tables, "ignore") + _texts(tables, "extend-ignore")
    for code in _DELETING:
        chosen = _longest(selected, code)
        if chosen >= 0 and _longest(ignored, code) < max(chosen, 1):
            where = "[tool.ruff.lint]" if path.name == "pyproject.toml" else "[lint]"
            return f'Ruff\'s {code} deletes "# noqa: SES..." comments; add external = ["SES"] to {where} in {path.name}'
    return None


def _ruff_table(root: Path) -> tuple[Path, Mapping[str, object]] | None:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    for directory in (root, *root.parents):
        for name in _FILES:
            path = directory / name
            try:
                data = path.read_bytes()
                if name == "pyproject.toml" and b"ruff" not in data:
                    continue
                document = tomllib.loads(data.decode("utf-8-sig"))
            except (OSError, ValueError):
                continue
            if name != "pyproject.toml":
                return path, document
            tool = document.get("tool")
            table = tool.get("ruff") if isinstance(tool, dict) else None
            if isinstance(table, dict):
                return path, table
    return None


def _texts(tables: Iterable[Mapping[str, object]], key: str) -> list[str]:
    values = [table.get(key) for table in tables]
    return [item for value in values if isinstance(value, list) for item in value if isinstance(item, str)]


def _longest(selectors: Iterable[str], code: str) -> int:
    fits = [
        0 if selector == "ALL" else len(selector)
        for selector in selectors
        if selector == "ALL" or code.startswith(selector)
    ]
    return max(fits, default=-1)
