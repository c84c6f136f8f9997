"""Comments that silence findings."""

from __future__ import annotations

import io
import random
import sysconfig
import tokenize
from pathlib import Path

import pytest

from session_lint.findings import Confidence, Finding, Severity, Span
from session_lint.source import comments, suppressions
from session_lint.source.suppressions import Applied, Suppressions, apply, may_hold, parse

NOTHING = "this comment silences nothing"
KNOWN = ("SES101", "SES102", "SES201", "SES901", "SES902")


def finding(code: str, line: int, *, end: int | None = None, statement: tuple[int, int] = (0, 0)) -> Finding:
    span = Span(line, 5, end or line, 10)
    return Finding(code, "x", "m", "a.py", span, "f", Severity.ERROR, Confidence.CERTAIN, statement=statement)


def applied(text: str, *findings: Finding, enabled: str = " ".join(KNOWN)) -> Applied:
    return apply(findings, parse(text), known=KNOWN, enabled=enabled.split().__contains__)


def silenced(comment: str, code: str = "SES101") -> bool:
    """Whether a comment behind a statement silences a finding in it."""
    result = applied(f"before()\ndb.commit()  {comment}\nafter()\n", finding(code, 2))
    assert result.suppressed == 1 - len(result.kept)
    # Only this line is meant, unless the comment is for the file.
    if "file" not in comment:
        others = applied(f"before()\ndb.commit()  {comment}\nafter()\n", finding(code, 1), finding(code, 3))
        assert len(others.kept) == 2
    return not result.kept


def messages(text: str, *findings: Finding, enabled: str = " ".join(KNOWN)) -> list[str]:
    return [entry.message for entry in applied(text, *findings, enabled=enabled).unused]


# ---------------------------------------------------------------------------------------------- forms


@pytest.mark.parametrize(
    "comment",
    [
        "# session-lint: ignore[SES101] the caller rolls back",
        "# session-lint: ignore[SES101]",
        "#session-lint:ignore[SES101]",
        "# session-lint: ignore [SES201 , ses101] why",
        "# session-lint: ignore",
        "# session-lint: ignore the caller rolls back",
        "# type: ignore # session-lint: ignore[SES101]",
        "# session-lint: ignore[SES102] # session-lint: ignore[SES101]",
        "# session-lint: ignore-file[SES101]",
        "# session-lint: ignore-file",
        "# noqa: SES101",
        "# noqa:SES101",
        "#noqa: SES101",
        "# NoQA: ses101",
        "# noqa: E501,SES101",
        "# noqa: E501 SES101 why",
        "# noqa: SES1",
        "# noqa",
        "# noqa : E501",
        "# pragma: no cover # noqa: SES101",
    ],
)
def test_forms_that_silence(comment: str) -> None:
    assert silenced(comment)


@pytest.mark.parametrize(
    "comment",
    [
        "# session-lint: ignore[SES102]",
        "# session-lint: ignore[SES1]",
        "# session-lint: ignore[]",
        "# session-lint: ignore[SES101",
        "# session-lint: ignore: SES101",
        "# session-lint: ignore=SES101",
        "# session-lint: ignore SES101",
        "# session-lint: ignroe[SES101]",
        "# session-lint: disable",
        "# session lint: ignore",
        "# see session-lint",
        "# noqa: E501",
        "# noqa: SES102",
        "# flake8: noqa",
        "# nosec",
        "'# noqa'",
        '"# session-lint: ignore"',
        "'''# noqa: SES101'''",
    ],
)
def test_forms_that_do_not_silence(comment: str) -> None:
    assert not silenced(comment)


@pytest.mark.parametrize(
    ("line", "codes"),
    [
        ("# session-lint: ignore-file[SES101] generated", {"SES101"}),
        ("# session-lint: ignore-file", {"SES101", "SES201"}),
        ("# flake8: noqa", {"SES101", "SES201"}),
        ("    # flake8: NOQA", {"SES101", "SES201"}),
        ("# flake8: noqa: E501, SES1", {"SES101"}),
        ("# flake8: noqa: E501", set()),
        ("x = 1  # flake8: noqa", set()),
        ("x = '# session-lint: ignore-file'", set()),
    ],
)
def test_whole_files(line: str, codes: set[str]) -> None:
    text = f"import a\n{line}\n{'x' * 3}\n" + "db.commit()\n" * 3
    kept = {left.code for left in applied(text, finding("SES101", 5), finding("SES201", 6)).kept}
    assert {"SES101", "SES201"} - kept == codes


