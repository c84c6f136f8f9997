"""`session-lint confirm`: what PostgreSQL says of every finding, and of every item of the fixtures' report.

What each function of all four states shows is in tests/agreement.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from session_lint.runtime.postgres import ENVIRONMENT, PostgresServer

pytestmark = pytest.mark.postgres

FIXTURE = Path(__file__).resolve().parents[2] / "fixtures" / "thread_handlers"

# The handlers of the report, by its items' numbers. Of item 4 the report itself says that it works.
HANDLERS = {
    1: "update_thread",
    2: "create_thread",
    3: "get_thread",
    5: "delete_thread",
    6: "auto_rename",
    7: "list_threads",
}
STATES = {8: "dead session", 10: "leaked connection", 11: "open transaction left behind"}


@dataclass
class Confirmed:
    status: int
    output: str
    errors: str

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.output)
        return document


def environment_for(postgres: PostgresServer) -> dict[str, str]:
    """Without what comes from the pytest that runs these tests."""
    environment = {**os.environ, ENVIRONMENT: postgres.url()}
    for name in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER"):
        environment.pop(name, None)
    return environment


def confirm(variant: str, postgres: PostgresServer, *options: str, directory: Path = FIXTURE) -> Confirmed:
    command = [sys.executable, "-m", "session_lint", "confirm", "--no-cache", *options, variant, "--", "pytest", "-q"]
    environment = environment_for(postgres)
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", variant],
        cwd=directory, env=environment, check=False, text=True, capture_output=True, timeout=600,
    )  # fmt: skip
    return Confirmed(done.returncode, done.stdout, done.stderr)


def oracles(entry: dict[str, Any]) -> set[str]:
    return {evidence["oracle"] for evidence in entry["evidence"]}


@pytest.mark.slow
def test_before_every_item_of_the_report_is_confirmed(postgres: PostgresServer) -> None:
    done = confirm("before", postgres, "--output-format=json")
    assert done.status == 1, done.errors
    (finding,) = done.document["findings"]
    assert (finding["code"], finding["verdict"], finding["function"]) == ("SES202", "confirmed", "get_db")
    exposed = {affected["function"]: affected for affected in finding["affects"]}
    for function in HANDLERS.values():
        assert exposed[function]["verdict"] == "confirmed", function
        assert {"leaked connection", "dead session"} <= oracles(exposed[function])
        for evidence in exposed[function]["evidence"]:
            assert evidence["fault"]
            assert "before/test_threads.py::test_" in evidence["test"]
    assert set(STATES.values()) <= oracles(finding)
    facts = [evidence["facts"] for evidence in finding["evidence"]]
    assert {"23505", "57014", "23514"} <= {fact.get("sqlstate") for fact in facts}
    assert {"idle", "idle in transaction", "idle in transaction (aborted)"} <= {fact.get("state") for fact in facts}
    assert {fact["checked out"] for fact in facts if "checked out" in fact} == {"1"}
    assert any(fact.get("rows", "").startswith("messages ") for fact in facts)
    # Neither item 4 nor the two handlers that are sound: nothing else is exposed.
    assert set(exposed) == set(HANDLERS.values())
    assert done.document["missed"] == []


@pytest.mark.slow
def test_guarded_confirms_nothing(tmp_path: Path, postgres: PostgresServer) -> None:
    shutil.copytree(FIXTURE / "guarded", tmp_path / "guarded", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "session-lint.toml").write_text("")  # here the project begins: less to read than a whole checkout
    done = confirm("guarded", postgres, "--output-format=json", directory=tmp_path)
    assert done.status == 0, done.errors
    assert (done.document["findings"], done.document["missed"]) == ([], [])
    assert done.document["summary"]["runs_with_a_fault"] > 50


PROJECT = {
    "shop.py": """
from sqlalchemy import text
from sqlalchemy.orm import Session


def leaks(engine) -> int:
    session = Session(engine)
    return session.scalar(text("SELECT 1"))


def never_tested(engine) -> int:
    session = Session(engine)
    return session.scalar(text("SELECT 1"))


def of_no_session() -> int:
    return 1
""",
    "test_shop.py": """
import pytest
from shop import leaks, of_no_session
from sqlalchemy import create_engine


@pytest.fixture
def engine(session_lint_database):
    return create_engine(session_lint_database.url("psycopg2"))


def test_leaks(engine):
    assert leaks(engine) == of_no_session()
