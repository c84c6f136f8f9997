"""Whatever lies in a repository, a run ends with findings and an exit status, never with a traceback.

All files lie in one directory and are linted in one run of the real command: none may cost the others theirs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import session_lint

IMPORT = "from sqlalchemy.orm import Session\n"
GOOD = f"""{IMPORT}

def rename(session: Session, title: str) -> None:
    session.add(Thread(title=title))
    session.commit()
"""

TOO_DEEP = "is nested too deeply"

# What each file holds, and its SES902: the beginning of the message, line and column; None: it is analysed.
CASES: dict[str, tuple[str | bytes, tuple[str, int, int] | None]] = {
    "good.py": (GOOD, None),
    "empty.py": ("", None),
    "comment.py": ("# nothing but a session", None),
    "bom.py": (b"\xef\xbb\xbf" + GOOD.encode(), None),
    "crlf.py": (GOOD.replace("\n", "\r\n"), None),
    "cr.py": (GOOD.replace("\n", "\r"), None),
    "form_feed.py": (GOOD.replace("\n\n", "\n\f\n"), None),
    "no_newline.py": (GOOD.rstrip("\n"), None),
    "backslash.py": (GOOD.rstrip("\n") + "\\\n\nif x:\n    y()\n", None),
    "backslashes.py": ("import a\\\n\nimport b\\\n\n" + GOOD, None),
    "latin1_declared.py": (b"# coding: latin-1\n# \xe9\n" + GOOD.encode(), None),
    "surrogate.py": (GOOD + 'x = "\\ud800"\n', None),
    "long_line.py": (GOOD + "x = [" + "1, " * 100_000 + "]\n", None),
    "many_branches.py": (GOOD + "if x:\n  pass\n" + "".join(f"elif x == {n}:\n  pass\n" for n in range(2_000)), None),
    "class_head.py": (GOOD + "class Own(\n    Session,\n): pass\n", None),
    "line\nbreak.py": (GOOD, None),
    "syntax.py": (IMPORT + "def f(:\n", ("is not valid Python: invalid syntax", 2, 7)),
    "syntax_elsewhere.py": ("def f(:\n", ("is not valid Python: invalid syntax", 1, 7)),
    "python2.py": (IMPORT + 'print "x"\n', ("is not valid Python: Missing parentheses in call to 'print'", 2, 1)),
    "indent.py": (IMPORT + "  x = 1\n", ("is not valid Python: unexpected indent", 2, 2)),
    "end.py": (
        IMPORT + "def f():",
        ("is not valid Python: expected an indented block after function definition", 2, 9),
    ),
    "tabs.py": (IMPORT + "if x:\n\ty\n        z\n", ("is not valid Python: inconsistent use of tabs and spaces", 4, 1)),
    "unfinished.py": (IMPORT + 'x = """a', ("is not valid Python: unterminated triple-quoted string literal", 2, 5)),
    "bracket.py": (
        f"{GOOD}\nx = f(\n    [\n        1,\n)\n" + "def g(a):\n    return a.b.c(a, a.b)\n" * 200,
        ("is not valid Python: closing parenthesis ')' does not match opening parenthesis '['", 11, 1),
    ),
    "merge.py": (GOOD + "<<<<<<< HEAD\nx = 1\n=======\n", ("is not valid Python: invalid syntax", 7, 1)),
    "null.py": (IMPORT + 'x = "\0"\n', ("is not Python source: null byte at offset 40", 2, 6)),
    "binary.py": (bytes(range(256)) * 9, ("is not Python source: null byte at offset 0", 1, 1)),
    "latin1.py": (IMPORT.encode() + b'x = "\xe9"\n', ("is not UTF-8 text: byte 0xe9 at offset 40", 2, 6)),
    "utf16.py": (GOOD.encode("utf-16-le"), ("is not Python source: null byte at offset 1", 1, 2)),
    "encoding.py": ("# coding: klingon\n" + GOOD, ('declares an unknown encoding "klingon"', 1, 1)),
}