def test_a_comment_counts_on_every_line_of_the_statement() -> None:
    text = "await db.execute(\n    insert(User),\n    rows,  # session-lint: ignore[SES101] why\n)\nother()\n"
    for line in (1, 2, 3, 4):
        assert not applied(text, finding("SES101", line, statement=(1, 4))).kept
    assert not applied(text, finding("SES101", 1, end=3)).kept
    assert applied(text, finding("SES101", 1)).kept
    assert applied(text, finding("SES101", 5, statement=(5, 5))).kept


def test_comments_in_strings_and_strings_in_comments() -> None:
    text = (
        'x = """\n# noqa\n"""  # session-lint: ignore[SES101] it\'s fine\n'
        "y = 'it\\'s # noqa'\n"
        "z = r'\\' # noqa'; w = 1\n"
        "u = 'unfinished # no string ends here\n"
        "v = 1  # noqa: SES101\n"
    )
    directives = parse(text).directives
    assert [(directive.line, directive.own) for directive in directives] == [(3, True), (7, False)]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_places_are_the_same_with_all_line_ends(end: str) -> None:
    text = end.join(["a = 1", "é = 2  # session-lint: ignore[SES102]", "\fb = 3  # noqa: SES201,E501", ""])
    first, second = parse(text).directives
    assert (first.line, first.column, first.end_column) == (2, 8, 38)
    assert (second.line, second.column, second.end_column) == (3, 9, 28)
    assert [(code.text, code.column, code.end_column) for code in (*first.codes, *second.codes)] == [
        ("SES102", 31, 37),
        ("SES201", 17, 23),
        ("E501", 24, 28),
    ]


def test_what_is_no_python_does_no_harm() -> None:
    random.seed(7)
    pieces = ["#", " noqa", "session-lint: ignore[", "SES101", "]", '"', "'", '"""', "\\", "\n", "\r", "f{", "é", "\0"]
    for _ in range(2000):
        text = "".join(random.choices(pieces, k=random.randrange(30)))
        assert isinstance(apply([finding("SES101", 1)], parse(text), known=KNOWN), Applied)


def test_long_strings_take_linear_time() -> None:
    text = "x = '" + "\\'a\"" * 200_000 + "'  # noqa: SES101\n" + 'y = """' + "\"'\\x" * 200_000 + '"""\n' + "# noqa\n"
    assert len(parse(text).directives) == 2


def test_the_same_comments_as_python_finds_in_its_own_library() -> None:
    library = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(library.glob("*.py")) + sorted(library.glob("asyncio/*.py")) + sorted(library.glob("email/*.py"))
    for path in files:
        text = path.read_text(encoding="utf-8", errors="replace")
        ours = [match.group() for match in comments.TOKEN.finditer(text) if match.lastgroup == "comment"]
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        assert ours == [token.string for token in tokens if token.type == tokenize.COMMENT], path.name


def test_files_without_such_comments_are_passed_over_quickly() -> None:
    assert parse("x = 1  # an ordinary comment\n") is suppressions.NONE
    assert not may_hold(b"x = 1  # an ordinary comment")
    for comment in (b"# noqa", b"# NOQA", b"# NoQA", b"# session-lint: ignore", b"# flake8: noqa"):
        assert may_hold(comment)


def test_they_can_be_cached() -> None:
    own = "a  # session-lint: ignore[SES101,SES102] x\n# session-lint: ignore-file[SES201]\nc # session-lint: no\n"
    text = f"{own}b  # noqa\n"
    parsed = parse(text)
    plain = parsed.to_plain()
    assert type(plain) is tuple
    assert all(type(row) is tuple and all(type(code) is tuple for code in row[5]) for row in plain)
    assert Suppressions.from_plain(plain).directives == parsed.directives
    assert parsed.noqa_codes == 0
    assert parse("a  # noqa: SES101\nb  # noqa: E501\nc  # noqa\nd  # noqa: E1,SES2\n").noqa_codes == 2


# ---------------------------------------------------------------------------------------------- unused ones


