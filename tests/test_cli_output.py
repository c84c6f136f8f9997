"""What the command writes where: findings, the summary, colours, progress, hints."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from commands import Capture, Engine, Terminal, enter_project, installed
from reports import full_report

from session_lint import cli
from session_lint.findings import Report


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return enter_project(tmp_path, monkeypatch)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    return installed(monkeypatch)


def test_findings_go_to_standard_output_and_what_is_about_the_run_to_standard_error(
    engine: Engine, capsys: Capture
) -> None:
    engine.report = full_report()
    engine.report.warnings.append("x/: cannot read the directory: Permission denied")
    engine.report.notes.append("app/a.py: the owner of db is unknown")
    cli.main(["check", "--output-format", "concise"])
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 4
    assert err == "session-lint: warning: x/: cannot read the directory: Permission denied\n"
    cli.main(["check", "--verbose"])
    assert "session-lint: app/a.py: the owner of db is unknown\n" in capsys.readouterr().err
    cli.main(["check", "--quiet", "--output-format", "concise"])
    out, err = capsys.readouterr()
    assert (len(out.splitlines()), err) == (3, "")


def test_machines_get_only_their_format_and_people_still_the_summary(engine: Engine, capsys: Capture) -> None:
    engine.report = full_report()
    cli.main(["check", "--output-format", "json", "--statistics"])
    out, err = capsys.readouterr()
    assert len(json.loads(out)["findings"]) == 3
    assert "session-lint: 3 findings (1 error, 1 warning, 1 info) in 3 of 40 files;" in err
    assert "2 possible findings not shown; --min-confidence possible shows them" in err
    assert "1  SES202  yield-without-finally" in err
    cli.main(["check", "--output-format", "json", "--quiet"])
    assert capsys.readouterr().err == ""


def test_output_to_a_file(engine: Engine, project: Path, capsys: Capture) -> None:
    engine.report = full_report()
    assert cli.main(["check", "--output-format", "sarif", "--output-file", "out.sarif"]) == 1
    assert json.loads((project / "out.sarif").read_text(encoding="utf-8"))["version"] == "2.1.0"
    out, err = capsys.readouterr()
    assert out.startswith("3 findings (1 error, 1 warning, 1 info) in 3 of 40 files;")
    assert err == ""
    assert cli.main(["check", "--output-file", "out.txt", "-q"]) == 1
    assert capsys.readouterr().out == ""
    assert "error[SES101]" in (project / "out.txt").read_text(encoding="utf-8")


def test_statistics(engine: Engine, capsys: Capture) -> None:
    engine.report = full_report()
    cli.main(["check", "--statistics", "--output-format", "concise"])
    assert "\n1  SES101  commit-without-rollback\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("terminal", "option", "environment", "colored"),
    [
        (True, "", {}, True),
        (False, "", {}, False),
        (True, "--color never", {}, False),
        (False, "--color always", {}, True),
        (True, "", {"NO_COLOR": "1"}, False),
        (True, "", {"NO_COLOR": ""}, True),
        (False, "", {"FORCE_COLOR": "1"}, True),
        (False, "", {"FORCE_COLOR": "0"}, False),
        (False, "", {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        (True, "--color always", {"NO_COLOR": "1"}, True),
        (True, "", {"TERM": "dumb"}, False),
        (True, "--output-file out.txt", {}, False),
    ],
)
def test_colours(
    engine: Engine,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
    option: str,
    environment: dict[str, str],
    colored: bool,
) -> None:
    engine.report = full_report()
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    stream = Terminal() if terminal else io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", stream)
    assert cli.main(["check", *option.split()]) == 1
    written = (project / "out.txt").read_bytes() if "out.txt" in option else stream.buffer.getvalue()  # type: ignore[attr-defined]
    assert b"SES101" in written
    assert (b"\x1b[" in written) == colored


def test_a_terminal_that_cannot_show_a_character_gets_an_escape(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.report = full_report()
    engine.report.sources["app/routes.py"] = ["", "", "", "", "    await db.commit()  # é 名"]
    stream = Terminal("ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert cli.main(["check"]) == 1
    assert b"# \\xe9 \\u540d" in stream.bytes.getvalue()
    stream = Terminal("ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert cli.main(["check", "--output-format", "github"]) == 1
    assert stream.bytes.getvalue().decode("utf-8").startswith("::error file=")


def test_progress_only_on_a_terminal_and_only_in_long_runs(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.main(["check"])
    assert engine.asked["progress"] is None

    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    check = engine.check

    def slow(*arguments: Any, **given: Any) -> Report:
        for done in range(1, 31):
            clock[0] += 0.05 if engine.report.files == 2 else 0.01
            given["progress"](done, 30)
        return check(*arguments, **given)

    monkeypatch.setattr(sys.modules["session_lint.engine"], "check", slow)
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    assert cli.main(["check"]) == 0
    stream.flush()
    written = stream.bytes.getvalue().decode()
    assert "session-lint: 21 of 30 files" in written
    assert "session-lint: 10 of 30 files" not in written
    assert written.endswith("\r\x1b[K")

    engine.report.files = 3
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    assert cli.main(["check"]) == 0
    stream.flush()
    assert stream.bytes.getvalue() == b""


# ---------------------------------------------------------------------------------------------- the hint about Ruff


@pytest.mark.parametrize(
    ("name", "table", "hint"),
    [
        ("pyproject.toml", '[tool.ruff.lint]\nselect = ["E", "RUF"]', "RUF100"),
        ("pyproject.toml", '[tool.ruff.lint]\nextend-select = ["RUF100"]', "RUF100"),
        ("pyproject.toml", '[tool.ruff]\nselect = ["ALL"]', "RUF100"),
        ("ruff.toml", 'lint.select = ["RUF1"]', "RUF100"),
        (".ruff.toml", '[lint]\nselect = ["ALL"]\nignore = ["RUF100"]', "RUF102"),
        ("pyproject.toml", '[tool.ruff.lint]\nselect = ["RUF"]\nexternal = ["SES"]', None),
        ("pyproject.toml", '[tool.ruff.lint]\nselect = ["RUF"]\nexternal = ["ABC", "SES1"]', None),
        ("pyproject.toml", '[tool.ruff.lint]\nselect = ["E", "F"]', None),
        ("pyproject.toml", '[tool.ruff.lint]\nselect = ["RUF"]\nignore = ["RUF100", "RUF102"]', None),
        ("pyproject.toml", "[tool.ruff]\nline-length = 100", None),
        ("pyproject.toml", '[project]\nname = "ruff-user"', None),
        ("ruff.toml", "this is not TOML", None),
        ("setup.cfg", "", None),
    ],
)
def test_the_hint_that_ruff_would_delete_our_comments(
    engine: Engine, project: Path, capsys: Capture, name: str, table: str, hint: str | None
) -> None:
    (project / name).write_text(table)
    engine.report.noqa = 1
    assert cli.main(["check"]) == 0
    err = capsys.readouterr().err
    if hint is None:
        assert err == ""
    else:
        where = "[tool.ruff.lint]" if name == "pyproject.toml" else "[lint]"
        assert err == (
            f'session-lint: hint: Ruff\'s {hint} deletes "# noqa: SES..." comments; '
            f'add external = ["SES"] to {where} in {name}\n'
        )
    engine.report.noqa = 0
    cli.main(["check"])
    assert capsys.readouterr().err == ""