# Each of these once took a parser or an interpreter down, or kept it busy for minutes.
DEEP = {
    "brackets": IMPORT + "x = " + "(" * 3_000 + "1" + ")" * 3_000 + "\n",
    "lists": IMPORT + "x = " + "[" * 100_000 + "\n",
    "blocks": IMPORT + "".join(f"{' ' * depth}if x:\n" for depth in range(99)) + " " * 99 + "pass\n",
    "too_many_blocks": IMPORT + "".join(f"{' ' * depth}if x:\n" for depth in range(300)) + " " * 300 + "pass\n",
    "attributes": IMPORT + "x = a" + ".b" * 20_000 + "\n",
    "sum": IMPORT + "x = " + "1 + " * 20_000 + "1\n",
    "minus": IMPORT + "x = " + "-" * 5_000 + "1\n",
    "lambdas": IMPORT + "f = " + "lambda: " * 3_000 + "1\n",
    "calls": GOOD + "    return session" + ".query(A)" * 3_000 + "\n",
    "arguments": GOOD + "    " + "f(" * 90 + "session" + ")" * 90 + "\n",
    "functions": GOOD
    + "".join(f"{' ' * depth}def f(session):\n" for depth in range(90))
    + " " * 90
    + "session.commit()\n",
    "callers": IMPORT
    + "".join(f"def f{n}(s: Session):\n    f{(n + 1) % 1_400}(s)\n    s.commit()\n" for n in range(1_400)),
    "withs": GOOD
    + "".join(f"{' ' * depth}with Session() as s:\n" for depth in range(4, 19))
    + " " * 19
    + "s.commit()\n",
    "tries": GOOD
    + "".join(f"{' ' * depth}try:\n" for depth in range(4, 19))
    + " " * 19
    + "session.commit()\n"
    + "".join(
        f"{' ' * depth}except ValueError:\n{' ' * depth} session.rollback()\n" for depth in reversed(range(4, 19))
    ),
}


def run(directory: Path, *arguments: str, cached: bool = False, **given: Any) -> subprocess.CompletedProcess[str]:
    """The command as a user starts it, in a directory."""
    environment = {**os.environ, "PYTHONPATH": str(Path(session_lint.__file__).parents[1])}
    command = [
        sys.executable,
        "-m",
        "session_lint",
        "check",
        "--isolated",
        *([] if cached else ["--no-cache"]),
        *arguments,
    ]
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False, timeout=60, **given
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """The findings of every file, from one run over all of them."""
    directory = tmp_path_factory.mktemp("repository")
    for name, (content, _) in CASES.items():
        (directory / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    done = run(directory, ".", "--ownership", "local", "--output-format", "json")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    document = json.loads(done.stdout)
    assert document["summary"]["files"] == len(CASES)
    assert document["summary"]["errors"] == sum(problem is not None for _, problem in CASES.values())
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in CASES}
    for finding in document["findings"]:
        found[finding["path"]].append(finding)
    return found


@pytest.mark.parametrize("name", CASES)
def test_each_file_gets_what_it_deserves(results: dict[str, list[dict[str, Any]]], name: str) -> None:
    content, problem = CASES[name]
    findings = results[name]
    if problem is None:
        holds_bug = b"commit()" in (content if isinstance(content, bytes) else content.encode())
        assert {finding["code"] for finding in findings} == ({"SES101"} if holds_bug else set())
        return
    [finding] = findings
    message, line, column = problem
    assert finding["code"] == "SES902"
    assert finding["message"].startswith(message)
    # Where the parsers of the Python versions disagree about the column, the line is what counts.
    assert finding["line"] == line
    if not message.startswith("is not valid Python"):
        assert finding["column"] == column


@pytest.mark.parametrize("name", DEEP)
def test_deep_nesting_and_long_chains_end_soon(tmp_path: Path, name: str) -> None:
    (tmp_path / "deep.py").write_text(DEEP[name])
    (tmp_path / "good.py").write_text(GOOD)
    done = run(tmp_path, ".", "--ownership", "local", "--output-format", "concise", "-q")
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert any(line.startswith("good.py:6:") and "SES101" in line for line in lines)
    for line in lines:
        assert "internal error" not in line
        if "SES902" in line:
            assert "nested" in line or "is not valid Python: " in line


