"""The engine: part of a project gives what the whole gives, and nothing that a run keeps ever shows in a later one."""

from __future__ import annotations

import concurrent.futures
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import session_lint
from session_lint import engine
from session_lint.engine import Source, check
from session_lint.findings import Finding, Report
from session_lint.settings import load

PROJECT = {
    "pyproject.toml": '[project]\nname = "shop"\n',
    "app/__init__.py": "",
    "app/database.py": """\
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

Session = sessionmaker(create_engine("postgresql://localhost/shop"))


def get_db():
    session = Session()
    yield session
    session.close()
""",
    "app/repository.py": """\
from sqlalchemy.orm import Session


def store(session: Session, item: object) -> None:
    session.add(item)
    session.flush()
""",
    "app/handlers.py": """\
from fastapi import APIRouter, Depends
from sqlalchemy.orm import Session

from app import database, repository

router = APIRouter()


@router.post("/orders")
def create(name: str, db: Session = Depends(database.get_db)) -> None:
    repository.store(db, name)
    db.commit()
""",
    "app/jobs.py": """\
from app import database, repository


def nightly() -> None:
    with database.Session() as session:
        repository.store(session, "report")
""",
}
FILES = [name for name in PROJECT if name.endswith(".py")]

# As (file, line, code), with the settings' defaults.
LEAK = ("app/database.py", 9, "SES202")
LOST = ("app/jobs.py", 6, "SES107")
UNSAFE = ("app/handlers.py", 12, "SES101")

Summary = list[tuple[str, int, str]]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that the test stands in. A dependency, a repository, and what uses them lie in files of their own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "home"))
    directory = tmp_path / "project"
    write(directory, PROJECT)
    monkeypatch.chdir(directory)
    return directory


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def edit(name: str, old: str, new: str) -> None:
    path = Path(name)
    text = path.read_text()
    assert text.count(old) == 1, (name, old)
    path.write_text(text.replace(old, new))


def run(*names: str, stdin: Source | None = None, executor: Any = None, **overrides: object) -> Report:
    """As the command line does it."""
    settings = load(Path.cwd(), overrides=overrides)
    return check([Path(name) for name in names], settings, stdin=stdin, executor=executor)


def summary(report: Report) -> Summary:
    return [(finding.path, finding.line, finding.code) for finding in report.findings]


def in_file(findings: list[Finding], name: str) -> list[Finding]:
    return [finding for finding in findings if finding.path == name]


def wait_until_times_are_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that has just been written is read again whatever its times are; so it is an hour later from now on."""
    time_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: time_ns() + 3_600_000_000_000)


# ---------------------------------------------------------------------------------------------- part and whole


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("ownership", ["project", "local"])
def test_one_file_gets_what_it_gets_in_the_whole_project(ownership: str, cache: bool) -> None:
    expected = [LEAK, UNSAFE, LOST] if ownership == "local" else [LEAK, LOST]
    alone = {name: run(name, ownership=ownership, cache=cache) for name in FILES}
    whole = run(".", ownership=ownership, cache=cache)
    assert summary(whole) == expected
    for name in FILES:
        for report in (alone[name], run(name, ownership=ownership, cache=cache)):  # before the whole and after it
            assert report.findings == in_file(whole.findings, name), name
            assert report.held_back == in_file(whole.held_back, name), name
            assert report.files == 1


def test_a_file_gets_the_same_from_wherever_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for directory, name in [(".", "app/jobs.py"), ("app", "jobs.py"), ("../..", "project/app/jobs.py")]:
        monkeypatch.chdir(directory)
        report = check([Path(name)], load(Path(name)))
        assert summary(report) == [(name, *LOST[1:])]
        assert [step.path for step in report.findings[0].trail] == [name] * len(report.findings[0].trail)


@pytest.mark.parametrize("marker", ["", "pyproject.toml"])
def test_a_script_among_projects_has_nothing_to_do_with_them(
    marker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies beside a file that belongs to no project is judged with it, but for other projects."""
    (tmp_path / "other" / "app").mkdir(parents=True)
    (tmp_path / "other" / "app" / "db.py").write_text("from sqlalchemy.orm import Session\n\ndef broken(:\n")
    (tmp_path / "script.py").write_text("from sqlalchemy.orm import Session\n")
    if marker:
        (tmp_path / "other" / marker).touch()
    monkeypatch.chdir(tmp_path)
    notes = check([Path("script.py")], load(tmp_path, overrides={"cache": False})).notes
    assert [note for note in notes if "db.py" in note] == [
        *([] if marker else ["other/app/db.py: is not valid Python: invalid syntax; judged without it"])
    ]


