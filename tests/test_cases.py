"""Every case of `tests/cases/**/*.md`, linted: what is marked is reported, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest
from book import Case
from collecting import CASES, parameters, read_cases, verify


@pytest.mark.parametrize("case", parameters(sorted(CASES.rglob("*.md")), read_cases))
def test_case(case: Case | Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verify(case, tmp_path, monkeypatch)
