"""The flake8 plugin, tested by running flake8 itself: it must say what the command line says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

BAD = """\
from sqlalchemy.orm import Session


def save(session: Session, name: object) -> None:
    session.add(name)
    session.commit()


def leaked(engine: object) -> int:
    session = Session(engine)
    return session.scalar("select 1")
"""

Found = tuple[str, int, int, str, str]

LINE = re.compile(r"(?P<path>.+?):(?P<line>\d+):(?P<column>\d+): (?P<code>[A-Z]+\d+) (?P<message>.*)")


def run(
    *arguments: str, cwd: Path, text: str | bytes | None = None, module: str = "flake8"
) -> subprocess.CompletedProcess[str]:
    data = text.encode() if isinstance(text, str) else text
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=cwd, input=data, capture_output=True, check=False
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def flake8(*arguments: str, cwd: Path, text: str | bytes | None = None) -> list[Found]:
    """What flake8 reports of ours; nothing else may have been said."""
    done = run("--select=SES", *arguments, cwd=cwd, text=text)
    assert done.stderr == ""
    found = parsed(done.stdout)
    assert done.returncode == (1 if found else 0)
    return found


def parsed(output: str) -> list[Found]:
    found = []
    for line in output.splitlines():
        match = LINE.fullmatch(line)
        assert match is not None, line
        path = match["path"].removeprefix("./")
        found.append((path, int(match["line"]), int(match["column"]), match["code"], match["message"]))
    return sorted(found)


def command_line(*arguments: str, cwd: Path, text: str | bytes | None = None) -> list[Found]:
    """What `session-lint check` reports."""
    done = run("check", "--output-format=concise", "--quiet", *arguments, cwd=cwd, text=text, module="session_lint")
    assert done.returncode in (0, 1), done.stderr
    return parsed(done.stdout)


def codes(found: list[Found]) -> list[str]:
    return [code for _, _, _, code, _ in found]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a leaked session, and a function whose owner nobody sees."""
    (tmp_path / "pyproject.toml").write_text("[tool.session-lint]\n")
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text("")
    (tmp_path / "app" / "bad.py").write_text(BAD)
    (tmp_path / "app" / "good.py").write_text("def nothing() -> None:\n    pass\n")
    return tmp_path


def test_flake8_lists_the_plugin() -> None:
    done = run("--version", cwd=Path.cwd())
    assert "session-lint: 0." in done.stdout.replace("\n", " ").replace("session-lint:  ", "session-lint: ")


def test_same_findings_as_the_command_line(project: Path) -> None:
    found = flake8("app", cwd=project)
    assert codes(found) == ["SES201"]
    assert found == command_line("app", cwd=project)


def test_ownership_and_confidence_are_options_of_flake8(project: Path) -> None:
    local = flake8("--session-lint-ownership=local", "app", cwd=project)
    assert codes(local) == ["SES101", "SES201"]
    assert local == command_line("--ownership=local", "app", cwd=project)
    possible = flake8("--session-lint-min-confidence=possible", "app", cwd=project)
    assert codes(possible) == ["SES101", "SES201"]
    assert possible == command_line("--min-confidence=possible", "app", cwd=project)


def test_options_are_read_from_flake8s_configuration(project: Path) -> None:
    (project / ".flake8").write_text("[flake8]\nsession-lint-ownership = local\n")
    assert codes(flake8("app", cwd=project)) == ["SES101", "SES201"]


def test_a_wrong_option_is_called_by_flake8s_name_for_it(project: Path) -> None:
    (project / ".flake8").write_text("[flake8]\nsession-lint-ownership = locl\n")
    done = run("--select=SES", "app", cwd=project)
    message = 'session-lint-ownership must be one of "project", "local", not "locl"'
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == f"There was a critical error during execution of Flake8:\n{message}\n"


