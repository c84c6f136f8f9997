"""`scripts/new_rule.py`, run in a copy of the tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from collecting import ROOT

IGNORED = shutil.ignore_patterns("__pycache__", ".*", "data")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what the script and the meta-test look at."""
    for name in ("session_lint", "rules", "scripts", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=IGNORED)
    for name in ("CHANGELOG.md", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def run(tree: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *command], cwd=tree, env=environment, capture_output=True, text=True, check=False
    )


def new_rule(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(tree, "scripts/new_rule.py", *arguments)


def contents(tree: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in tree.rglob("*") if path.is_file()}


def test_a_new_rule_is_whole_but_for_what_only_a_person_can_write(tree: Path) -> None:
    result = new_rule(tree, "SES191", "session-in-a-pocket", "--severity", "error", "--preview")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[:3] == [
        "session_lint/checks/session_in_a_pocket.py",
        "rules/SES191-session-in-a-pocket.md",
        "CHANGELOG.md",
    ]
    # The checks, the page and the changelog agree at once; the README's table waits for the summary.
    meta = run(tree, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_meta.py", "-k", "not readme")
    assert meta.returncode == 0, meta.stdout
    # Its examples are tests already, and fail until the check is written.
    examples = run(tree, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_rulebook.py", "-k", "SES191")
    assert examples.returncode == 1, examples.stdout
    assert "expected  SES191\n    got       nothing" in examples.stdout


def test_the_changelog_gets_one_line_under_unreleased(tree: Path) -> None:
    changelog = tree / "CHANGELOG.md"
    changelog.write_text(
        "# Changelog\n\n## [Unreleased]\n\n## [0.1.0]\n\n- Rules:\n  - SES101 first\n", encoding="utf-8"
    )
    assert new_rule(tree, "SES192", "session-in-a-drawer").returncode == 0
    assert new_rule(tree, "SES191", "session-in-a-pocket").returncode == 0
    assert changelog.read_text(encoding="utf-8") == (
        "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- Rules:\n  - SES191 session-in-a-pocket\n"
        "  - SES192 session-in-a-drawer\n\n## [0.1.0]\n\n- Rules:\n  - SES101 first\n"
    )


def test_what_stands_under_unreleased_stays(tree: Path) -> None:
    changelog = tree / "CHANGELOG.md"
    changelog.write_text(
        "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- A thing.\n\n### Fixed\n\n- Another.\n", encoding="utf-8"
    )
    assert new_rule(tree, "SES191", "session-in-a-pocket").returncode == 0
    assert changelog.read_text(encoding="utf-8") == (
        "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- Rules:\n  - SES191 session-in-a-pocket\n- A thing.\n\n"
        "### Fixed\n\n- Another.\n"
    )


@pytest.mark.parametrize(
    ("code", "name", "message"),
    [
        ("SES101", "something-else", "SES101 is taken by commit-without-rollback"),
        ("SES191", "commit-in-loop", "commit-in-loop is the name of SES104"),
        ("SES791", "session-in-a-pocket", "SES791 is no code of a rule: SES1xx transactions, "),
        ("ses191", "session-in-a-pocket", "ses191 is no code of a rule: "),
        ("SES19", "session-in-a-pocket", "SES19 is no code of a rule: "),
        ("SES191", "Session_in_pocket", "Session_in_pocket is no name of a rule: "),
        ("SES191", "pocket", "pocket is no name of a rule: "),
    ],
)
def test_a_bad_or_taken_code_or_name_is_refused(tree: Path, code: str, name: str, message: str) -> None:
    before = contents(tree)
    result = new_rule(tree, code, name)
    assert result.returncode == 2
    assert result.stderr.startswith(f"new_rule.py: {message}")
    assert len(result.stderr.splitlines()) == 1
    assert contents(tree) == before


def test_a_withdrawn_code_is_refused(tree: Path) -> None:
    changelog = tree / "CHANGELOG.md"
    changelog.write_text(changelog.read_text(encoding="utf-8") + "\n- SES191 is gone.\n", encoding="utf-8")
    result = new_rule(tree, "SES191", "session-in-a-pocket")
    assert (result.returncode, "never used twice" in result.stderr) == (2, True)