def test_unused_codes_are_named_one_by_one() -> None:
    result = applied("a()  # session-lint: ignore[SES101, SES102] why\n", finding("SES102", 1))
    [unused] = result.unused
    assert tuple(unused) == (1, 29, 35, "SES101", "unused suppression: SES101 is not reported here")
    reported = unused.finding("a.py")
    assert (reported.code, reported.name, reported.path) == ("SES901", "unused-suppression", "a.py")
    assert (reported.span, reported.severity, reported.confidence) == (
        Span(1, 29, 1, 35),
        Severity.WARNING,
        Confidence.CERTAIN,
    )


@pytest.mark.parametrize(
    ("comment", "message"),
    [
        ("# session-lint: ignore", "unused suppression: nothing is reported here"),
        ("# session-lint: ignore-file", "unused suppression: nothing is reported in this file"),
        ("# session-lint: ignore-file[SES101]", "unused suppression: SES101 is not reported in this file"),
        ("# noqa: SES101", "unused suppression: SES101 is not reported here"),
        ("# noqa: E501,SES1", "unused suppression: SES1 is not reported here"),
        ("# session-lint: ignore[SES110]", 'unknown rule "SES110" in this suppression; did you mean "SES1'),
        (
            "# session-lint: ignore[session-never-closed]",
            'unknown rule "session-never-closed" in this suppression; did you mean "SES201"?',
        ),
        ("# session-lint: ignore[E501]", 'unknown rule "E501" in this suppression'),
        ("# noqa: SES777", 'unknown rule "SES777" in this suppression; did you mean'),
        ("# session-lint: ignore[SES2]", '"SES2" is not a whole code, so it silences nothing; name the rules, such as'),
        ("# session-lint: ignore[]", f"{NOTHING}: the brackets hold no code"),
        ("# session-lint: ignore[SES101", f"{NOTHING}: the bracket is not closed"),
        ("# session-lint: ignore SES101", f'{NOTHING}: codes stand in brackets: "session-lint: ignore[SES101] why"'),
        ("# session-lint: ignroe", f'{NOTHING}: "ignroe" means nothing; did you mean "session-lint: ignore[CODE]'),
    ],
)  # fmt: skip
def test_what_is_said_of_comments_that_silence_nothing(comment: str, message: str) -> None:
    [said] = messages(f"a()  {comment}\n")
    assert said.startswith(message)


@pytest.mark.parametrize("comment", ["# noqa", "# noqa: E501", "# flake8: noqa", "# noqa : x"])
def test_what_may_be_for_other_tools_is_never_unused(comment: str) -> None:
    assert messages(f"{comment}\n") == []


def test_the_comment_for_a_rule_that_does_not_run_is_not_unused() -> None:
    assert messages("a()  # session-lint: ignore[SES101]\n", enabled="SES102") == []
    assert messages("a()  # noqa: SES101\n", enabled="SES102") == []
    assert messages("a()  # noqa: SES1\n", enabled="SES101") == []
    assert messages("a()  # session-lint: ignore\n", enabled="SES101") == []
    assert len(messages("a()  # noqa: SES1\n", enabled="SES101 SES102")) == 1


def test_an_unused_suppression_can_be_silenced_but_not_by_itself() -> None:
    assert messages("a()  # session-lint: ignore[SES101, SES901] kept for other platforms\n") == []
    assert messages("# flake8: noqa\na()  # session-lint: ignore[SES101]\n") == []
    assert messages("# session-lint: ignore-file[SES901]\na()  # session-lint: ignore[SES101]\n") == []
    assert len(messages("a()  # session-lint: ignore\n")) == 1
    assert messages("a()  # session-lint: ignore[SES901]\n") == []


def test_two_comments_for_one_finding_are_both_used() -> None:
    result = applied("a()  # session-lint: ignore[SES101] # noqa: SES101\n", finding("SES101", 1))
    assert (result.kept, result.suppressed, result.unused) == ([], 1, [])


def test_the_registry_is_asked_for_the_codes_if_they_are_not_given() -> None:
    result = apply([], parse("a()  # noqa: SES902\nb()  # session-lint: ignore[SES999]\n"))
    assert [unused.code for unused in result.unused] == ["SES902", "SES999"]
    assert result.unused[1].message.startswith('unknown rule "SES999"')
