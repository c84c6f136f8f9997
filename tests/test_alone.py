"""A file that is linted alone gets what it gets with the whole project, although fewer flows are worked out for it.

Every case is such a project.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from book import Case
from collecting import CASES, RULES, parameters, read_cases
from linting import write

from session_lint import judging
from session_lint.engine import check
from session_lint.findings import Report
from session_lint.settings import load

PAGES = sorted([*CASES.rglob("*.md"), *RULES.glob("SES*.md")])


def told(report: Report, name: str) -> list[str]:
    found = [*report.findings, *report.held_back, *report.mitigated]
    return sorted([str(finding) for finding in found if finding.path == name])


@pytest.mark.parametrize(
    "case",
    parameters(
        PAGES, lambda path: [each for each in read_cases(path) if not each.known and "exclude" not in each.settings]
    ),
)
def test_alone(case: Case | Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(case, Exception):
        raise case
    monkeypatch.chdir(tmp_path)
    write(case, tmp_path)
    settings = load(tmp_path, overrides={"cache": False})
    whole = check([tmp_path], settings)
    monkeypatch.setattr(judging, "FEW", 0)
    for source in case.sources:
        if source.name.endswith(".py"):
            assert told(check([tmp_path / source.name], settings), source.name) == told(whole, source.name)
