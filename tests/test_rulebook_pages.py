"""The rule book as the program reads and prints it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from session_lint.findings import Severity
from session_lint.rulebook import (
    RuleBookError,
    UnknownRule,
    explanation,
    load_page,
    load_pages,
    read_page,
    rules_table,
)

FRONT = {
    "code": '"SES101"',
    "name": '"commit-without-rollback"',
    "family": '"transactions"',
    "summary": '"A commit may fail."',
    "severity": '"error"',
    "since": '"0.1.0"',
    "preview": "false",
    "fix": "true",
    "proof": '"The session is dead."',
}


def write(
    directory: Path,
    file_name: str = "SES101-commit-without-rollback.md",
    changes: Mapping[str, str | None] = FRONT,
    body: str = "# SES101\n\nText.\n",
) -> Path:
    """A page; changes: TOML values of the front matter, None to leave a key out."""
    front = {key: value for key, value in {**FRONT, **changes}.items() if value is not None}
    path = directory / file_name
    lines = "".join(f"{key} = {value}\n" for key, value in front.items())
    path.write_text(f"+++\n{lines}+++\n\n{body}", encoding="utf-8")
    return path


def test_a_page() -> None:
    page = load_page("SES101")
    assert (page.code, page.name, page.severity) == ("SES101", "commit-without-rollback", Severity.ERROR)
    assert page.body.startswith("# SES101: commit-without-rollback\n\n## What it does\n")
    assert page.url == "https://github.com/session-lint/session-lint/blob/main/rules/SES101-commit-without-rollback.md"


@pytest.mark.parametrize("rule", ["SES101", "ses101", " SES101 ", "commit-without-rollback", "Commit-Without-Rollback"])
def test_a_page_is_found_by_code_or_name(rule: str) -> None:
    assert load_page(rule).code == "SES101"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("SES1O1", "no such rule: SES1O1; did you mean SES101?"),
        ("commit-without-rolback", "no such rule: commit-without-rolback; did you mean commit-without-rollback?"),
        ("zzz", "no such rule: zzz"),
    ],
)
def test_an_unknown_rule(rule: str, message: str) -> None:
    with pytest.raises(UnknownRule) as caught:
        load_page(rule)
    assert str(caught.value) == message


def test_pages_come_in_the_order_of_codes(tmp_path: Path) -> None:
    write(tmp_path, "SES1-b.md", {"code": '"SES202"'})
    write(tmp_path, "SES2-a.md")
    assert list(load_pages(tmp_path)) == ["SES101", "SES202"]


def test_two_pages_with_one_code(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, "SES102-other.md")
    with pytest.raises(RuleBookError, match=r"SES102-other\.md: SES101 is also the code of SES101-commit"):
        load_pages(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"proof": None}, "front matter: proof is missing"),
        ({"summary": '""'}, "front matter: summary must be a text"),
        ({"since": "0.1"}, "front matter: since must be a text"),
        ({"fix": '"no"'}, "front matter: fix must be a true or false"),
        ({"severity": '"fatal"'}, "front matter: severity must be one of error, warning, info"),
        ({"author": '"me"'}, "front matter: unknown key author"),
        ({"code": "SES101"}, "front matter: "),
    ],
)
def test_wrong_front_matter(tmp_path: Path, changes: dict[str, str | None], message: str) -> None:
    path = write(tmp_path, changes=changes)
    with pytest.raises(RuleBookError) as caught:
        read_page(path)
    assert str(caught.value).startswith(f"{path.name}: {message}")


@pytest.mark.parametrize("text", ["# SES101\n", "+++\ncode = 1\n", ""])
def test_no_front_matter(tmp_path: Path, text: str) -> None:
    path = tmp_path / "SES101-x.md"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RuleBookError, match=r"must begin with TOML between two \+\+\+ lines"):
        read_page(path)


def test_an_unreadable_page(tmp_path: Path) -> None:
    path = tmp_path / "SES101-x.md"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RuleBookError, match=r"^SES101-x\.md: "):
        read_page(path)
    with pytest.raises(RuleBookError, match=r"^SES102-x\.md: "):
        read_page(tmp_path / "SES102-x.md")


def test_the_explanation_begins_with_what_one_asks_first(tmp_path: Path) -> None:
    body = "# SES101: commit-without-rollback\n\n## What it does\n\n<!-- not run: nobody reads this -->\n\nText.\n"
    page = read_page(write(tmp_path, body=body))
    assert explanation(page) == (
        "# SES101: commit-without-rollback\n\n"
        "transactions · error · on by default · since 0.1.0 · fixable\n\n"
        "## What it does\n\nText.\n\n"
        "https://github.com/session-lint/session-lint/blob/main/rules/SES101-commit-without-rollback.md\n"
    )


def test_the_table_of_rules(tmp_path: Path) -> None:
    write(tmp_path)
    changes = {"code": '"SES204"', "name": '"loop"', "severity": '"warning"', "preview": "true", "summary": '"A loop."'}
    write(tmp_path, "SES204-loop.md", changes)
    pages = load_pages(tmp_path)
    assert rules_table("text", pages) == (
        "SES101  commit-without-rollback  error             A commit may fail.\n"
        "SES204  loop                     warning, preview  A loop.\n"
    )
    assert rules_table("markdown", pages) == (
        "| code | name | severity | what it finds |\n"
        "|---|---|---|---|\n"
        "| [SES101](rules/SES101-commit-without-rollback.md) | commit-without-rollback | error | A commit may fail. |\n"
        "| [SES204](rules/SES204-loop.md) | loop | warning, preview | A loop. |\n"
    )
    assert json.loads(rules_table("json", pages))[0] == {
        "code": "SES101",
        "name": "commit-without-rollback",
        "family": "transactions",
        "summary": "A commit may fail.",
        "severity": "error",
        "since": "0.1.0",
        "preview": False,
        "fix": True,
        "proof": "The session is dead.",
        "url": "https://github.com/session-lint/session-lint/blob/main/rules/SES101-commit-without-rollback.md",
    }


def test_an_unknown_format() -> None:
    with pytest.raises(ValueError, match="unknown format: yaml"):
        rules_table("yaml", {})


def test_reading_the_rule_book_needs_no_parser() -> None:
    """`session-lint explain` must answer at once."""
    code = (
        "import sys, session_lint.rulebook as b; b.load_pages(); print(*[n in sys.modules for n in ('libcst', 'rich')])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False"]