def test_settings_file_named_in_flake8s_configuration(project: Path) -> None:
    (project / "etc").mkdir()
    (project / "etc" / "lint.toml").write_text('ignore = ["SES201"]\nownership = "local"\n')
    (project / ".flake8").write_text("[flake8]\nsession-lint-config = etc/lint.toml\n")
    assert codes(flake8("app", cwd=project)) == ["SES101"]


def test_settings_of_the_project_count(project: Path) -> None:
    (project / "pyproject.toml").write_text('[tool.session-lint]\nignore = ["SES201"]\nownership = "local"\n')
    assert codes(flake8("app", cwd=project)) == ["SES101"]
    (project / "pyproject.toml").write_text('[tool.session-lint]\nexclude = ["app/bad.py"]\n')
    assert flake8("app", cwd=project) == command_line("app", cwd=project) == []


def test_wrong_settings_stop_the_run_with_one_line(project: Path) -> None:
    (project / "pyproject.toml").write_text('[tool.session-lint]\nownershp = "local"\n')
    done = run("--select=SES", "app", cwd=project)
    assert done.returncode == 1
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert first == "There was a critical error during execution of Flake8:"
    assert second.startswith("session-lint: pyproject.toml:")
    assert "ownershp" in second
    assert "ownership" in second


def test_wrong_option_value_is_flake8s_usage_error(project: Path) -> None:
    done = run("--session-lint-ownership=global", "app", cwd=project)
    assert done.returncode == 2
    assert "argument --session-lint-ownership: invalid choice: 'global'" in done.stderr


def test_jobs(project: Path) -> None:
    for number in range(6):
        (project / "app" / f"bad{number}.py").write_text(BAD)
    found = flake8("--jobs=2", "app", cwd=project)
    assert codes(found) == ["SES201"] * 7
    assert found == flake8("--jobs=1", "app", cwd=project) == command_line("app", cwd=project)


@pytest.mark.parametrize(
    ("comment", "left"),
    [
        ("# noqa", []),
        ("# noqa: SES201", []),
        ("# noqa: E501, SES201", []),
        ("# noqa: E501", ["SES201"]),
        ("# session-lint: ignore[SES201] the process ends here", []),
        ("# session-lint: ignore", []),
        ("# session-lint: ignore[SES101]", ["SES201", "SES901"]),
    ],
)
def test_suppressions_are_those_of_the_command_line(project: Path, comment: str, left: list[str]) -> None:
    line = "    session = Session(engine)"
    (project / "app" / "bad.py").write_text(BAD.replace(line, f"{line}  {comment}"))
    found = flake8("app", cwd=project)
    assert codes(found) == left
    assert found == command_line("app", cwd=project)


@pytest.mark.parametrize("comment", ["# flake8: noqa", "# session-lint: ignore-file[SES201]"])
def test_suppressions_of_a_file_are_those_of_the_command_line(project: Path, comment: str) -> None:
    (project / "app" / "bad.py").write_text(f"{comment}\n{BAD}")
    assert flake8("app", cwd=project) == command_line("app", cwd=project) == []


@pytest.mark.parametrize("buffer", [False, True])
def test_disable_noqa_gives_what_the_command_line_gives_without_the_comments(project: Path, buffer: bool) -> None:
    line = "    session = Session(engine)"
    name = "app/bad.py"
    for comment in ("# noqa", "# NOQA:SES201", "# session-lint: ignore[SES201]", "# session-lint: ignore[SES1] what"):
        text = BAD.replace(line, f"{line}  {comment}").replace("import Session", "import Session  # flake8: noqa: SES2")
        (project / name).write_text(BAD if buffer else text)
        arguments = ("--stdin-display-name", name, "-") if buffer else ("app",)
        found = flake8("--disable-noqa", *arguments, cwd=project, text=text if buffer else None)
        (project / name).write_text(BAD)
        assert codes(found) == ["SES201"]
        assert found == command_line("app", cwd=project), comment


def test_a_suppression_on_any_line_of_the_statement(project: Path) -> None:
    text = BAD.replace("Session(engine)", "Session(\n        engine,\n    )  # noqa: SES201")
    (project / "app" / "bad.py").write_text(text)
    assert flake8("app", cwd=project) == command_line("app", cwd=project) == []