""",
    "session-lint.toml": "",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in PROJECT.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_table_and_later_runs_of_check(project: Path, postgres: PostgresServer) -> None:
    done = confirm(".", postgres, directory=project)
    assert "confirmed       SES201 session-never-closed: shop.py:7 leaks" in done.output
    assert "leaked connection (checked out: 1; state: idle in transaction" in done.output
    assert "<- nothing was made to fail [test_shop.py::test_leaks]" in done.output
    assert "not reached     SES201 session-never-closed: shop.py:12 never_tested" in done.output
    assert done.output.splitlines()[-1].startswith("1 confirmed, 1 not reached; 0 missed; 1 test, ")

    confirm(".", postgres, "--output-format=json", "--output-file=verdicts.json", directory=project)
    check = [sys.executable, "-m", "session_lint", "check", "--no-cache", "--output-format=json"]
    later = subprocess.run(
        [*check, "--verdicts", "verdicts.json", "."], cwd=project, check=False, text=True, capture_output=True
    )
    reached, unreached = json.loads(later.stdout)["findings"]
    assert (reached["verdict"], unreached["verdict"]) == ("confirmed", "not reached")
    assert oracles(reached) == {"leaked connection", "open transaction left behind"}
    assert reached["evidence"][0]["facts"]["state"] == "idle in transaction"
    assert unreached["evidence"] == []
    people = subprocess.run([*check[:-1], "--verdicts", "verdicts.json", "."],
                            cwd=project, check=False, text=True, capture_output=True)  # fmt: skip
    assert "= PostgreSQL: confirmed: leaked connection (checked out: 1; state: idle in transaction" in people.stdout
    assert "= PostgreSQL: not reached" in people.stdout


def test_sarif_carries_the_verdict_and_its_evidence(project: Path, postgres: PostgresServer) -> None:
    done = confirm(".", postgres, "--output-format=sarif", directory=project)
    results = done.document["runs"][0]["results"]
    assert [result["properties"]["verdict"] for result in results] == ["confirmed", "not reached"]
    (proof, *_) = results[0]["properties"]["evidence"]
    assert (proof["oracle"], proof["test"]) == ("leaked connection", "test_shop.py::test_leaks")
    assert "evidence" not in results[1]["properties"]


def test_what_the_analysis_does_not_see_is_listed_as_missed(project: Path, postgres: PostgresServer) -> None:
    done = confirm(".", postgres, "--select=SES107", "--output-format=json", directory=project)
    assert done.document["findings"] == []
    assert {evidence["oracle"] for evidence in done.document["missed"]} == {
        "leaked connection",
        "open transaction left behind",
        "dead session",
    }
    assert done.status == 1


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([], "name the tests' command after --"),
        (["no-such-command"], "cannot run no-such-command: No such file or directory"),
        (
            [sys.executable, "-c", "raise SystemExit(3)"],
            "the tests' command ended with exit status 3 and pytest did not report",
        ),
    ],
)
def test_tests_that_cannot_be_run_are_one_line(
    command: list[str], message: str, project: Path, postgres: PostgresServer
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "session_lint", "confirm", "--no-cache", ".", "--", *command],
        cwd=project, env={**os.environ, ENVIRONMENT: postgres.url()}, check=False, text=True, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def last_line(text: str) -> str:
    return text.splitlines()[-1].lstrip(".")  # pytest's dots, where it was not left the time to end their line


def of_tests(*options: str) -> list[str]:
    """The command, with pytest on a project's tests; no finding is asked for."""
    command = [sys.executable, "-m", "session_lint", "confirm", "--no-cache", "--select=SES101", "."]
    return [*command, "--", "pytest", "-q", "-p", "no:cacheprovider", *options]


@pytest.mark.parametrize(
    ("options", "status"),
    [(["nope"], 4), (["-k", "nothing_of_this_name"], 5), (["broken.py"], 2), (["--no-such-option"], None)],
)
def test_tests_that_did_not_run_prove_nothing(
    project: Path, postgres: PostgresServer, options: list[str], status: int | None
) -> None:
    (project / "broken.py").write_text("import no_such_module\n")
    environment = environment_for(postgres)
    done = subprocess.run(
        of_tests(*options),
        cwd=project, env=environment, check=False, text=True, capture_output=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    no_test = f"no test ran, so nothing is proved: the tests' command ended with exit status {status}"
    no_report = (
        "the tests' command ended with exit status 4 and pytest did not report; "
        "is session-lint[runtime] installed where it runs?"
    )
    assert last_line(done.stderr) == f"session-lint: error: {no_test if status is not None else no_report}"


UNFINISHED = """
import os, pathlib, signal, time
import pytest

@pytest.fixture
def container():
    yield
    time.sleep(1)
    pathlib.Path("cleaned up").touch()

def test_one():
    pass

def test_waits(container):
    pathlib.Path("waiting").touch()
    time.sleep(100)

def test_exits():
    pytest.exit("enough")

def test_crashes():
    os.kill(os.getpid(), signal.SIGSEGV)

def test_leaves():
    os._exit(0)
"""


def test_tests_that_were_not_finished(project: Path, postgres: PostgresServer) -> None:
    (project / "test_more.py").write_text(UNFINISHED)
    environment = environment_for(postgres)
    at = "and pytest did not report: it was in test_more.py::"
    again = "; --resume FILE keeps what the runs before have shown"
    for test, message in [
        ("exits", "the tests did not run to their end: pytest ended with exit status 2"),
        ("crashes", f"the tests' command was killed by SIGSEGV {at}test_crashes{again}"),
        ("leaves", f"the tests' command ended with exit status 0 {at}test_leaves{again}"),
    ]:
        done = subprocess.run(
            of_tests("test_more.py", "-k", f"one or {test}"),
            cwd=project, env=environment, check=False, text=True, capture_output=True,
        )  # fmt: skip
        assert (done.returncode, last_line(done.stderr)) == (2, f"session-lint: error: {message}")


@pytest.mark.parametrize("to_all", [True, False], ids=["Ctrl-C", "SIGTERM"])
def test_interrupted_tests_clean_up(project: Path, postgres: PostgresServer, to_all: bool) -> None:
    (project / "test_more.py").write_text(UNFINISHED)
    environment = environment_for(postgres)
    with subprocess.Popen(
        of_tests("test_more.py", "-k", "waits"),
        cwd=project, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip
        while not (project / "waiting").exists():
            assert process.poll() is None
            time.sleep(0.02)
        if to_all:
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.terminate()
        _, errors = process.communicate(timeout=120)
    assert (process.returncode, last_line(errors)) == (130, "session-lint: interrupted")
    assert (project / "cleaned up").exists()
    assert "KeyboardInterrupt" in errors, "pytest itself has the word"