def in_function(lines: str) -> str:
    body = textwrap.indent(lines, "    ")
    return f"{GOOD}\n\ndef long(session: Session, a):\n    session.add(a)\n{body}    session.commit()\n"


def elifs(number: int) -> str:
    return "if a == 0:\n    pass\n" + "".join(f"elif a == {n}:\n    session.add({n})\n" for n in range(number))


# In a function; and whether the function is judged.
LONG: dict[str, tuple[str, bool]] = {
    "elif 550": (elifs(550), True),
    "elif 1000": (elifs(1_000), False),
    "elif 2000": (elifs(2_000), False),
    "and 250": ("a = " + " and ".join(["a"] * 250) + "\n", True),
    "and 3000": ("a = " + " and ".join(["a"] * 3_000) + "\n", False),
    "or 20000": ("a = " + " or ".join(["a"] * 20_000) + "\n", False),
    "in an f-string": ('a = f"{' + " or ".join(["a"] * 3_000) + '}"\n', False),
}


@pytest.mark.parametrize("name", LONG)
def test_long_chains_cost_their_function_at_most(tmp_path: Path, name: str) -> None:
    lines, is_judged = LONG[name]
    (tmp_path / "long.py").write_text(in_function(lines))
    done = run(tmp_path, ".", "--ownership", "local", "--output-format", "concise", "-q")
    first, second = done.stdout.splitlines()
    assert first.startswith("long.py:6:5: SES101")
    if is_judged:
        assert second.startswith(f"long.py:{11 + lines.count(chr(10))}:5: SES101"), second
    else:
        message = "long is nested more than 300 levels deep; it is left out, and the rest of the file is judged"
        where, _, said = second.partition(": SES902 ")
        assert said == message
        assert int(where.split(":")[1]) >= 11


def test_one_bad_file_among_many_does_not_cost_the_others(tmp_path: Path) -> None:
    """Enough files that they are parsed by several processes."""
    for number in range(60):
        (tmp_path / f"good{number:02}.py").write_text(GOOD)
    (tmp_path / "bad.py").write_text(DEEP["brackets"])
    done = run(tmp_path, ".", "--ownership", "local", "--output-format", "json", "--jobs", "2")
    assert done.returncode == 1, done.stderr
    codes = [finding["code"] for finding in json.loads(done.stdout)["findings"]]
    assert codes.count("SES101") == 60
    assert codes.count("SES902") == 1


def test_messages_on_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(IMPORT + "def f(:\n")
    done = run(tmp_path, "broken.py")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == (
        "error[SES902] file-not-analysed: is not valid Python: invalid syntax\n"
        "  --> broken.py:2:7 (certain)\n"
        "   |\n"
        " 2 | def f(:\n"
        "   |       ^\n"
        "  = help: session-lint explain SES902\n"
        "\n"
        "1 finding (1 error) in 1 of 1 file; 1 file could not be analysed.\n"
    )


def test_a_template_of_a_file_is_no_error(tmp_path: Path) -> None:
    folder = tmp_path / "{{cookiecutter.name}}"
    folder.mkdir()
    (folder / "models.py").write_text("from {{ cookiecutter.name }} import Base\n")
    (folder / "valid.py").write_text(GOOD)
    done = run(tmp_path, ".", "--ownership", "local", "--output-format", "concise")
    assert done.returncode == 1
    assert [line.split(" ")[1] for line in done.stdout.splitlines() if ":" in line] == ["SES101"]
    everything = run(tmp_path, ".", "--min-confidence", "possible", "--output-format", "concise").stdout
    assert "models.py:1:6: SES902 is not valid Python" in everything


def test_paths_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(GOOD)
    done = run(tmp_path, "a.py", "nowhere", "--exit-zero")
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        "session-lint: error: no such file or directory: nowhere\n",
    )


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no /proc here")
def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "memory.py").symlink_to("/proc/self/mem")
    (tmp_path / "good.py").write_text(GOOD)
    done = run(tmp_path, "memory.py", "good.py", "--ownership", "local", "--output-format", "concise", "-q")
    assert done.returncode == 1
    assert "memory.py:1:1: SES902 cannot be read: Input/output error\n" in done.stdout
    assert "good.py:6:" in done.stdout


