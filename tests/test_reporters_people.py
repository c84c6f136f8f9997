"""The formats for people: text and concise, their summary and statistics."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from reports import COMMIT, HOSTILE, YIELD, full_report

from session_lint.findings import Affected, Confidence, Report, Span, Step
from session_lint.reporters import FORMATS, render
from session_lint.reporters.context import Context
from session_lint.reporters.summary import statistics, summary


def test_text_shows_source_trail_and_what_is_exposed() -> None:
    assert (
        render("text", full_report(), Context())
        == """\
info[SES902] file-not-analysed: is not valid Python: invalid syntax
  --> app/broken.py:7:3 (certain)
  = help: session-lint explain SES902

warning[SES202] yield-without-finally: if the code that uses this session raises, it is never closed
  --> app/db.py:3:2 in get_db (likely)
   |
 3 |     yield session
   |     ^^^^^^^^^^^^^
  = exposes update at app/routes.py:2:1: its commit may fail
  = exposes Threads.remove at app/routes.py:12:1: its commit may fail
  = help: session-lint explain SES202

error[SES101] commit-without-rollback: if commit() fails, update lets the exception out without rolling back
   --> app/routes.py:5:5 in update (certain)
    |
  5 |     await db.commit()
    |     ^^^^^^^^^^^^^^^^^
 1. app/db.py:2:12 the session is opened here
    |     session = Session()
 2. app/routes.py:4:5 written here
    |     thread.title = title
 3. app/routes.py:5:11 commit() may raise here
   = help: session-lint explain SES101

