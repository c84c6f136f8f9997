"""The command line: options, exit statuses, what goes where. The engine's result is given here, not computed."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import Capture, Engine, Terminal, enter_project, failing, installed
from reports import COMMIT, full_report

import session_lint
from session_lint import cli
from session_lint.findings import Confidence, Report
from session_lint.settings import Settings
from session_lint.source.discovery import UsageError


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return enter_project(tmp_path, monkeypatch)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    return installed(monkeypatch)


# ---------------------------------------------------------------------------------------------- exit status


def test_exit_statuses(engine: Engine, capsys: Capture) -> None:
    assert cli.main(["check"]) == 0
    assert capsys.readouterr().out == "No findings in 2 files.\n"
    engine.report = full_report()
    assert cli.main(["check"]) == 1
    assert cli.main(["check", "--exit-zero"]) == 0
    engine.report = Report(files=1, held_back=[COMMIT])
    assert cli.main(["check"]) == 0


def test_a_path_that_does_not_exist(engine: Engine, capsys: Capture) -> None:
    engine.error = UsageError("no such file or directory: x.py")
    assert failing(capsys, "check", "x.py", "--exit-zero") == "no such file or directory: x.py"


def test_an_internal_error_is_one_line_that_asks_for_a_report(engine: Engine, capsys: Capture) -> None:
    engine.error = KeyError("secret\nsauce")
    assert cli.main(["check", "--exit-zero"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("session-lint: internal error: KeyError: 'secret\\nsauce' (cli.py:")
    assert err.endswith(
        "; please report it with the code that causes it: https://github.com/session-lint/session-lint/issues\n"
    )
    assert err.count("\n") == 1
    assert cli.main(["check", "--verbose"]) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize("error", [RecursionError("maximum recursion depth exceeded"), MemoryError(), AssertionError()])
def test_no_error_is_a_traceback(engine: Engine, capsys: Capture, error: Exception) -> None:
    engine.error = error
    assert cli.main(["check"]) == 2
    assert f"internal error: {type(error).__name__}" in capsys.readouterr().err


def test_interrupted(engine: Engine, capsys: Capture) -> None:
    engine.error = KeyboardInterrupt()
    assert cli.main(["check"]) == 130
    assert capsys.readouterr() == ("", "session-lint: interrupted\n")


# ---------------------------------------------------------------------------------------------- options


def test_without_paths_the_working_directory_is_linted(engine: Engine) -> None:
    cli.main(["check"])
    assert engine.asked["paths"] == ["."]
    assert engine.asked["stdin"] is None
    cli.main(["check", "a.py", "--statistics", "b", "-q", "c"])
    assert engine.asked["paths"] == ["a.py", "b", "c"]


def test_options_become_settings(engine: Engine, project: Path) -> None:
    (project / "pyproject.toml").write_text('[tool.session-lint]\nignore = ["SES101"]\nexclude = ["x"]\njobs = 9\n')
    words = (
        "check --select SES1,SES201 --select SES301 --extend-select SES113 --ignore SES104 --min-confidence possible "
        "--ownership local --show-mitigated --exclude a,b --extend-exclude c --force-exclude --no-gitignore "
        "--cache-dir cache --no-cache --jobs 3"
    )
    assert cli.main(words.split()) == 0
    assert engine.settings == Settings(
        root=project,
        source=project / "pyproject.toml",
        select=("SES1", "SES201", "SES301"),
        extend_select=("SES113",),
        ignore=("SES104",),
        min_confidence=Confidence.POSSIBLE,
        ownership="local",
        show_mitigated=True,
        exclude=("a", "b"),
        extend_exclude=("c",),
        force_exclude=True,
        respect_gitignore=False,
        cache_dir=project / "cache",
        cache=False,
        jobs=3,
    )
    assert cli.main(["check"]) == 0
    assert (engine.settings.ignore, engine.settings.jobs, engine.settings.cache) == (("SES101",), 9, True)


def test_settings_are_those_of_what_is_linted(engine: Engine, project: Path) -> None:
    for name, jobs in (("one", 1), ("two", 2)):
        (project / name / "src").mkdir(parents=True)
        (project / name / "session-lint.toml").write_text(f"jobs = {jobs}\n")

    def used(*words: str) -> tuple[int | None, Path]:
        cli.main(["check", *words])
        return engine.settings.jobs, engine.settings.root

    assert used("one/src", "one/src/a.py") == (1, project / "one")
    assert used("two/src/a.py") == (2, project / "two")
    assert used("one/src", "two/src") == (None, project)
    assert used("one", "--config", "two/session-lint.toml") == (2, project / "one")
    assert used("one", "--isolated") == (None, project / "one")


def test_show_settings_prints_them_and_stops(engine: Engine, project: Path, capsys: Capture) -> None:
    (project / "session-lint.toml").write_text('ignore = ["SES104"]\n')
    assert cli.main(["check", "--show-settings", "--jobs", "2"]) == 0
    out = capsys.readouterr().out
    assert f"# settings file: {project / 'session-lint.toml'}\n" in out
    assert 'ignore = ["SES104"]\n' in out
    assert "jobs = 2\n" in out
    assert engine.asked == {}


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("chekc", 'unknown command "chekc"; did you mean "check"?'),
        ("pyproject", 'unknown command "pyproject"; there are check, confirm, explain, rules'),
        (".git", '".git" is not a command; did you mean "session-lint check .git"?'),
        ("--select SES101", "--select stands before the command; write session-lint check --select"),
        ("check --selct SES101", "unknown option --selct; did you mean --select?"),
        ("check --output-fromat=json", "unknown option --output-fromat; did you mean --output-format?"),
        ("check --sel SES101", "unknown option --sel; did you mean --select?"),
        ("check --bogus", "unknown option --bogus"),
        ("check --select", "argument --select: expected one argument"),
        ("check --select SES-101", '--select: unknown rule "SES-101"; did you mean "SES101"?'),
        ("check --select all", '--select: unknown rule "all"; did you mean "ALL"?'),
        ("check --select ses2", '--select: unknown rule "ses2"; did you mean "SES2"?'),
        (
            "check --select session-never-closed",
            '--select: unknown rule "session-never-closed"; did you mean "SES201"?',
        ),
        (
            "check --ignore Comit-without-rollback",
            '--ignore: unknown rule "Comit-without-rollback"; did you mean "SES101"?',
        ),
        (
            "check --select ,",
            '--select names no rule; leave it out for every rule that is not preview, or write "ALL"',
        ),
        ("check --verdicts nope", "cannot read nope: No such file or directory"),
        ("check --jobs many", "argument --jobs: invalid int value: 'many'"),
        ("check --jobs 0", "--jobs must be a whole number from 1, not 0"),
        ("check --config nowhere.toml", "nowhere.toml: cannot read the settings: No such file or directory"),
        ("check --isolated --config x.toml", "--isolated and --config exclude each other"),
        ("check - a.py", "standard input is linted alone; leave the other paths out"),
        ("check a.py --stdin-filename b.py", "standard input is linted alone; leave the other paths out"),
        ("check --output-file no/such/dir/x", "cannot write no/such/dir/x: No such file or directory"),
        ("explain", "the following arguments are required: CODE"),
        ("rules extra", "unexpected argument: extra"),
    ],
)
def test_wrong_command_lines_are_one_line(capsys: Capture, words: str, message: str) -> None:
    assert failing(capsys, *words.split()) == message


@pytest.mark.usefixtures("engine")
def test_choices_are_named(capsys: Capture) -> None:
    message = failing(capsys, "check", "--output-format", "xml")
    for name in ("text", "concise", "json", "github", "sarif", "junit", "gitlab"):
        assert name in message
    assert failing(capsys, "check", "") == "a path is empty"


@pytest.mark.usefixtures("engine")
def test_wrong_settings_are_one_line(project: Path, capsys: Capture) -> None:
    (project / "pyproject.toml").write_text("[tool.session-lint]\nselct = []\n")
    assert failing(capsys, "check") == 'pyproject.toml: unknown key "selct"; did you mean "select"?'


def test_no_command_shows_the_help(capsys: Capture) -> None:
    assert cli.main([]) == 2
    err = capsys.readouterr().err
    assert "usage: session-lint" in err
    assert err.endswith("session-lint: error: name a command: check, confirm, explain, rules\n")


@pytest.mark.parametrize("words", ["--version", "--help", "check --help", "explain --help", "rules --help"])
def test_version_and_help(capsys: Capture, words: str) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(words.split())
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert (
        out == f"session-lint {session_lint.__version__}\n"
        if words == "--version"
        else out.startswith("usage: session-lint")
    )


def test_the_help_of_confirm_shows_where_the_tests_stand(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        cli.main(["confirm", "--help"])
    out = capsys.readouterr().out
    assert out.startswith("usage: session-lint confirm [OPTION ...] [PATH ...] -- pytest [TESTS AND OPTIONS ...]\n")
    assert "--resume" in out
    assert "--stdin-filename" not in out
    assert "--verdicts" not in out


# ---------------------------------------------------------------------------------------------- standard input


def stdin_of(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_standard_input_stands_for_a_file(
    engine: Engine, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (project / "app").mkdir()
    (project / "app" / "session-lint.toml").write_text("jobs = 5\n")
    for words in ("check - --stdin-filename app/x.py", "check --stdin-filename app/x.py"):
        stdin_of(monkeypatch, b"\xffnot even text")
        assert cli.main([*words.split(), "--output-format", "json"]) == 0
        assert engine.asked["paths"] == ["app/x.py"]
        assert engine.asked["stdin"].path == Path("app/x.py")
        assert engine.asked["stdin"].data == b"\xffnot even text"
        assert engine.settings.jobs == 5
        out, err = capsys.readouterr()
        assert json.loads(out)["findings"] == []
        assert err == "", "an editor takes what stands there for an error"
    stdin_of(monkeypatch, b"")
    assert cli.main(["check", "-"]) == 0
    assert engine.asked["stdin"].path == Path("stdin.py")


def test_an_excluded_buffer_has_no_findings_with_force_exclude(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.report = full_report()
    for words, status in (("--force-exclude", 0), ("", 1)):
        stdin_of(monkeypatch, b"x = 1\n")
        assert cli.main(["check", "-", "--stdin-filename", "build/x.py", *words.split()]) == status


# ---------------------------------------------------------------------------------------------- explain and rules


def test_explain_shows_a_page(capsys: Capture) -> None:
    for name in ("SES101", "ses101", "commit-without-rollback"):
        assert cli.main(["explain", name]) == 0
        out = capsys.readouterr().out
        assert "SES101" in out.splitlines()[0]
        assert "## Why it is bad" in out
        assert "\x1b" not in out


def test_explain_on_a_terminal_is_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", stream)
    assert cli.main(["explain", "SES101"]) == 0
    stream.flush()
    written = stream.bytes.getvalue().decode()
    assert "\x1b[" in written
    assert "## Why" not in written
    assert "Why it is bad" in written


def test_explain_names_the_nearest_rule(capsys: Capture) -> None:
    assert "SES101" in failing(capsys, "explain", "SES1011")
    assert "commit-without-rollback" in failing(capsys, "explain", "comit-without-rollback")


def test_rules_in_all_formats(capsys: Capture) -> None:
    assert cli.main(["rules"]) == 0
    assert capsys.readouterr().out.startswith("SES101  commit-without-rollback")
    assert cli.main(["rules", "--output-format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["code"] == "SES101"
    assert cli.main(["rules", "--output-format", "markdown"]) == 0
    assert "| [SES101](" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------- as a process


def run(*arguments: str, **given: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    command = [sys.executable, "-m", "session_lint", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, **given)


def test_python_dash_m() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"session-lint {session_lint.__version__}\n")
    done = run("check", "nowhere.py")
    assert (done.returncode, done.stderr) == (2, "session-lint: error: no such file or directory: nowhere.py\n")


@pytest.mark.skipif(os.name == "nt", reason="POSIX shell")
def test_streams_that_are_closed(project: Path) -> None:
    (project / "a.py").write_text("x = 1\n")
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    for words, message in [
        ("check - <&-", "cannot read standard input: it is closed"),
        ("check >&-", "cannot write the output: standard output is closed"),
        ("rules >&-", "cannot write the output: standard output is closed"),
        ("check >&- 2>&-", ""),
    ]:
        command = ["sh", "-c", f"'{sys.executable}' -m session_lint {words}"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        expected = f"session-lint: error: {message}\n" if message else ""
        assert (done.returncode, done.stdout, done.stderr) == (2, "", expected), words


INTERRUPTED_WHILE_IMPORTING = """
import os, signal, sys

