"""The rule book on a real PostgreSQL, and whether the analysis says the same of every function that a scenario reaches.

A bad example is proved by one of its rule's oracles. A good one stays clean under every single fault and cancellation,
and for every oracle, not only the rule's own. Each finding is confirmed, and no evidence is left that no finding
speaks of: a disagreement is a defect of the analysis or of the shim.
"""

from __future__ import annotations

import contextlib
import gc
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from book import Case
from collecting import EXAMPLE, RULES, page_cases
from linting import write
from scenarios import LATE_IS_THE_BUG, Ground, Scenario, explore, proofs

from session_lint.engine import check
from session_lint.findings import Verdict
from session_lint.rulebook import Page, load_pages
from session_lint.runtime.evidence import PROVES, Evidence
from session_lint.runtime.exploring import CAME_BACK, Explorer, Run
from session_lint.runtime.postgres import PostgresServer
from session_lint.runtime.probe import Probe
from session_lint.runtime.report import RunReport
from session_lint.runtime.verdicts import Verdicts, judge
from session_lint.settings import load

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.slow,
    # What a thread of a scenario raises is an outcome like others.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]

ALL = [case for path in sorted(RULES.glob("SES*.md")) for case in page_cases(path)]
CASES = [case for case in ALL if case.has_scenario]
BAD = [case for case in CASES if case.headings[1] == EXAMPLE]
GOOD = [case for case in CASES if case.headings[1] != EXAMPLE]


def code(case: Case) -> str:
    return case.path.name.split("-")[0]


def identifier(case: Case) -> str:
    return f"{code(case)}-{' '.join(case.headings[2:])}-{case.number}"


@dataclass
class Explored:
    """A case in a directory of its own, and what its runs showed."""

    case: Case
    directory: Path
    runs: list[Run]

    def verdicts(self, monkeypatch: pytest.MonkeyPatch) -> Verdicts:
        """What the analysis says of it, judged by the runs."""
        monkeypatch.chdir(self.directory)
        report = RunReport()
        for run in self.runs:
            for evidence in run.evidence:
                if CAME_BACK not in evidence.facts or code(self.case) in LATE_IS_THE_BUG:
                    report.add(replace(evidence, test="scenario", subject=None))
            for frames in run.recording.frames():
                report.saw(frames.places, "scenario")
        names = [source.name for source in self.case.sources]
        found = check([Path(name) for name in names], load(self.directory))
        return judge(found.findings, [*found.held_back, *found.mitigated], names, report)


@pytest.fixture(autouse=True)
def no_garbage_collection() -> Iterator[None]:
    """Each run collects at a moment of its own; what one test leaves in caches is not looked through in the next."""
    gc.disable()
    yield
    gc.enable()
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def ground(postgres: PostgresServer) -> Iterator[Ground]:
    with postgres.new_database() as database, contextlib.closing(Ground(database)) as ground:
        yield ground


@pytest.fixture
def explored(request: pytest.FixtureRequest, ground: Ground, probe: Probe, tmp_path: Path) -> Explored:
    case: Case = request.param
    write(case, tmp_path)
    runs = list(explore(Explorer(probe), Scenario(case, tmp_path, ground)))
    probe.observers.close()
    ground.clear()
    assert probe.lost == ""
    return Explored(case, tmp_path, runs)


@pytest.mark.parametrize("explored", BAD, ids=map(identifier, BAD), indirect=True)
def test_a_bad_example_is_proved(explored: Explored, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = explored.runs
    assert proofs(code(explored.case), runs), [(str(run.step), run.error, run.evidence) for run in runs]
    verdicts = explored.verdicts(monkeypatch)
    unproved = (Verdict.NOT_REPRODUCED, Verdict.NOT_REACHED)
    assert [(v.verdict.value, str(v.subject)) for v in verdicts.findings if v.verdict in unproved] == []
    assert [str(evidence) for evidence in verdicts.missed] == []


@pytest.mark.parametrize("explored", GOOD, ids=map(identifier, GOOD), indirect=True)
def test_a_good_example_stays_clean(explored: Explored) -> None:
    runs = explored.runs
    assert runs[0].error is None
    meant = explored.case.shows
    shown = [(str(run.step), each) for run in runs for each in left_behind(run)]
    assert [(step, str(each)) for step, each in shown if each.oracle.value not in meant] == []
    assert {each.oracle.value for _, each in shown} == set(meant)


def left_behind(run: Run) -> list[Evidence]:
    """Its evidence; after a failure it may take a turn of the event loop until a generator's cleanup is done."""
    return [evidence for evidence in run.evidence if run.error is None or CAME_BACK not in evidence.facts]


@pytest.mark.parametrize("page", load_pages(RULES).values(), ids=lambda page: page.code)
def test_a_page_names_its_oracles(page: Page) -> None:
    section = page.body.split("## How it is proved")[1].split("## ")[0]
    named = re.search(r"^Oracles?: (.*)\.$", section, re.MULTILINE)
    assert (named[1].split(", ") if named else []) == [oracle.value for oracle in PROVES.get(page.code, ())]


def test_rules_with_a_meaning_at_run_time_have_scenarios() -> None:
    proved = {code(case) for case in BAD}
    assert proved == {page for page in load_pages(RULES) if page in PROVES}
    assert {code(case) for case in GOOD} == proved


def test_every_block_of_these_rules_has_a_scenario_or_says_why_not() -> None:
    wrong = [case.place for case in ALL if code(case) in PROVES and case.has_scenario == bool(case.not_run)]
    assert wrong == []
    assert [case.place for case in BAD if case.shows] == []
