"""The rule book on a real PostgreSQL: its oracle proves each bad example, and each good one stays clean.

"Clean" means under every single fault and cancellation, and for every oracle, not only the rule's own.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from book import Case
from collecting import EXAMPLE, RULES, page_cases
from scenarios import Scenario, create_tables, explore, proofs

from session_lint.rulebook import load_pages
from session_lint.runtime.evidence import PROVES
from session_lint.runtime.exploring import Explorer, Run
from session_lint.runtime.postgres import Database, PostgresServer
from session_lint.runtime.probe import Probe

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

CASES = [case for path in sorted(RULES.glob("SES*.md")) for case in page_cases(path) if case.has_scenario]
BAD = [case for case in CASES if case.headings[1] == EXAMPLE]
GOOD = [case for case in CASES if case.headings[1] != EXAMPLE]


NOT_YET = {"SES206"}
"""Rules with a meaning at run time whose page has no scenario."""


def code(case: Case) -> str:
    return case.path.name.split("-")[0]


def identifier(case: Case) -> str:
    return f"{code(case)}-{' '.join(case.headings[2:])}-{case.number}"


@pytest.fixture(autouse=True)
def no_garbage_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()
    gc.collect()


@pytest.fixture(scope="session")
def template(postgres: PostgresServer) -> Iterator[Database]:
    with postgres.new_database() as database:
        create_tables(database)
        yield database


@pytest.fixture
def runs(request: pytest.FixtureRequest, template: Database, probe: Probe, tmp_path: Path) -> list[Run]:
    case: Case = request.param
    with template.server.new_database(template.name) as database:
        found = list(explore(Explorer(probe), Scenario(case, tmp_path, database)))
        probe.observers.close()
    assert probe.lost == ""
    return found


@pytest.mark.parametrize(("case", "runs"), [(case, case) for case in BAD], ids=map(identifier, BAD), indirect=["runs"])
def test_a_bad_example_is_proved(case: Case, runs: list[Run]) -> None:
    assert proofs(code(case), runs), [(str(run.step), run.error, run.evidence) for run in runs]


@pytest.mark.parametrize("runs", GOOD, ids=map(identifier, GOOD), indirect=True)
def test_a_good_example_stays_clean(runs: list[Run]) -> None:
    assert runs[0].error is None
    assert [(str(run.step), list(map(str, run.evidence))) for run in runs if run.evidence] == []


@pytest.mark.parametrize("page", load_pages(RULES).values(), ids=lambda page: page.code)
def test_a_page_names_its_oracles(page: object) -> None:
    section = page.body.split("## How it is proved")[1].split("## ")[0]  # type: ignore[attr-defined]
    named = re.search(r"^Oracles?: (.*)\.$", section, re.MULTILINE)
    if page.code in NOT_YET:  # type: ignore[attr-defined]
        return
    oracles = [oracle.value for oracle in PROVES.get(page.code, ())]  # type: ignore[attr-defined]
    assert (named[1].split(", ") if named else []) == oracles


def test_rules_with_a_meaning_at_run_time_have_scenarios() -> None:
    proved = {code(case) for case in BAD}
    assert proved == {page for page in load_pages(RULES) if page in PROVES} - NOT_YET
    assert {code(case) for case in GOOD} == proved
