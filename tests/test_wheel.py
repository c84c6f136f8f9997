"""A wheel that is installed with no checkout around has everything: rule pages, flake8 plugin, types."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from session_lint import __version__

CHECKOUT = Path(__file__).resolve().parent.parent

LEAK = """\
from sqlalchemy.orm import Session


def count(engine: object) -> int:
    session = Session(engine)
    return session.scalar("select 1")
"""

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """The wheel, built from the source distribution, so that this one is complete too."""
    out = tmp_path / "dist"
    done = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, CHECKOUT, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    assert len(list(out.glob("*.tar.gz"))) == 1
    return built


@pytest.fixture
def binaries(wheel: Path, tmp_path: Path) -> Path:
    """The bin directory of a fresh environment that has the wheel and nothing of this checkout."""
    directory = tmp_path / "environment"
    venv.create(directory, with_pip=True)
    bin_directory = directory / ("Scripts" if sys.platform == "win32" else "bin")
    done = run(bin_directory / "python", "-m", "pip", "install", "-q", f"{wheel}[flake8]", cwd=directory)
    if done.returncode != 0 and "No matching distribution" in done.stderr and not os.environ.get("CI"):
        pytest.skip("the dependencies come from PyPI, and there is no network")
    assert done.returncode == 0, done.stderr
    return bin_directory


def test_the_wheel_is_whole(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    packages = {name.split("/")[0] for name in names}
    pages = {path.name for path in (CHECKOUT / "rules").glob("SES*.md")}
    assert packages == {"session_lint", "-".join(wheel.name.split("-")[:2]) + ".dist-info"}
    assert "session_lint/py.typed" in names
    assert len(pages) >= 21
    assert {f"session_lint/rules/{page}" for page in pages} <= names
    profiles = {path.name for path in (CHECKOUT / "session_lint" / "profiles").glob("*.toml")}
    assert "pyramid.toml" in profiles
    assert {f"session_lint/profiles/{profile}" for profile in profiles} <= names


def test_an_installed_wheel_has_everything(binaries: Path, tmp_path: Path) -> None:
    # One test, because what it costs is to build and to install.
    project = tmp_path / "project"
    project.mkdir()
    (project / "leaks.py").write_text(LEAK)

    done = run(binaries / "python", "-c", "import session_lint; print(session_lint.__file__)", cwd=project)
    assert Path(done.stdout.strip()).resolve().is_relative_to(binaries.parent.resolve())
    done = run(binaries / "python", "-m", "session_lint", "--version", cwd=project)
    assert (done.returncode, done.stdout) == (0, f"session-lint {__version__}\n")

    done = run(binaries / "session-lint", "rules", cwd=project)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(list((CHECKOUT / "rules").glob("SES*.md")))
    done = run(binaries / "session-lint", "explain", "SES101", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "commit-without-rollback" in done.stdout
    assert "What it does" in done.stdout

    done = run(binaries / "session-lint", "check", "--output-format", "json", cwd=project)
    assert done.returncode == 1, done.stderr
    findings = json.loads(done.stdout)["findings"]
    assert [(finding["path"], finding["line"], finding["code"]) for finding in findings] == [("leaks.py", 5, "SES201")]

    done = run(binaries / "flake8", "--version", cwd=project)
    assert "session-lint" in done.stdout
    done = run(binaries / "flake8", "--select=SES", cwd=project)
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("./leaks.py:5:15: SES201 ")

    # The linter alone does not need what it is about: the runtime's libraries are an extra.
    done = run(binaries / "python", "-c", "import sqlalchemy", cwd=project)
    assert "ModuleNotFoundError" in done.stderr