def test_columns_count_characters(project: Path) -> None:
    text = BAD.replace("    session = Session(engine)", '    name = "äöü€𝄞"; session = Session(engine)')
    (project / "app" / "bad.py").write_text(text, encoding="utf-8")
    found = flake8("app", cwd=project)
    assert codes(found) == ["SES201"]
    assert found == command_line("app", cwd=project)


def test_unsaved_text_on_standard_input(project: Path) -> None:
    name = "app/bad.py"
    edited = "\n\n" + BAD
    found = flake8("--stdin-display-name", name, "-", cwd=project, text=edited)
    assert [(path, line, code) for path, line, _, code, _ in found] == [(name, 12, "SES201")]
    assert found == command_line("--stdin-filename", name, "-", cwd=project, text=edited)


def test_unsaved_text_with_a_suppression(project: Path) -> None:
    # flake8 looks for noqa in the text, ours too; what is on disk must not matter.
    text = BAD.replace("    session = Session(engine)", "    session = Session(engine)  # noqa: SES201")
    assert flake8("--stdin-display-name", "app/bad.py", "-", cwd=project, text=text) == []


def test_unsaved_text_of_a_file_that_does_not_exist_yet(project: Path) -> None:
    name = "app/new.py"
    found = flake8("--stdin-display-name", name, "-", cwd=project, text=BAD)
    assert [(path, line, code) for path, line, _, code, _ in found] == [(name, 10, "SES201")]
    assert found == command_line("--stdin-filename", name, "-", cwd=project, text=BAD)


def test_unsaved_text_without_a_name(project: Path) -> None:
    found = flake8("-", cwd=project, text=BAD)
    assert [(path, line, code) for path, line, _, code, _ in found] == [("stdin", 10, "SES201")]


def test_text_in_another_encoding(project: Path) -> None:
    data = ("# -*- coding: latin-1 -*-\n# Grüße\n" + BAD).encode("latin-1")
    (project / "app" / "bad.py").write_bytes(data)
    found = flake8("app", cwd=project)
    assert codes(found) == ["SES201"]
    assert found == command_line("app", cwd=project)
    assert found == flake8("--stdin-display-name", "app/bad.py", "-", cwd=project, text=data)


def test_text_with_a_byte_order_mark_and_windows_line_ends(project: Path) -> None:
    data = b"\xef\xbb\xbf" + BAD.replace("\n", "\r\n").encode()
    (project / "app" / "bad.py").write_bytes(data)
    found = flake8("app", cwd=project)
    assert codes(found) == ["SES201"]
    assert found == command_line("app", cwd=project)
    assert found == flake8("--stdin-display-name", "app/bad.py", "-", cwd=project, text=data)


def test_a_syntax_error_is_said_once(project: Path) -> None:
    (project / "app" / "bad.py").write_text(BAD + "def (\n")
    done = run("--select=SES,E9", "app", cwd=project)
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["E999"]
    assert codes(command_line("app", cwd=project)) == ["SES902"]


def test_flake8s_own_selection(project: Path) -> None:
    done = run("--select=SES1", "--session-lint-ownership=local", "app", cwd=project)
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["SES101"]
    done = run("--ignore=SES", "app", cwd=project)
    assert "SES" not in done.stdout
    # Nobody has to select us: installed is enough.
    done = run("--max-line-length=100", "app", cwd=project)
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["SES201"]


