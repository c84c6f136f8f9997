"""The benchmark script runs on any tree. What it measures is not judged here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "run.py"

LEAK = """\
from sqlalchemy.orm import Session


def count(engine: object) -> int:
    session = Session(engine)
    return session.scalar("select 1")
"""


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_rows_of_a_small_tree(tmp_path: Path) -> None:
    (tmp_path / "leaks.py").write_text(LEAK)
    (tmp_path / "other.py").write_text("import os\n")
    done = run(tmp_path, "--repeat", "1", "--only", "pylint", "--tools", sys.executable)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 Python files, 7 lines" in done.stdout
    assert "the 1 files (6 lines)" in done.stdout
    assert "1 findings" in done.stdout
    for row in ("LibCST parse alone", "cold, all cores", "cold, one process", "warm", "file, being edited"):
        assert row in done.stdout
    assert "pylint with four checks" in done.stdout


def test_a_tree_without_sessions(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("import os\n")
    done = run(tmp_path, "--repeat", "1", "--no-tools")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the 0 files (0 lines)" in done.stdout


def test_no_such_tree(tmp_path: Path) -> None:
    done = run(tmp_path / "nowhere")
    assert done.returncode == 2
    assert "not a directory" in done.stderr
