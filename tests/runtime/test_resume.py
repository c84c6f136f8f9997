"""Runs with a fault that somebody interrupts: the same command goes on where they stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from children import Run

from session_lint.runtime.postgres import ENVIRONMENT, PostgresServer

pytestmark = pytest.mark.postgres

FAULTS = ("--session-lint-faults", "--session-lint-resume=done.jsonl")

TESTS = """
import os, signal
from pathlib import Path

def count(name):
    file = Path(name)
    number = len(file.read_text()) if file.exists() else 0
    file.write_text("x" * (number + 1))
    return number + 1

def test_first(engine):
    count("first")
    closes_unless_it_fails(engine)

def test_second(engine):
    if count("second") == 4 and Path("kill").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    add_once(engine)
"""


def counted(directory: Path) -> dict[str, int]:
    """How often each test has run since the last look."""
    counts = {}
    for name in ("first", "second"):
        counts[name] = len((directory / name).read_text())
        (directory / name).unlink()
    return counts


def shown(report: dict[str, Any]) -> tuple[Any, ...]:
    return report["evidence"], report["tests"], report["runs"], report["notes"], report["lost"]


def test_a_run_that_was_killed_goes_on(run: Run, tmp_path: Path) -> None:
    whole = run(TESTS, "--session-lint-faults")
    each = counted(tmp_path)
    assert whole.report["evidence"]
    assert sum(each.values()) == whole.report["runs"] + 2

    (tmp_path / "kill").touch()
    assert run(TESTS, *FAULTS).status == -signal.SIGKILL
    (tmp_path / "kill").unlink()
    assert counted(tmp_path) == {"first": each["first"], "second": 4}
    with (tmp_path / "done.jsonl").open("a") as file:
        file.write('{"half a li')  # as if it had been killed in the middle of writing

    resumed = run(TESTS, *FAULTS)
    # Every test once, because its result is asked for; the fourth run of the second one did not come to its end.
    assert counted(tmp_path) == {"first": 1, "second": each["second"] - 2}
    assert (resumed.status, shown(resumed.report)) == (whole.status, shown(whole.report))
    assert not (tmp_path / "done.jsonl").exists()


def test_what_has_changed_since_is_run_again(run: Run, tmp_path: Path) -> None:
    (tmp_path / "kill").touch()
    assert run(TESTS, *FAULTS).status == -signal.SIGKILL
    (tmp_path / "kill").unlink()
    first = counted(tmp_path)["first"]
    resumed = run(f"{TESTS}\n# changed\n", *FAULTS)
    counts = counted(tmp_path)
    assert counts["first"] == first
    assert sum(counts.values()) == resumed.report["runs"] + 2


def test_a_file_that_cannot_be_written_is_one_line(run: Run) -> None:
    ran = run("def test_nothing(): pass", "--session-lint-faults", "--session-lint-resume=no/such/directory/done")
    assert ran.status == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: --session-lint-resume: no/such/directory/done: No such file or directory" in ran.output
    assert "Traceback" not in ran.output


def test_confirm_goes_on(tmp_path: Path, postgres: PostgresServer) -> None:
    (tmp_path / "session-lint.toml").write_text("")
    (tmp_path / "shop.py").write_text("""
from sqlalchemy import text
from sqlalchemy.orm import Session

def leaks(engine) -> int:
    session = Session(engine)
    return session.scalar(text("SELECT 1"))
""")
    (tmp_path / "test_shop.py").write_text("""
import os, pathlib, signal
from shop import leaks
from sqlalchemy import create_engine

def test_leaks(session_lint_database):
    with open("runs", "a") as file:
        file.write("x")
    assert leaks(create_engine(session_lint_database.url("psycopg2"))) == 1

def test_interrupted():
    if pathlib.Path("interrupt").exists():
        os.kill(os.getpid(), signal.SIGKILL)
""")
    command = [sys.executable, "-m", "session_lint", "confirm", "--no-cache", "--output-format=json", "--resume=done"]
    environment = {**os.environ, ENVIRONMENT: postgres.url()}
    for name in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER"):
        environment.pop(name, None)

    def confirm() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, ".", "--", "pytest", "-q", "-p", "no:cacheprovider"],
            cwd=tmp_path, env=environment, check=False, text=True, capture_output=True,
        )  # fmt: skip

    (tmp_path / "interrupt").touch()
    killed = confirm()
    assert (killed.returncode, killed.stdout) == (2, "")
    assert "the tests' command was killed by SIGKILL" in killed.stderr
    before = len((tmp_path / "runs").read_text())
    assert before > 2
    (tmp_path / "interrupt").unlink()

    document = json.loads(confirm().stdout)
    assert len((tmp_path / "runs").read_text()) == before + 1
    (finding,) = document["findings"]
    assert (finding["verdict"], finding["function"]) == ("confirmed", "leaks")
    assert any(evidence["fault"] for evidence in finding["evidence"])
    assert document["summary"]["runs_with_a_fault"] == before - 1
    assert not (tmp_path / "done").exists()