class Finder:
    def find_spec(name, path=None, target=None):
        if name == "session_lint.cli":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder)
from session_lint.__main__ import run
sys.exit(run())
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_an_interrupt_before_anything_is_imported() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    command = [sys.executable, "-c", INTERRUPTED_WHILE_IMPORTING]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "session-lint: interrupted\n")


# Says that it is at work, and then has work for ever, in processes of its own.
ENDLESS = """
import os, sys, time
from session_lint import __main__, cli
from session_lint.syntax import workers

def check(_):
    list(workers.answers([((), 1), ((), 2_000)], 2, None))

def busy(_):
    os.write(1, b"at work\\n")  # at once, while print() may write the end of the line by itself
    time.sleep(1_000)

workers.work = busy
cli._check = check
sys.argv[1:] = ["check"]
sys.exit(__main__.run())
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"])
def test_no_signal_leaves_workers_behind(name: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        try:
            begun = [process.stdout.readline() for _ in range(2)]
            process.send_signal(getattr(signal, name))
            # What its workers hold open would keep this waiting.
            said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert begun == ["at work\n"] * 2, said
    expected = (-9, "") if name == "SIGKILL" else (130, "session-lint: interrupted\n")
    assert (process.returncode, said[1]) == expected


@pytest.mark.skipif(os.name == "nt", reason="POSIX shell")
def test_a_reader_that_stops_reading_is_no_error() -> None:
    command = f"'{sys.executable}' -m session_lint rules --output-format json | head -c 1"
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=environment, check=False)
    assert (done.stdout, done.stderr) == ("[", "")


def test_what_was_found_stays_found_when_the_reader_stops(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    class Closed(io.BytesIO):
        def write(self, _data: object) -> int:
            raise BrokenPipeError

    engine.report = full_report()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(Closed()))
    assert cli.main(["check"]) == 1
    monkeypatch.undo()
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_under_the_output(engine: Engine, capsys: Capture) -> None:
    engine.report = full_report()
    assert failing(capsys, "check", "--output-file", "/dev/full") == "cannot write /dev/full: No space left on device"


@pytest.mark.usefixtures("engine")
def test_a_working_directory_that_is_gone(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def gone() -> Path:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(Path, "cwd", gone)
    assert failing(capsys, "check") == "the working directory no longer exists"


def test_the_command_imports_little() -> None:
    """What the start of a run imports is paid by every warm run."""
    code = "import sys, session_lint.cli; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    heavy = {
        "rich",
        "asyncio",
        "importlib.metadata",
        "subprocess",
        "libcst",
        "json",
        "difflib",
        "logging",
        "multiprocessing",
    }
    assert heavy.isdisjoint(done.stdout.split())