3 findings (1 error, 1 warning, 1 info) in 3 of 40 files; 1 file could not be analysed; 2 possible findings not shown; \
--min-confidence possible shows them; 3 suppressed; 1 mitigated (--show-mitigated lists them).
"""
    )


def test_concise_has_one_line_per_finding() -> None:
    lines = render("concise", full_report(), Context()).splitlines()
    assert lines[:-1] == [
        "app/broken.py:7:3: SES902 is not valid Python: invalid syntax",
        "app/db.py:3:2: SES202 if the code that uses this session raises, it is never closed (likely)",
        "app/routes.py:5:5: SES101 if commit() fails, update lets the exception out without rolling back",
    ]
    assert lines[-1].startswith("3 findings (1 error, 1 warning, 1 info) in 3 of 40 files; ")


def test_mitigated_ones_are_shown_on_wish_and_marked() -> None:
    report = full_report()
    assert "mitigated," not in render("text", report, Context())
    text = render("text", report, Context(show_mitigated=True))
    assert "--> app/routes.py:3:20 in update (mitigated, certain)\n" in text
    concise = render("concise", report, Context(show_mitigated=True))
    assert (
        "app/routes.py:3:20: SES101 if commit() fails, update lets the exception out without rolling back [mitigated]\n"
        in concise
    )


def test_colours_only_on_wish_and_they_change_nothing_else() -> None:
    report = full_report()
    plain = render("text", report, Context())
    colored = render("text", report, Context(color=True))
    assert "\x1b" not in plain
    assert "\x1b[1;31merror[SES101]\x1b[0m" in colored
    assert "\x1b[1;33mwarning[SES202]\x1b[0m" in colored
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == plain
    assert "\x1b" not in render("concise", report, Context(color=True))


def test_nothing_in_the_sources_reaches_the_terminal_as_a_command() -> None:
    report = Report(findings=[HOSTILE], sources={HOSTILE.path: ["", "", "", "", "\x1b]0;x\x07 db\u202e.commit()\x9b"]})
    for output_format in ("text", "concise"):
        text = render(output_format, report, Context())
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800]", text)
    assert "\\x1b]0;x\\x07 db\\u202e.commit()\\x9b" in render("text", report, Context())
    assert "50% of «a», b: c\\x0d\\x0a\\x1b[31m<d>" in render("concise", report, Context())
    assert len(render("concise", report, Context(summary=False)).splitlines()) == 1


def excerpt(line: str, start: int, end: int, *, end_line: int = 1) -> list[str]:
    """The source line and the line of carets."""
    finding = replace(YIELD, path="a.py", span=Span(1, start, end_line, end), affects=())
    report = Report(findings=[finding], sources={"a.py": [line]})
    return render("text", report, Context()).splitlines()[3:5]


@pytest.mark.parametrize(
    ("line", "start", "end", "shown", "carets"),
    [
        ("db.commit()", 1, 12, "db.commit()", "^^^^^^^^^^^"),
        ("\tdb.commit()", 2, 13, "    db.commit()", "    ^^^^^^^^^^^"),
        ("x; db.commit()", 4, 6, "x; db.commit()", "   ^^"),
        ("名前 = db.commit()", 6, 15, "名前 = db.commit()", "       ^^^^^^^^^"),
        ("é = e\u0301(db)", 5, 11, "é = e\u0301(db)", "    ^^^^^"),
        ("db", 1, 1, "db", "^"),
        ("db", 9, 12, "db", "  ^"),
        ("db  ", 1, 99, "db", "^^^^"),
    ],
)
def test_the_carets_stand_under_the_code(line: str, start: int, end: int, shown: str, carets: str) -> None:
    assert excerpt(line, start, end) == [f" 1 | {shown}", f"   | {carets}"]


def test_of_several_lines_the_first_is_shown() -> None:
    assert excerpt("with Session() as s:", 6, 3, end_line=4) == [
        " 1 | with Session() as s:",
        "   |      ^^^^^^^^^^^^^^^ ...",
    ]


def test_very_long_lines_are_cut_around_the_code() -> None:
    line, carets = excerpt("x = [" + "1, " * 500 + "db.commit()" + ", 1" * 500 + "]", 1506, 1517)
    assert len(line) < 200
    at = carets.index("^")
    assert line[at : at + 11] == "db.commit()"
    assert line[5:8] == "..."
    assert line.endswith("...")


def test_source_that_is_not_in_the_report_is_read_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/db.py").write_bytes(b"# coding: latin-1\n\nsession = '\xe9'\n")
    finding = replace(YIELD, affects=(), trail=(Step("app/db.py", 1, 1, "a"), Step("none.py", 1, 1, "b")))
    text = render("text", Report(findings=[finding]), Context(working_directory=tmp_path))
    assert "  3 | session = 'é'\n" in text
    assert " 1. app/db.py:1:1 a\n    | # coding: latin-1\n 2. none.py:1:1 b\n   = help" in text


def test_a_long_list_of_exposed_functions_is_cut() -> None:
    many = tuple(Affected("a.py", number, 1, f"f{number}", "") for number in range(1, 15))
    text = render("text", Report(findings=[replace(YIELD, affects=many)]), Context())
    assert "exposes f10 at a.py:10:1\n" in text
    assert "f11" not in text
    assert "= exposes 4 more (--output-format json lists them)\n" in text


# ---------------------------------------------------------------------------------------------- summary, statistics


@pytest.mark.parametrize(
    ("report", "line"),
    [
        (Report(), "No findings in 0 files."),
        (Report(files=1), "No findings in 1 file."),
        (Report(findings=[COMMIT], files=1), "1 finding (1 error) in 1 of 1 file."),
        (Report(findings=[COMMIT, COMMIT], files=9), "2 findings (2 errors) in 1 of 9 files."),
        (
            Report(files=2, held_back=[replace(COMMIT, confidence=Confidence.POSSIBLE)]),
            "No findings in 2 files; 1 possible finding not shown; --min-confidence possible shows them.",
        ),
        (
            Report(files=2, held_back=[YIELD, YIELD, replace(COMMIT, confidence=Confidence.POSSIBLE)]),
            "No findings in 2 files; 2 likely and 1 possible findings not shown; --min-confidence possible shows them.",
        ),
        (
            Report(files=2, held_back=[YIELD]),
            "No findings in 2 files; 1 likely finding not shown; --min-confidence likely shows them.",
        ),
        (Report(files=2, suppressed=1), "No findings in 2 files; 1 suppressed."),
        (Report(files=2, errors=2), "No findings in 2 files; 2 files could not be analysed."),
    ],
)
def test_the_summary_says_what_is_shown_and_what_is_not(report: Report, line: str) -> None:
    assert summary(report) == line
    for output_format in ("text", "concise"):
        assert render(output_format, report, Context()).endswith(f"{line}\n")
        assert line not in render(output_format, report, Context(summary=False))


def test_statistics_count_per_rule() -> None:
    report = Report(findings=[COMMIT] * 11 + [YIELD] * 2 + [replace(COMMIT, code="SES102", name="other")] * 2)
    table = "11  SES101  commit-without-rollback\n 2  SES102  other\n 2  SES202  yield-without-finally\n"
    assert statistics(report) == table
    assert table in render("text", report, Context(statistics=True))
    assert table in render("concise", report, Context(statistics=True))
    assert table not in render("text", report, Context())
    assert statistics(Report()) == ""


def test_a_format_that_does_not_exist() -> None:
    assert "xml" not in FORMATS
    with pytest.raises(ValueError, match="unknown output format: xml"):
        render("xml", Report(), Context())