def test_nothing_to_lint(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("x")
    done = run(tmp_path, ".")
    assert (done.returncode, done.stdout) == (0, "No findings in 0 files.\n")
    assert done.stderr == "session-lint: warning: no Python files found in .\n"


def test_loops_of_links(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "good.py").write_text(GOOD)
    (tmp_path / "a" / "up").symlink_to("..")
    done = run(tmp_path, ".", "--ownership", "local", "--output-format", "concise", "-q")
    assert done.returncode == 1
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["a/good.py"]


def test_standard_input(tmp_path: Path) -> None:
    done = run(tmp_path, "-", "--ownership", "local", "--output-format", "concise", "-q", input=GOOD)
    assert done.returncode == 1
    assert done.stdout.startswith("stdin.py:6:")
    done = run(tmp_path, "-", "--stdin-filename", "app/x.py", "--output-format", "concise", "-q", input="def f(:\n")
    assert (done.returncode, done.stdout) == (1, "app/x.py:1:7: SES902 is not valid Python: invalid syntax\n")


def test_a_buffer_stands_for_a_file_that_is_not_written_yet(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("def f(:\n")
    done = run(tmp_path, "-", "--stdin-filename", "x.py", "--ownership", "local", "--output-format", "json", input=GOOD)
    assert [finding["code"] for finding in json.loads(done.stdout)["findings"]] == ["SES101"]


def test_a_very_long_file(tmp_path: Path) -> None:
    function = "def f{0}(session: Session) -> None:\n    session.add({0})\n    session.commit()\n\n\n"
    text = IMPORT + "\n\n" + "".join(function.format(number) for number in range(250)) + "x = 1\n" * 98_750
    (tmp_path / "long.py").write_text(text)
    done = run(tmp_path, "long.py", "--ownership", "local", "--output-format", "json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["summary"]["lines"]) == (1, 100_003)
    assert [finding["line"] for finding in document["findings"]] == [6 + 5 * number for number in range(250)]


@pytest.mark.skipif(os.name == "nt", reason="no named pipes")
def test_pipes(tmp_path: Path) -> None:
    """A named one may have nobody who writes to it; a shell's own has."""
    (tmp_path / "good.py").write_text(GOOD)
    os.mkfifo(tmp_path / "pipe.py")
    done = run(tmp_path, "pipe.py", "good.py", "--ownership", "local", "--output-format", "concise", "-q")
    first, second = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (1, "")
    assert first.startswith("good.py:6:")
    assert second == "pipe.py:1:1: SES902 cannot be read: it is a named pipe"
    done = run(tmp_path, ".", "--ownership", "local", "--output-format", "concise", "-q")
    assert (done.returncode, done.stdout) == (1, f"{first}\n")
    reader, writer = os.pipe()
    os.write(writer, GOOD.encode())
    os.close(writer)
    name = f"/dev/fd/{reader}"
    done = run(tmp_path, name, "--ownership", "local", "--output-format", "concise", "-q", pass_fds=[reader])
    os.close(reader)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == first.replace("good.py", name) + "\n"


# As root, permissions only bind who gives up the right to pass them over.
BOUND = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


def binds() -> bool:
    if os.name == "nt" or os.geteuid():
        return os.name != "nt"
    return shutil.which("setpriv") is not None and not subprocess.run([*BOUND, "true"], check=False).returncode


may_be_bound = pytest.mark.skipif(not binds(), reason="permissions don't bind this user")


@may_be_bound
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("check sub/x/a.py", "permission denied: sub/x/a.py"),
        ("check sub/x", "cannot read the directory sub/x: Permission denied"),
        ("check sub/x good.py", "cannot read the directory sub/x: Permission denied"),
        ("check sub/x/y", "permission denied: sub/x/y"),
        ("check --stdin-filename sub/x/a.py", None),
    ],
)
def test_named_paths_that_may_not_be_read(tmp_path: Path, words: str, message: str | None) -> None:
    (tmp_path / "good.py").write_text(GOOD)
    (tmp_path / "sub" / "x" / "y").mkdir(parents=True)
    (tmp_path / "sub" / "x" / "a.py").write_text(GOOD)
    (tmp_path / "sub" / "x").chmod(0)
    prefix = BOUND if os.geteuid() == 0 else []
    command = [*prefix, sys.executable, "-m", "session_lint", *words.split(), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(Path(session_lint.__file__).parents[1])}
    try:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, input="x = 1\n"
        )
    finally:
        (tmp_path / "sub" / "x").chmod(0o700)
    if message is None:
        assert (done.returncode, done.stderr) == (0, "")
    else:
        assert (done.returncode, done.stdout, done.stderr) == (2, "", f"session-lint: error: {message}\n")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions don't bind this user")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "secret.py").write_text(GOOD)
    (tmp_path / "secret.py").chmod(0)
    done = run(tmp_path, ".", "--output-format", "concise", "-q")
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "secret.py:1:1: SES902 cannot be read: Permission denied\n",
        "",
    )


