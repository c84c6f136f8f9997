"""The same cases in other words: a finding hangs on what a session is, not on its name or on the form of its import."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from book import BookError, Case
from collecting import CASES, RULES, read_cases, verify

_WORDS = {"session": "handle", "db": "store", "connection": "line", "db_session": "db_handle"}
_SEPARATOR = "# ---- the next file\n"
_VARIABLE = re.compile(rf"\b({'|'.join(_WORDS)})\b")


def sqlmodel(text: str) -> str:
    """SQLModel's session classes are SQLAlchemy's."""
    text = re.sub(r"^from sqlalchemy\.orm import Session$", "from sqlmodel import Session", text, flags=re.MULTILINE)
    return re.sub(
        r"^from sqlalchemy\.ext\.asyncio import AsyncSession$",
        "from sqlmodel.ext.asyncio.session import AsyncSession",
        text,
        flags=re.MULTILINE,
    )


def _imports_the_class(text: str) -> bool:
    return (
        re.search(r"^from sqlalchemy\.orm import Session$", text, re.MULTILINE) is not None and "Session as" not in text
    )


def alias(text: str) -> str:
    """The class under another name."""
    if not _imports_the_class(text):
        return text
    return re.sub(r"(?<![\w.])Session\b", "Work", text).replace(" import Work\n", " import Session as Work\n", 1)


def attribute(text: str) -> str:
    """The class as an attribute of its module."""
    if not _imports_the_class(text):
        return text
    text = text.replace("from sqlalchemy.orm import Session\n", "from sqlalchemy import orm\n", 1)
    return re.sub(r"(?<![\w.])Session\b", "orm.Session", text)


def names(text: str) -> str:
    """Variables whose names say nothing."""
    # Attributes of frameworks and libraries keep their names; so do strings, comments and what is imported.
    if re.search(r"(?<!self)\.(?:session|db|connection)\b|[\"'](?:session|db)[\"']|[fF]lask|session-lint", text):
        return text
    if any(_VARIABLE.search(line.partition(" import ")[2]) for line in text.splitlines() if line.startswith("from ")):
        return text
    return "".join(
        line if line.startswith(("from ", "import ")) else _VARIABLE.sub(lambda match: _WORDS[match[0]], line)
        for line in text.splitlines(keepends=True)
    )


VARIANTS: tuple[Callable[[str], str], ...] = (sqlmodel, alias, attribute, names)


def _rewritten(texts: list[str], variant: Callable[[str], str]) -> list[str]:
    """Imports are a file's own affair; variables are renamed in all files of a case or in none."""
    if variant is names:
        return names(_SEPARATOR.join(texts)).split(_SEPARATOR)
    return [variant(text) for text in texts]


def variants() -> Iterator[object]:
    for path in [*sorted(RULES.glob("SES*.md")), CASES / "false_alarms.md", CASES / "missed_bugs.md"]:
        try:
            cases = read_cases(path)
        except BookError:
            continue  # test_rulebook and test_cases say so
        for case in cases:
            for variant in VARIANTS:
                texts = _rewritten([source.text for source in case.sources], variant)
                sources = tuple(replace(source, text=text) for source, text in zip(case.sources, texts, strict=True))
                if sources != case.sources:
                    number = f" ({case.number})" if case.number > 1 else ""
                    title = " > ".join(case.headings[1:])
                    yield pytest.param(
                        replace(case, sources=sources), id=f"{variant.__name__}: {path.stem}: {title}{number}"
                    )


@pytest.mark.parametrize("case", list(variants()))
def test_variant(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verify(case, tmp_path, monkeypatch)
