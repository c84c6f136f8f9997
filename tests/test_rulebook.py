"""Every example of the rule book, linted: what is marked is reported, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest
from book import Case
from collecting import RULES, page_cases, parameters, verify


@pytest.mark.parametrize("case", parameters(sorted(RULES.glob("SES*.md")), page_cases))
def test_example(case: Case | Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verify(case, tmp_path, monkeypatch)