# ---------------------------------------------------------------------------------------------- between files

JOB = """\
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from app import repository


def nightly() -> None:
    with Session(create_engine("postgresql://localhost/shop")) as session:
        repository.store(session)


def weekly() -> None:
    with Session(create_engine("postgresql://localhost/shop")) as session:
        session.add(object())
"""
STORE = "def store(session):\n    session.add(object())\n    session.flush()\n"
WEEKLY = "app/jobs.py:14:9: SES107 weekly writes with session and never commits"


def project(directory: Path, repository: str | bytes) -> None:
    (directory / "app").mkdir()
    (directory / "pyproject.toml").write_text('[project]\nname = "shop"\n')
    (directory / "app" / "jobs.py").write_text(JOB)
    (directory / "app" / "repository.py").write_bytes(
        repository if isinstance(repository, bytes) else repository.encode()
    )


# A module that others import, and what is said of it.
BROKEN: dict[str, tuple[str | bytes, str]] = {
    "no Python": (IMPORT + STORE.replace("):", ":"), "is not valid Python: '(' was never closed"),
    "no text": (IMPORT.encode() + b"# \xff\n" + STORE.encode(), "is not UTF-8 text: byte 0xff at offset 37"),
    "null bytes": (IMPORT + "\0" + STORE, "is not Python source: null byte at offset 35"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_module_costs_those_that_import_it_only_what_it_says(tmp_path: Path, name: str) -> None:
    text, problem = BROKEN[name]
    project(tmp_path, text)
    done = run(tmp_path, ".", "--output-format", "concise", "-q", "--verbose")
    first, second = done.stdout.splitlines()
    assert done.returncode == 1
    assert first.startswith(WEEKLY), "the rest is judged"
    assert re.fullmatch(rf"app/repository\.py:2:\d+: SES902 {re.escape(problem)}", second)
    assert done.stderr == (
        f"session-lint: settings: none; root: {tmp_path}\n"
        f"session-lint: app/jobs.py: imports app.repository, but app/repository.py {problem}\n"
    )
    done = run(tmp_path, "app/jobs.py", "--output-format", "concise", "-q", "--verbose")
    assert (done.returncode, done.stdout) == (1, f"{first}\n")
    assert done.stderr.splitlines()[1:] == [
        f"session-lint: app/jobs.py: imports app.repository, but app/repository.py {problem}",
        f"session-lint: app/repository.py: {problem}; judged without it",
    ]


def test_two_modules_of_one_name(tmp_path: Path) -> None:
    project(tmp_path, STORE)
    for top, text in (("one", STORE), ("two", STORE.replace("flush", "commit"))):
        (tmp_path / top / "lib").mkdir(parents=True)
        (tmp_path / top / "lib" / "repository.py").write_text(text)
    (tmp_path / "app" / "jobs.py").write_text(JOB.replace("from app", "from lib"))
    results = [run(tmp_path, path, "--output-format", "concise", "-q", "-v") for path in (".", "app/jobs.py", ".")]
    assert [done.stdout for done in results] == [results[0].stdout] * 3
    assert "app/jobs.py:9:9: SES107 nightly" in results[0].stdout, "as the first one says"
    assert results[0].stderr.partition("\n")[2] == (
        "session-lint: app/jobs.py: imports lib.repository, which may be one/lib/repository.py or "
        "two/lib/repository.py; the first is taken\n"
    )
    # The nearer one is meant, and there is nothing to say about it.
    (tmp_path / "two" / "jobs.py").write_text(JOB.replace("from app", "from lib"))
    done = run(tmp_path, "two/jobs.py", "--output-format", "concise", "-q", "-v")
    assert "nightly" not in done.stdout
    assert len(done.stderr.splitlines()) == 1


def test_imports_that_lead_nowhere(tmp_path: Path) -> None:
    imports = """
        from .missing import store
        from .gone import *
        from ...toofar import get_db
        from ..... import above
        from nowhere.at_all import *
        from fastapi.missing import x
        from sqlalchemy.orm import Session
        from . import jobs
        from .lists import names
        from shop import settings
        import app.jobs
    """
    project(tmp_path, textwrap.dedent(imports))
    (tmp_path / "app" / "lists.py").write_text("names = []\n")
    (tmp_path / "src" / "shop").mkdir(parents=True)
    (tmp_path / "src" / "shop" / "__init__.py").write_text("")
    (tmp_path / "src" / "shop" / "settings.py").write_text("")
    (tmp_path / "app" / "jobs.py").write_text(f"from shop.db import engine\nfrom shop import settings\n{JOB}")
    done = run(tmp_path, ".", "--output-format", "concise", "-q")
    assert (done.returncode, done.stderr) == (1, "")
    assert [line.partition(" weekly")[0] for line in done.stdout.splitlines()] == ["app/jobs.py:16:9: SES107"]
    for _ in range(2):  # also when nothing has changed
        done = run(tmp_path, ".", "--output-format", "concise", "-q", "-v", cached=True)
        assert done.stderr.splitlines()[1:] == [
            "session-lint: app/jobs.py: imports shop.db, which is no file of this project",
            "session-lint: app/repository.py: imports app.gone, which is no file of this project",
            "session-lint: app/repository.py: imports app.missing, which is no file of this project",
            "session-lint: app/repository.py: imports ...toofar, which is above the project's root",
            "session-lint: app/repository.py: imports ....., which is above the project's root",
        ], "nothing is said of what is not the project's"


def test_modules_that_are_named_like_pythons(tmp_path: Path) -> None:
    """`python -m` puts the working directory before Python's own modules; what lies there is read and never run."""
    for name in ("locale", "json", "signal", "tomllib", "tomli", "libcst", "rich"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this ran')\n")
    command = [sys.executable, "-m", "session_lint", "check", "--no-cache"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "No findings in 7 files.\n", "")


# ---------------------------------------------------------------------------------------------- wrong settings

WRONG: dict[str, tuple[str, str]] = {
    "an unknown code": ('select = ["SES-101"]', 'select: unknown rule "SES-101"; did you mean "SES101"?'),
    "an unknown key": ("selct = []", 'unknown key "selct"; did you mean "select"?'),
    "a wrong type": ("jobs = true", "jobs must be a whole number from 1, not true"),
    "no TOML": ("jobs = = 1", "is not valid TOML: Invalid value (at line 3, column 8)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_settings_are_one_line_and_nothing_is_linted(tmp_path: Path, name: str) -> None:
    table, message = WRONG[name]
    (tmp_path / "good.py").write_text(GOOD)
    (tmp_path / "pyproject.toml").write_text(f"# shop\n[tool.session-lint]\n{table}\n")
    command = [sys.executable, "-m", "session_lint", "check", "--exit-zero"]
    environment = {**os.environ, "PYTHONPATH": str(Path(session_lint.__file__).parents[1])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"session-lint: error: pyproject.toml: {message}\n"


def test_unknown_codes_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(GOOD)
    for option, code, message in [
        ("--select", "SES-101", 'unknown rule "SES-101"; did you mean "SES101"?'),
        ("--ignore", "E501", 'unknown rule "E501"'),
        ("--extend-select", "ses101", 'unknown rule "ses101"; did you mean "SES101"?'),
    ]:
        done = run(tmp_path, option, code)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"session-lint: error: {option}: {message}")
        assert done.stderr.count("\n") == 1
