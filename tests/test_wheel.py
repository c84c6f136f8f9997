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

CHECKOUT = Path(__file__).resolve().parent.parent

LEAK = """\
from sqlalchemy.orm import Session


def count(engine: object) -> int:
    session = Session(engine)
    return session.scalar("select 1")
"""

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wheel")]


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution, so that this one is complete too."""
    out = tmp_path_factory.mktemp("dist")
    done = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, CHECKOUT, cwd=out)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    assert len(list(out.glob("*.tar.gz"))) == 1
    return built


@pytest.fixture(scope="module")
def binaries(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin directory of a fresh environment that has the wheel and nothing of this checkout."""
    directory = tmp_path_factory.mktemp("environment")
    venv.create(directory, with_pip=True)
    bin_directory = directory / ("Scripts" if sys.platform == "win32" else "bin")
    done = run(bin_directory / "python", "-m", "pip", "install", "-q", f"{wheel}[flake8]", cwd=directory)
    if done.returncode != 0 and "No matching distribution" in done.stderr and not os.environ.get("CI"):
        pytest.skip("the dependencies come from PyPI, and there is no network")
    assert done.returncode == 0, done.stderr
    return bin_directory


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "leaks.py").write_text(LEAK)
    return tmp_path


def test_the_wheel_holds_what_belongs_to_the_program(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    packages = {name.split("/")[0] for name in names}
    pages = {path.name for path in (CHECKOUT / "rules").glob("SES*.md")}
    assert packages == {"session_lint", wheel.name.rsplit("-", 3)[0] + ".dist-info"}
    assert "session_lint/py.typed" in names
    assert len(pages) >= 21
    assert {f"session_lint/rules/{page}" for page in pages} <= names


def test_rules_and_explain(binaries: Path, project: Path) -> None:
    done = run(binaries / "session-lint", "rules", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "commit-without-rollback" in done.stdout
    done = run(binaries / "session-lint", "explain", "SES101", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "commit-without-rollback" in done.stdout
    assert "What it does" in done.stdout


def test_check(binaries: Path, project: Path) -> None:
    done = run(binaries / "session-lint", "check", "--output-format", "json", ".", cwd=project)
    assert done.returncode == 1, done.stderr
    assert [(f["path"], f["line"], f["code"]) for f in json.loads(done.stdout)["findings"]] == [
        ("leaks.py", 5, "SES201")
    ]


def test_check_as_a_module(binaries: Path, project: Path) -> None:
    done = run(binaries / "python", "-m", "session_lint", "--version", cwd=project)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("session-lint ")


def test_flake8(binaries: Path, project: Path) -> None:
    done = run(binaries / "flake8", "--version", cwd=project)
    assert "session-lint" in done.stdout
    done = run(binaries / "flake8", "--select=SES", cwd=project)
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("./leaks.py:5:")
    assert " SES201 " in line


def test_nothing_is_taken_from_the_checkout(binaries: Path, project: Path) -> None:
    done = run(binaries / "python", "-c", "import session_lint; print(session_lint.__file__)", cwd=project)
    assert Path(done.stdout.strip()).resolve().is_relative_to(binaries.parent.resolve())
    # The runtime's libraries are an extra; the linter alone does not need them.
    done = run(binaries / "python", "-c", "import sqlalchemy", cwd=project)
    assert "ModuleNotFoundError" in done.stderr
