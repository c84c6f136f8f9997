"""The Markdown cases themselves: what is read, what is refused, and what a failure says."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from book import DEFAULTS, BookError, Case, Mark, read
from collecting import page_cases, parameters, read_cases, verify

CODES = ("SES101", "SES104", "SES201", "SES902")

COMMIT = """\
from sqlalchemy.orm import Session


def save(session: Session) -> None:
    session.add(object())
    session.commit(){mark}
"""

LEAK = """\
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.engine import engine


def ready() -> bool:
    session = Session(engine){mark}
    return session.scalar(text("select 1")) == 1
"""


def cases(tmp_path: Path, text: str) -> list[Case]:
    path = tmp_path / "cases.md"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return read(path, CODES)


def block(code: str, language: str = "python") -> str:
    return f"```{language}\n{code.rstrip()}\n```\n"


# ---------------------------------------------------------------------------------------------------- what is read


def test_every_unnamed_block_is_a_case_of_its_own(tmp_path: Path) -> None:
    found = cases(
        tmp_path,
        "# Title\n\n## One\n\n" + block("a = 1\n") + "\n" + block("b = 2\n") + "\n## Two\n\n" + block("c = 3\n"),
    )
    assert [(case.title, [source.name for source in case.sources]) for case in found] == [
        ("Title > One", ["example.py"]),
        ("Title > One (2)", ["example.py"]),
        ("Title > Two", ["example.py"]),
    ]
    assert [case.sources[0].text for case in found] == ["a = 1\n", "b = 2\n", "c = 3\n"]


def test_named_blocks_under_one_heading_are_one_project(tmp_path: Path) -> None:
    settings = "`pyproject.toml`:\n\n" + block('[project]\nname = "x"\n', "toml")
    last = f"`app/b.py`:\n{block('b = 2')}\n{block('c = 3')}"
    found = cases(tmp_path, f"# Title\n\n`app/db.py`:\n\n{block('a = 1')}\nText.\n\n{settings}\n{last}")
    assert [[source.name for source in case.sources] for case in found] == [
        ["app/db.py", "pyproject.toml", "app/b.py"],
        ["example.py"],
    ]
    assert found[0].settings == DEFAULTS


def test_marks(tmp_path: Path) -> None:
    code = (
        "a = 1  # error: [SES101]\n"
        "b = 2\n"
        'c = 3  # a comment  # error: [SES101, SES201] "owned by"\n'
        "d = 4  # possible: [SES104]\n"
    )
    (case,) = cases(tmp_path, "# Title\n" + block(code))
    assert case.marks == [
        Mark(1, "error", ("SES101",), None),
        Mark(3, "error", ("SES101", "SES201"), "owned by"),
        Mark(4, "possible", ("SES104",), None),
    ]
    assert case.place == "cases.md:2"


def test_settings_count_for_a_heading_and_those_below(tmp_path: Path) -> None:
    found = cases(
        tmp_path,
        "# T\n" + block("a = 1\n") + "## A\n" + block('ownership = "local"\n', "toml") + block("a = 1\n")
        + "### Below\n" + block('select = ["SES1"]\n', "toml") + block("a = 1\n") + "## B\n" + block("a = 1\n"),
    )  # fmt: skip
    assert [(case.headings[-1], case.settings["ownership"], case.settings["select"]) for case in found] == [
        ("T", "project", ["ALL"]),
        ("A", "local", ["ALL"]),
        ("Below", "local", ["SES1"]),
        ("B", "project", ["ALL"]),
    ]


def test_a_known_failure_counts_for_a_heading_and_those_below(tmp_path: Path) -> None:
    found = cases(
        tmp_path,
        "# T\n## A\n<!-- known: needs the project -->\n"
        + block("a = 1\n")
        + "### B\n"
        + block("a = 1\n")
        + "## C\n"
        + block("a = 1\n"),
    )
    assert [case.known for case in found] == ["needs the project", "needs the project", None]


def test_a_scenario_is_recognised(tmp_path: Path) -> None:
    found = cases(
        tmp_path,
        "# T\n" + block("def scenario(world):\n    pass\n") + block("async def scenario(world):\n    pass\n")
        + block("def other():\n    scenario(1)\n"),
    )  # fmt: skip
    assert [case.has_scenario for case in found] == [True, True, False]


def test_remarks_on_runs_count_for_their_own_heading_only(tmp_path: Path) -> None:
    found = cases(
        tmp_path,
        "# T\n## A\n<!-- not run: it needs a bot -->\n" + block("a = 1\n") + "### B\n"
        "<!-- shows: dead session, partial commit -->\n" + block("b = 1\n"),
    )  # fmt: skip
    assert [case.not_run for case in found] == ["it needs a bot", ""]
    assert [case.shows for case in found] == [(), ("dead session", "partial commit")]


def test_front_matter_and_headings_in_code_are_no_headings(tmp_path: Path) -> None:
    found = cases(
        tmp_path,
        '+++\n# not = "a heading"\n+++\n\n# T\n\n' + block("# Not a heading\na = 1\n") + "\n```text\n# neither\n```\n",
    )
    assert [(case.headings, case.sources[0].at) for case in found] == [(("T",), 7)]


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```python\na = 1\n```\n", "cases.md:1: a block must stand under a heading"),
        ("# T\n```python\na = 1\n", "cases.md:2: the code block does not end"),
        ("# T\n```python app/db.py\na = 1\n```\n", "cases.md:2: a block says its language only, at the line's start"),
        ("# T\n  ```python\n  a = 1\n  ```\n", "cases.md:2: a block says its language only, at the line's start"),
        ("# T\n```python\nif:\n```\n", "cases.md:3: the block is not Python"),
        ("# T\n```python\na = 1  # error: [SES999]\n```\n", "cases.md:3: no such rule: SES999"),
        ("# T\n```python\na = 1  # error: []\n```\n", "cases.md:3: no such rule: nothing"),
        ("# T\n```python\na = 1  # error: SES101\n```\n", "cases.md:3: a mark looks like # error: [SES101]"),
        ("# T\n```python\na = 1  # error: [SES101] why\n```\n", "cases.md:3: a mark looks like # error: [SES101]"),
        ("# T\n```toml\nownership = local\n```\n", "cases.md:2: settings: "),
        ("# T\n`a.py`:\n```python\na = 1\n```\n`a.py`:\n```python\n```\n", "cases.md:7: two blocks named a.py"),
        ("# T\n`../a.py`:\n```python\na = 1\n```\n", "cases.md:3: the file name ../a.py leads out of the project"),
        ("# T\n`a.py`:\n\nText.\n", "cases.md:4: no code block follows the file name a.py"),
        ("# T\n`a.py`:\n\n## B\n", "cases.md:4: no code block follows the file name a.py"),
        ("# T\n## A\n## A\n", "cases.md:3: two headings with the same name: A"),
        ("+++\n# T\n", "cases.md:1: the front matter does not end"),
    ],
)  # fmt: skip
def test_misuse(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BookError) as caught:
        cases(tmp_path, text)
    assert str(caught.value).startswith(message)


def test_only_what_can_not_be_analysed_may_be_broken(tmp_path: Path) -> None:
    (case,) = cases(tmp_path, "# T\n" + block("if:  # error: [SES902]\n"))
    assert case.marks == [Mark(1, "error", ("SES902",), None)]


def page(tmp_path: Path, *sections: tuple[str, str]) -> Path:
    path = tmp_path / "SES201-session-never-closed.md"
    body = "".join(f"## {heading}\n\n{block(code)}\n" for heading, code in sections)
    path.write_text(f"# SES201: session-never-closed\n\n{body}", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ([("Example", "a = 1\n")], "an example must mark what is reported"),
        ([("Example", "a = 1  # error: [SES101]\n")], "no example is marked with SES201"),
        (
            [("Example", "a = 1  # error: [SES201]\n"), ("Use instead", "a = 1  # error: [SES101]\n")],
            "no mark may stand in Use instead",
        ),
        (
            [("Example", "a = 1  # error: [SES201]\n"), ("When it is fine", "a = 1  # error: [SES201]\n")],
            "no mark may stand in When it is fine",
        ),
        ([("Example", "a = 1  # error: [SES201]\n"), ("References", "a = 1\n")], "code stands only in Example"),
        ([], "no code block"),
    ],
)
def test_misuse_of_a_page(tmp_path: Path, sections: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(BookError, match=message):
        page_cases(page(tmp_path, *sections))


def test_a_misused_file_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = tmp_path / "bad.md", tmp_path / "good.md"
    bad.write_text("# T\n", encoding="utf-8")
    good.write_text("# T\n" + block("a = 1\n"), encoding="utf-8")
    first, second = parameters([bad, good], read_cases)
    assert (first.id, second.id) == ("bad", "good: T")  # type: ignore[attr-defined]
    with pytest.raises(BookError, match=r"bad\.md: no code block"):
        verify(first.values[0], tmp_path, monkeypatch)  # type: ignore[attr-defined]


# --------------------------------------------------------------------------------------- what a failing case says


def failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> str:
    """The text with which a case fails; empty if it passes."""
    (case,) = cases(tmp_path, text)
    root = tmp_path / "project"
    root.mkdir()
    try:
        verify(case, root, monkeypatch)
    except pytest.fail.Exception as error:
        return str(error)
    return ""


def test_a_case_that_is_as_marked_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marked = LEAK.format(mark='  # error: [SES201] "never closed"')
    assert failure(tmp_path, monkeypatch, "# T\n" + block(marked)) == ""


def test_a_finding_without_a_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = failure(tmp_path, monkeypatch, "# T\n\n`app/a.py`:\n\n" + block(LEAK.format(mark="")))
    lines = text.splitlines()
    assert lines[:4] == [
        "cases.md:5: T",
        "  cases.md:13: app/a.py:8",
        "    code      session = Session(engine)",
        "    expected  nothing",
    ]
    assert lines[4].startswith("    got       SES201 (certain): ")


def test_a_mark_without_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = failure(tmp_path, monkeypatch, "# T\n" + block("a = 1\n\nb = 2  # error: [SES201, SES101]\n"))
    assert text.splitlines() == [
        "cases.md:2: T",
        "  cases.md:5: example.py:3",
        "    code      b = 2  # error: [SES201, SES101]",
        "    expected  SES101, SES201",
        "    got       nothing",
    ]


def test_a_message_without_the_text_of_its_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marked = LEAK.format(mark='  # error: [SES201] "no such words"')
    text = failure(tmp_path, monkeypatch, "# T\n" + block(marked))
    assert '    expected  a message with "no such words"\n    got       SES201' in text


def test_what_is_held_back_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert failure(tmp_path, monkeypatch, "# T\n" + block(COMMIT.format(mark="  # possible: [SES101]"))) == ""
    (tmp_path / "project").rename(tmp_path / "first")
    text = failure(tmp_path, monkeypatch, "# T\n" + block(COMMIT.format(mark="  # error: [SES101]")))
    assert "    expected  SES101\n    got       nothing\n    held back SES101 (possible): " in text
    (tmp_path / "project").rename(tmp_path / "second")
    text = failure(tmp_path, monkeypatch, "# T\n" + block("a = 1  # possible: [SES101]\n"))
    assert "    expected  SES101, held back\n" in text


def test_the_settings_of_a_case_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = block('ignore = ["SES201"]\nper-file-ignores = { "x.py" = ["SES1"] }\n', "toml")
    assert failure(tmp_path, monkeypatch, "# T\n" + settings + block(LEAK.format(mark=""))) == ""
