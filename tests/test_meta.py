"""What must agree with what: the checks, the rule book, the README's table and the changelog."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from collecting import EXAMPLE, FINE, ROOT, RULES, USE_INSTEAD, page_cases

from session_lint.checks import Rule, all_rules
from session_lint.findings import DOCUMENTATION
from session_lint.rulebook import FAMILIES, SECTIONS, Page, load_pages

PAGES = list(load_pages(RULES).values())
CODE_AND_NAME = re.compile(r"\b(SES\d{3}) ([a-z]+(?:-[a-z0-9]+)+)")
LINK = re.compile(r"\]\(([^)\s]+)\)")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.code)
each_rule = pytest.mark.parametrize("rule", all_rules().values(), ids=lambda rule: rule.code)


def names(pairs: list[tuple[str, str]]) -> dict[str, str]:
    assert len(pairs) == len({code for code, _ in pairs}), "a code stands there twice"
    return dict(pairs)


def test_every_check_has_a_page_and_every_page_a_check() -> None:
    assert {rule.code: rule.name for rule in all_rules().values()} == {page.code: page.name for page in PAGES}


def test_the_changelog_names_every_rule() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert names(CODE_AND_NAME.findall(text)) == {page.code: page.name for page in PAGES}


def test_the_readme_table_names_every_rule() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(SES\d{3})\]\(([^)]*)\) \| ([a-z0-9-]+) \|", text, re.MULTILINE)
    assert rows == [(page.code, f"rules/{page.path.name}", page.name) for page in PAGES]


@each_rule
def test_a_check_says_what_its_page_says(rule: Rule) -> None:
    page = load_pages(RULES)[rule.code]
    assert (rule.name, rule.severity, rule.preview) == (page.name, page.severity, page.preview)


@each_rule
def test_a_check_stands_in_the_file_of_its_name(rule: Rule) -> None:
    assert rule.check.__module__ == f"session_lint.checks.{rule.name.replace('-', '_')}"


@each_page
def test_a_page_stands_in_the_file_of_its_code_and_name(page: Page) -> None:
    assert page.path.name == f"{page.code}-{page.name}.md"
    assert page.url == f"{DOCUMENTATION}/{page.code}-{page.name}.md"
    assert page.family == FAMILIES[page.code[3]]


@each_page
def test_a_page_has_all_sections_in_order(page: Page) -> None:
    outside_of_code = re.sub(r"^```.*?^```$", "", page.body, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^(#{1,2}) (.*)$", outside_of_code, re.MULTILINE)
    assert headings == [("#", f"{page.code}: {page.name}"), *[("##", section) for section in SECTIONS]]
    for text in re.split(r"^## .*$", page.body, flags=re.MULTILINE)[1:]:
        assert text.strip(), "an empty section"


@each_page
def test_a_page_shows_the_bug_the_remedy_and_what_is_fine(page: Page) -> None:
    sections = {case.headings[1] for case in page_cases(page.path)}
    assert sections == {EXAMPLE, USE_INSTEAD, FINE}


@each_page
def test_a_page_has_an_example_of_several_files(page: Page) -> None:
    assert any(len(case.sources) > 1 for case in page_cases(page.path) if case.headings[1] == EXAMPLE)


@each_page
def test_a_summary_is_one_sentence(page: Page) -> None:
    for text in (page.summary, page.proof):
        assert text[0].isupper()
        assert text.endswith(".")
        assert "\n" not in text
    assert ". " not in page.summary
    assert "|" not in page.summary


@each_page
def test_why_it_is_bad_says_what_postgresql_shows(page: Page) -> None:
    why = page.body.split("## Why it is bad")[1].split("## Example")[0]
    assert "PostgreSQL" in why


@each_page
def test_the_links_of_a_page_lead_somewhere(page: Page) -> None:
    for target in LINK.findall(page.body):
        if not target.startswith("https://"):
            assert (page.path.parent / target.split("#")[0]).is_file(), target


@pytest.mark.parametrize(
    "path", sorted([*RULES.glob("*.md"), *(ROOT / "tests" / "cases").rglob("*.md")]), ids=lambda p: p.stem
)
def test_words(path: Path) -> None:
    """Docs say "false alarm" and "missed bug"."""
    text = path.read_text(encoding="utf-8").lower()
    assert "false positive" not in text
    assert "false negative" not in text
