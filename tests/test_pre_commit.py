"""The pre-commit hook, tested by pre-commit itself in a scratch repository.

pre-commit installs the hook into an environment of its own, from PyPI. Without a network that can't be tested,
so the test is skipped; but never in a CI run (CI in the environment).
"""

from __future__ import annotations

import json
import os
import re
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

pytestmark = pytest.mark.slow


def git(*arguments: str, cwd: Path) -> str:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *identity, *arguments], cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout


def committed(directory: Path) -> str:
    """Put everything into a repository; the commit's name."""
    git("init", "-q", cwd=directory)
    git("add", "-A", cwd=directory)
    git("commit", "-qm", "all", cwd=directory)
    return git("rev-parse", "HEAD", cwd=directory).strip()


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """What a user's `repo:` would point to: what we publish, not yet in a repository."""
    directory = tmp_path / "session-lint"
    directory.mkdir()
    for name in PUBLISHED:
        if (CHECKOUT / name).is_dir():
            shutil.copytree(CHECKOUT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(CHECKOUT / name, directory / name)
    return directory


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    (directory / "app").mkdir(parents=True)
    (directory / "app" / "leaks.py").write_text(LEAK)
    (directory / "app" / "leaks_too.py").write_text(LEAK)
    (directory / "app" / "fine.py").write_text("def nothing() -> None:\n    pass\n")
    (directory / "notes.txt").write_text(LEAK)
    return directory


def pre_commit(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pre_commit", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "VIRTUAL_ENV"))}
    environment |= {"PRE_COMMIT_HOME": str(cwd.parent / "pre-commit-home"), "PRE_COMMIT_COLOR": "never"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    offline = "No matching distribution found" in done.stdout or "Failed to establish a new connection" in done.stdout
    if done.returncode == 3 and offline and not os.environ.get("CI"):
        pytest.skip("pre-commit needs PyPI to install the hook, and there is no network")
    return done


def found(done: subprocess.CompletedProcess[str], returncode: int) -> list[str]:
    """The places that the hook reports."""
    assert done.returncode == returncode, done.stdout + done.stderr
    return re.findall(r"^ +--> (\S+) ", done.stdout, re.MULTILINE)


def test_try_repo(published: Path, project: Path) -> None:
    committed(published)
    committed(project)
    done = pre_commit("try-repo", str(published), "session-lint", "--verbose", "--all-files", cwd=project)
    assert found(done, 1) == ["app/leaks.py:5:15", "app/leaks_too.py:5:15"]
    assert "exit code: 1" in done.stdout


def test_a_project_with_the_hook(published: Path, project: Path) -> None:
    revision = committed(published)
    config = {"repos": [{"repo": str(published), "rev": revision, "hooks": [{"id": "session-lint"}]}]}
    # JSON is YAML too.
    (project / ".pre-commit-config.yaml").write_text(json.dumps(config))
    committed(project)
    # Only the files that are passed are reported.
    done = pre_commit("run", "--files", "app/leaks_too.py", "app/fine.py", "notes.txt", cwd=project)
    assert found(done, 1) == ["app/leaks_too.py:5:15"]
    done = pre_commit("run", "--files", "app/fine.py", cwd=project)
    assert found(done, 0) == []
    assert "Passed" in done.stdout
    # pre-commit names the files one by one, and yet what the project excludes stays excluded.
    (project / "session-lint.toml").write_text('exclude = ["leaks_t*"]\n')
    git("add", "-A", cwd=project)
    done = pre_commit("run", "--all-files", cwd=project)
    assert found(done, 1) == ["app/leaks.py:5:15"]
    # What is committed is what is staged.
    (project / "app" / "leaks.py").write_text(LEAK.replace("Session(engine)", "Session(engine)  # noqa: SES201"))
    git("add", "-A", cwd=project)
    done = pre_commit("run", cwd=project)
    assert found(done, 0) == []
