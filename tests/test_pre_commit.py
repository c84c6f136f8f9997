"""The pre-commit hook, tested by pre-commit itself in a scratch repository.

pre-commit installs the hook into an environment of its own, from PyPI. Without a network that can't be tested,
so the test is skipped; but never in a CI run (CI in the environment).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
PUBLISHED = ("session_lint", "rules", "pyproject.toml", "README.md", "LICENSE", ".pre-commit-hooks.yaml")

LEAK = """\
from sqlalchemy.orm import Session


def count(engine: object) -> int:
    session = Session(engine)
    return session.scalar("select 1")
"""

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("pre-commit")]


def git(*arguments: str, cwd: Path) -> None:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *arguments], cwd=cwd, check=True, capture_output=True)


def committed(directory: Path) -> None:
    git("init", "-q", cwd=directory)
    git("add", "-A", cwd=directory)
    git("commit", "-qm", "all", cwd=directory)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user's `repo:` would point to: a git repository with what we publish."""
    directory = tmp_path_factory.mktemp("published") / "session-lint"
    directory.mkdir()
    for name in PUBLISHED:
        if (CHECKOUT / name).is_dir():
            shutil.copytree(CHECKOUT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(CHECKOUT / name, directory / name)
    committed(directory)
    return directory


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pre-commit's own directory: one for all tests, so that the hook is installed once."""
    return tmp_path_factory.mktemp("pre-commit-home")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "leaks.py").write_text(LEAK)
    (tmp_path / "app" / "leaks_too.py").write_text(LEAK)
    (tmp_path / "app" / "fine.py").write_text("def nothing() -> None:\n    pass\n")
    (tmp_path / "notes.txt").write_text(LEAK)
    committed(tmp_path)
    return tmp_path


def try_repo(published: Path, home: Path, project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pre_commit", "try-repo", str(published), "session-lint", "--verbose", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "VIRTUAL_ENV"))}
    environment |= {"PRE_COMMIT_HOME": str(home), "PRE_COMMIT_COLOR": "never"}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    offline = "No matching distribution found" in done.stdout or "Failed to establish a new connection" in done.stdout
    if done.returncode == 3 and offline and not os.environ.get("CI"):
        pytest.skip("pre-commit needs PyPI to install the hook, and there is no network")
    return done


def test_all_files(published: Path, home: Path, project: Path) -> None:
    done = try_repo(published, home, project, "--all-files")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "exit code: 1" in done.stdout
    assert "app/leaks.py:5:" in done.stdout
    assert "app/leaks_too.py:5:" in done.stdout
    assert done.stdout.count("SES201") == 2
    assert "notes.txt" not in done.stdout


def test_only_the_files_that_are_passed(published: Path, home: Path, project: Path) -> None:
    done = try_repo(published, home, project, "--files", "app/leaks_too.py", "app/fine.py")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "app/leaks_too.py:5:" in done.stdout
    assert "app/leaks.py" not in done.stdout


def test_no_finding_passes(published: Path, home: Path, project: Path) -> None:
    done = try_repo(published, home, project, "--files", "app/fine.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Passed" in done.stdout


def test_excluded_files_stay_excluded_although_they_are_named(published: Path, home: Path, project: Path) -> None:
    (project / "session-lint.toml").write_text('exclude = ["leaks*"]\n')
    done = try_repo(published, home, project, "--files", "app/leaks.py", "app/fine.py")
    assert done.returncode == 0, done.stdout + done.stderr
