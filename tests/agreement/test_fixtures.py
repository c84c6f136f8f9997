"""The four states of the thread handlers: the analysis and PostgreSQL say the same of every function.

Each state's own tests run once with every single fault and cancellation; both kinds of ownership are judged by that.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from session_lint.engine import check
from session_lint.findings import Verdict
from session_lint.runtime.confirm import run_tests
from session_lint.runtime.evidence import LIFETIME
from session_lint.runtime.postgres import ENVIRONMENT, PostgresServer
from session_lint.runtime.verdicts import judge
from session_lint.settings import load

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

FIXTURE = Path(__file__).resolve().parents[2] / "fixtures" / "thread_handlers"

READERS, WRITERS = {"list_threads", "get_thread"}, {"create_thread", "update_thread", "delete_thread", "auto_rename"}
SOUND = {"get_messages", "send_message"}

Told = set[tuple[str, str]]


def told(code: str, names: set[str]) -> Told:
    """These handlers, each with the same rule."""
    return {(code, f"handle_{name}_request") for name in names}


DEPENDENCY: Told = {("SES202", "get_db")}
HANDLERS = told("SES116", READERS) | told("SES101", WRITERS)

# The state; what each ownership finds; which findings PostgreSQL confirms; which routes leave something behind.
STATES: dict[str, tuple[dict[str, Told], Told, set[str]]] = {
    "before": ({"project": DEPENDENCY, "local": DEPENDENCY | HANDLERS}, DEPENDENCY | HANDLERS, READERS | WRITERS),
    "after": (
        {"project": DEPENDENCY, "local": DEPENDENCY | told("SES111", READERS | WRITERS | SOUND)},
        DEPENDENCY | told("SES111", READERS | WRITERS | SOUND),
        READERS | WRITERS | SOUND,
    ),
    # `local` asks every function for its own rollback, whoever closes the session: nothing of it is a bug here.
    "guarded": ({"project": set(), "local": HANDLERS}, set(), set()),
    "recommended": ({"project": set(), "local": set()}, set(), set()),
}


@pytest.mark.parametrize("state", STATES)
def test_every_function(state: str, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    found, confirmed, leaving = STATES[state]
    monkeypatch.chdir(FIXTURE)
    monkeypatch.setenv(ENVIRONMENT, postgres.url())
    for name in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER"):
        monkeypatch.delenv(name, raising=False)
    runs, status = run_tests(["pytest", "-q", "-p", "no:cacheprovider", state], quiet=True)
    assert (status, runs.lost, runs.notes, runs.tests) == (0, "", [], 8)

    files = [str(path.relative_to(FIXTURE)) for path in (FIXTURE / state / "app").rglob("*.py")]
    for ownership, expected in found.items():
        settings = load(FIXTURE / state, overrides={"ownership": ownership, "cache": False})
        report = check([Path(state)], replace(settings, root=FIXTURE))  # session-lint itself is no part of it
        verdicts = judge(report.findings, [*report.held_back, *report.mitigated], files, runs)
        assert {(finding.code, finding.function) for finding in report.findings} == expected
        assert {
            (finding.code, finding.function) for finding in verdicts.proved if finding.verdict is Verdict.CONFIRMED
        } == expected & confirmed
        assert all(a.verdict is Verdict.CONFIRMED for finding in verdicts.proved for a in finding.affects)
        assert [str(evidence) for evidence in verdicts.missed] == []

    kinds = {evidence.fault.partition(" in the ")[0] for evidence in runs.evidence}
    if state == "after":
        assert kinds == {"task cancelled"}
    elif leaving:
        assert {"unique violation", "statement timeout", "deferred constraint at COMMIT", "task cancelled"} <= kinds

    routes = {
        place.function
        for evidence in runs.evidence
        if evidence.oracle in LIFETIME
        for place in evidence.places
        if place.path.endswith("routes.py")
    }
    assert routes == leaving