def test_a_file_has_the_nearest_settings_whatever_is_linted_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    write(Path("pay"), PROJECT)
    Path("pyproject.toml").write_text('[tool.session-lint]\nownership = "local"\n')
    Path("pay/pyproject.toml").write_text('[tool.session-lint]\nignore = ["SES2"]\n')
    inner = [("pay/app/jobs.py", *LOST[1:])]
    outer = [LEAK, UNSAFE, LOST]
    for paths, expected, root in [
        (["."], [*outer, *inner], "."),
        (["app"], outer, "."),
        (["pay"], inner, "pay"),
        (["pay/app"], inner, "pay"),
        (["pay/app/jobs.py", "pay/app/database.py"], inner, "pay"),
        (["pay/app/jobs.py", "app/jobs.py"], [LOST, *inner], "."),
    ]:
        done = start(*paths, "--no-cache", "--verbose")
        output, errors = done.communicate()
        found = [(item["path"], item["line"], item["code"]) for item in json.loads(output)["findings"]]
        assert found == expected, paths
        assert f"root: {Path(root).resolve()}\n" in errors.decode()
    monkeypatch.chdir("pay/app")
    output, _ = start("--no-cache").communicate()
    assert [item["path"] for item in json.loads(output)["findings"]] == ["jobs.py"]


def test_files_that_others_depend_on_are_not_reported_themselves() -> None:
    Path("app/broken.py").write_text("from sqlalchemy.orm import Session\ndef f(:\n")
    report = run("app/jobs.py")
    assert summary(report) == [LOST]
    assert report.notes == ["app/broken.py: is not valid Python: invalid syntax; judged without it"]


# ---------------------------------------------------------------------------------------------- change by change