def test_a_failure_of_ours_is_one_line_and_leaves_flake8_alone(project: Path) -> None:
    # The engine has an answer for every file, so its failure must be made.
    script = (
        "import sys, session_lint.engine\n"
        "def check(*given, **named):\n    raise ValueError('two\\nlines')\n"
        "session_lint.engine.check = check\n"
        "from flake8.main.cli import main\n"
        "sys.exit(main(['--jobs=1', 'app/bad.py']))\n"
    )
    (project / "app" / "bad.py").write_text("import os\n")
    done = subprocess.run([sys.executable, "-c", script], cwd=project, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 1
    other, ours = done.stdout.splitlines()
    assert ours == (
        "app/bad.py:1:1: SES902 session-lint failed on this file: ValueError: two lines"
        " (please report: https://github.com/session-lint/session-lint/issues)"
    )
    assert other == "app/bad.py:1:1: F401 'os' imported but unused"


# ---------------------------------------------------------------------------------------------- nearer settings


@pytest.fixture
def nested(project: Path) -> Path:
    """A project with another one in it, and a third one in that."""
    for directory, table in (
        ("inner", 'select = ["SES101"]\nownership = "local"'),
        ("inner/most", 'ignore = ["SES201"]'),
    ):
        (project / directory / "lib").mkdir(parents=True)
        (project / directory / "pyproject.toml").write_text(f"[tool.session-lint]\n{table}\n")
        (project / directory / "lib" / "bad.py").write_text(BAD)
    (project / "inner" / "lib" / "old.py").write_text(BAD)
    (project / "inner" / "pyproject.toml").open("a").write('exclude = ["old.py"]\n')
    (project / "other").mkdir()
    (project / "other" / "pyproject.toml").write_text("[project]\n")
    (project / "other" / "bad.py").write_text(BAD)
    return project


OF_EACH = {
    "app/bad.py": ["SES201"],
    "other/bad.py": ["SES201"],
    "inner/lib/bad.py": ["SES101"],
    "inner/most/lib/bad.py": [],
}


@pytest.mark.parametrize(
    "paths",
    [
        ".",
        "inner",
        "app inner",
        "inner/lib/bad.py",
        "inner/lib/bad.py app/bad.py",
        "inner/most",
        "inner/most other",
        "inner/lib/bad.py inner/most/lib/bad.py",
    ],
)
def test_each_file_has_its_own_settings_whatever_is_named_with_it(nested: Path, paths: str) -> None:
    found = command_line(*paths.split(), cwd=nested)
    assert found == flake8(*paths.split(), cwd=nested)
    codes_of = {path: [code for name, _, _, code, _ in found if name == path] for path in OF_EACH}
    asked = [path for path in OF_EACH if any(path.startswith(name.rstrip(".")) for name in paths.split())]
    assert codes_of == {path: OF_EACH[path] if path in asked else [] for path in OF_EACH}
    assert {name for name, *_ in found} <= OF_EACH.keys()


def test_the_command_lines_choice_is_for_every_file(nested: Path) -> None:
    def chosen(*options: str) -> list[tuple[str, str]]:
        return [(path, code) for path, _, _, code, _ in command_line(*options, cwd=nested)]

    every = {*OF_EACH, "inner/lib/old.py"}
    assert chosen("--select=SES201", "--extend-exclude=other") == [
        ("app/bad.py", "SES201"),
        ("inner/lib/bad.py", "SES201"),
        ("inner/most/lib/bad.py", "SES201"),
    ]
    assert chosen("--isolated") == [(path, "SES201") for path in sorted(every)]
    assert chosen("--config=pyproject.toml") == [(path, "SES201") for path in sorted(every)]
    assert ("inner/lib/old.py", "SES101") in chosen("inner/lib/old.py", "app"), "it was named"
    assert chosen("inner/lib/old.py", "app", "--force-exclude") == [("app/bad.py", "SES201")]


def test_wrong_settings_further_down_are_one_line(nested: Path) -> None:
    (nested / "inner" / "pyproject.toml").write_text("[tool.session-lint]\nselct = []\n")
    done = run("check", cwd=nested, module="session_lint")
    message = 'inner/pyproject.toml: unknown key "selct"; did you mean "select"?'
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"session-lint: error: {message}\n")
    done = run("--select=SES", cwd=nested)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == f"There was a critical error during execution of Flake8:\nsession-lint: {message}\n"
