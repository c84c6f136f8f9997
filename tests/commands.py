"""For the tests of the command: an engine that gives what a test wants, and a terminal to write to."""

from __future__ import annotations

import io
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import session_lint
from session_lint import cli
from session_lint.findings import Report
from session_lint.settings import Settings

Capture = pytest.CaptureFixture[str]


class Engine:
    """Stands in for the engine: keeps what it was asked, gives what the test wants."""

    def __init__(self) -> None:
        self.report = Report(files=2)
        self.error: BaseException | None = None
        self.asked: dict[str, Any] = {}

    def check(self, paths: list[Path], settings: Settings, **given: object) -> Report:
        self.asked = {"paths": [path.as_posix() for path in paths], "settings": settings, **given}
        if self.error is not None:
            raise self.error
        return self.report

    @property
    def settings(self) -> Settings:
        settings = self.asked["settings"]
        assert isinstance(settings, Settings)
        return settings


def installed(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The engine that the command gets from now on."""
    fake = Engine()
    module = types.ModuleType("session_lint.engine")
    module.check = fake.check  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "session_lint.engine", module)
    monkeypatch.setattr(session_lint, "engine", module, raising=False)
    return fake


def enter_project(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in an empty project, without the colours and CI of the outside."""
    for name in ("NO_COLOR", "FORCE_COLOR", "GITHUB_WORKSPACE", "CI_PROJECT_DIR"):
        monkeypatch.delenv(name, raising=False)
    (directory / ".git").mkdir()
    monkeypatch.chdir(directory)
    return directory


def failing(capsys: Capture, *arguments: str) -> str:
    """The one line that a run which can't be made says."""
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("session-lint: error: ")
    assert err.count("\n") == 1
    return err.removeprefix("session-lint: error: ").rstrip("\n")


class Terminal(io.TextIOWrapper):
    """A stream that says it is a terminal."""

    def __init__(self, encoding: str = "utf-8") -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding=encoding)

    def isatty(self) -> bool:
        return True