# A change in one file, and the findings of the whole project after it.
CHANGES: dict[str, tuple[str, str, str, Summary]] = {
    "the dependency cleans up": (
        "app/database.py",
        "    yield session\n    session.close()\n",
        "    try:\n        yield session\n    finally:\n        session.close()\n",
        [LOST],
    ),
    "the repository commits": ("app/repository.py", "session.flush()", "session.commit()", [LEAK]),
    "the repository reads": (
        "app/repository.py",
        "session.add(item)\n    session.flush()",
        "session.get(item, 1)",
        [LEAK],
    ),
    "the function goes by another name": ("app/repository.py", "def store(", "def put(", [LEAK]),
    "the caller commits": (
        "app/jobs.py",
        '"report")\n',
        '"report")\n        session.commit()\n',
        [LEAK],
    ),
    "a comment moves a line": (
        "app/jobs.py",
        "def nightly",
        "# every night\ndef nightly",
        [LEAK, ("app/jobs.py", 7, "SES107")],
    ),
    "a comment silences": ("app/jobs.py", '"report")', '"report")  # noqa: SES107', [LEAK]),
    "the repository is broken": (
        "app/repository.py",
        "def store(",
        "def store(:",
        [LEAK, ("app/repository.py", 4, "SES902")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("believed", [True, False])
def test_a_change_shows_in_the_next_run_and_so_does_its_undoing(
    change: str, believed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, old, new, expected = CHANGES[change]
    if believed:
        wait_until_times_are_believed(monkeypatch)
    before = run(".").findings
    assert summary(run(".")) == [LEAK, LOST]
    for _ in range(2):
        edit(name, old, new)
        assert run(".").findings == run(".", cache=False).findings
        assert summary(run(".")) == expected
        for file in FILES:
            assert run(file).findings == in_file(run(".").findings, file)
        edit(name, new, old)
        assert run(".").findings == before


def test_files_that_come_and_go() -> None:
    assert summary(run(".")) == [LEAK, LOST]
    repository = Path("app/repository.py")
    repository.rename("app/storage.py")
    assert summary(run(".")) == [LEAK]
    write(Path(), {"app/repository.py": PROJECT["app/repository.py"].replace("flush", "commit")})
    assert summary(run(".")) == [LEAK]
    Path("app/storage.py").replace(repository)
    assert summary(run(".")) == [LEAK, LOST]


def test_a_change_of_the_settings_shows_in_the_next_run() -> None:
    assert summary(run(".")) == [LEAK, LOST]
    for table, expected in [
        ('ownership = "local"', [LEAK, UNSAFE, LOST]),
        ('ignore = ["SES107"]', [LEAK]),
        ('exclude = ["jobs.py"]', [LEAK]),
        ('per-file-ignores = { "app/data*" = ["SES2"] }', [LOST]),
        ('min-confidence = "certain"', [LEAK]),
        ("", [LEAK, LOST]),
    ]:
        Path("session-lint.toml").write_text(f"{table}\n")
        assert summary(run(".")) == expected, table
        assert summary(run(".")) == expected, table


# ---------------------------------------------------------------------------------------------- the cache


def cached(project: Path) -> list[Path]:
    return sorted((project / ".session-lint-cache").glob("*.cache"))


# What a file of the cache may hold instead of its content.
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut in the header": lambda data: data[:30],
    "cut in half": lambda data: data[: len(data) // 2],
    "one byte less": lambda data: data[:-1],
    "one byte more": lambda data: data + b"\0",
    "one bit": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "something else": lambda _: b"PK\x03\x04" * 99,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_changes_nothing(project: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_until_times_are_believed(monkeypatch)
    expected = run(".").findings
    assert len(cached(project)) >= 3
    for path in cached(project):  # each alone
        whole = path.read_bytes()
        path.write_bytes(DAMAGE[damage](whole))
        assert run(".").findings == expected, path.name
        path.write_bytes(whole)
    for path in cached(project):  # and all of them
        path.write_bytes(DAMAGE[damage](path.read_bytes()))
    assert run(".").findings == expected
    assert run(".").findings == expected


def test_a_cache_of_another_state_of_the_tree_changes_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a CI brings back the cache of another branch."""
    wait_until_times_are_believed(monkeypatch)
    here, there = project / ".session-lint-cache", project.parent / "kept"
    run(".")
    shutil.copytree(here, there)
    edit("app/repository.py", "flush", "commit")
    assert summary(run(".")) == [LEAK]
    shutil.rmtree(here)
    there.rename(here)
    assert summary(run(".")) == [LEAK]


def test_a_cache_of_another_version_changes_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_until_times_are_believed(monkeypatch)
    edit("app/repository.py", "flush", "commit")
    with monkeypatch.context() as other:
        other.setattr(engine, "__version__", "0.0.1")
        assert summary(run(".")) == [LEAK]
    foreign = {path.name.split("-")[0] + path.name.split("-")[2]: path for path in cached(project)}
    edit("app/repository.py", "commit", "flush")
    assert summary(run(".")) == [LEAK, LOST]
    ours = [path for path in cached(project) if path not in foreign.values()]
    assert ours
    replaced = 0
    for path in ours:
        other_file = foreign.get(path.name.split("-")[0] + path.name.split("-")[2])
        if other_file is not None:
            path.write_bytes(other_file.read_bytes())
            replaced += 1
    assert replaced
    assert summary(run(".")) == [LEAK, LOST]


def test_a_cache_that_cannot_be_written_changes_nothing(project: Path) -> None:
    (project / ".session-lint-cache").write_text("in the way")
    report = run(".")
    assert summary(report) == [LEAK, LOST]
    assert [note for note in report.notes if note.startswith("no cache: cannot write ")] == report.notes


# ---------------------------------------------------------------------------------------------- other processes


def enlarge(project: Path, modules: int = 16) -> None:
    """So many more modules, each of which has one finding, that several processes are worth it."""
    opened = "() -> None:\n    with database.Session() as session:\n        session."
    body = "".join(f"def job{number}{opened}get(object, {number})\n\n\n" for number in range(100))
    lost = f"def lost{opened}add(object())\n"
    for number in range(modules):
        (project / "app" / f"big{number:02}.py").write_text(f"from app import database\n\n\n{body}{lost}")


def start(*arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(session_lint.__file__).parents[1])}
    command = [sys.executable, "-m", "session_lint", "check", "--output-format", "json", *arguments]
    # A session of its own, so that it can be killed with all its processes.
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def test_runs_at_the_same_time_do_not_disturb_each_other(project: Path) -> None:
    enlarge(project)
    expected, _ = start("--no-cache", ".").communicate()
    for _ in range(2):  # with nothing in the cache, and with everything
        runs = [start("--jobs", "2", "."), start("--jobs", "1", "."), start("app/jobs.py")]
        results = [process.communicate() for process in runs]
        assert [process.returncode for process in runs] == [1, 1, 1]
        assert [output for output, _ in results[:2]] == [expected, expected]
        assert [errors.count(b"\n") for _, errors in results] == [1, 1, 1], "more than the summary"
    assert start(".").communicate()[0] == expected


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="no process groups here")
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_run_that_was_killed_leaves_nothing_wrong(project: Path, jobs: str) -> None:
    enlarge(project, 6)
    expected, _ = start("--no-cache", ".").communicate()
    for after in (0.05, 0.2, 0.4, 0.6, 0.9):
        edit("app/big00.py", "def lost", f"# {after}\ndef lost")
        process = start("--jobs", jobs, ".")
        time.sleep(after)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        edit("app/big00.py", f"# {after}\ndef lost", "def lost")
        assert start(".").communicate()[0] == expected


# ---------------------------------------------------------------------------------------------- executors


class InPlace(concurrent.futures.Executor):
    """The simplest one: each call at once, where it is made."""

    def __init__(self) -> None:
        self.calls = 0
        self.closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        self.calls += 1
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - an executor hands on whatever it is
            future.set_exception(error)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.closed = True


def in_threads() -> concurrent.futures.Executor:
    return concurrent.futures.ThreadPoolExecutor(3)


@pytest.mark.parametrize("make", [InPlace, in_threads])
def test_any_executor_gives_the_same_findings(project: Path, make: Callable[[], concurrent.futures.Executor]) -> None:
    enlarge(project, 12)
    Path("app/broken.py").write_text("from sqlalchemy.orm import Session\ndef f(:\n")
    expected = run(".", cache=False, jobs=1)
    by_default = run(".", cache=False, jobs=2)
    executor = make()
    with executor:
        report = run(".", cache=False, executor=executor)
        again = run(".", cache=False, executor=executor)  # it is the caller's, who may use it again
        if isinstance(executor, InPlace):
            assert executor.calls > 2
            assert not executor.closed
    assert len(expected.findings) == 15
    assert expected.findings == by_default.findings == report.findings == again.findings
    assert expected.held_back == by_default.held_back == report.held_back == again.held_back
    assert (expected.functions, expected.lines) == (report.functions, report.lines)


class Unable(InPlace):
    """A cluster that is gone."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        raise concurrent.futures.BrokenExecutor("gone")


def test_an_executor_that_breaks_costs_no_findings() -> None:
    assert run(".", cache=False, executor=Unable()).findings == run(".", cache=False).findings


# ---------------------------------------------------------------------------------------------- standard input


def buffer(name: str, old: str, new: str) -> Source:
    text = PROJECT[name]
    assert text.count(old) == 1
    return Source(Path(name), text.replace(old, new).encode())


# What an editor holds of one file while the file on the disk is still the old one, and the findings of the buffer.
BUFFERS: dict[str, tuple[str, str, str, Summary]] = {
    "as it is saved": ("app/jobs.py", "report", "report", [LOST]),
    "the bug is mended": ("app/jobs.py", '"report")\n', '"report")\n        session.commit()\n', []),
    "the bug has moved": ("app/jobs.py", "def nightly", "\n\ndef nightly", [("app/jobs.py", 8, "SES107")]),
    "what others depend on": ("app/repository.py", "flush", "commit", []),
    "the dependency": ("app/database.py", "    yield session\n", "    yield session\n    session.commit()\n", [LEAK]),
    "half a word": ("app/jobs.py", "with database", "with (database", [("app/jobs.py", 5, "SES902")]),
}


@pytest.mark.parametrize("name", BUFFERS)
def test_a_buffer_is_judged_by_its_own_text_and_leaves_no_trace(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_until_times_are_believed(monkeypatch)
    file, old, new, expected = BUFFERS[name]
    cold = run(file, stdin=buffer(file, old, new))
    saved = run(".").findings
    assert summary(run(".")) == [LEAK, LOST]
    warm = run(file, stdin=buffer(file, old, new))
    assert summary(cold) == summary(warm) == expected
    assert cold.findings == warm.findings
    assert run(".").findings == saved
    assert run(file).findings == in_file(saved, file)
    Path(file).write_bytes(buffer(file, old, new).data)
    assert in_file(run(".").findings, file) == warm.findings


def test_a_buffer_of_a_file_that_is_not_there_yet() -> None:
    text = PROJECT["app/jobs.py"].replace("nightly", "weekly")
    report = run("app/weekly.py", stdin=Source(Path("app/weekly.py"), text.encode()))
    assert summary(report) == [("app/weekly.py", 6, "SES107")]
    assert summary(run(".")) == [LEAK, LOST]


def test_a_chain_of_calls_is_gone_through_once() -> None:
    """For each link twice, a chain of thirty would take longer than anybody waits."""
    chain = "str(token)" + '.replace("a", "b")' * 40
    code = f"class Auth:\n    def __init__(self, token, session: Session) -> None:\n        token = {chain}\n"
    Path("chain.py").write_text(f"from sqlalchemy.orm import Session\n\n\n{code}        self.session = session\n")
    assert run("chain.py").findings == []
