"""The rule book: one Markdown page per rule, which is documentation, `explain` text and test at once.

A page starts with TOML between two `+++` lines, then follows Markdown with fixed sections. In a checkout the
pages stand in `rules/` beside the package, in an installed package in `session_lint/rules/`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from session_lint.codes import nearest, nearest_code
from session_lint.findings import DOCUMENTATION, Severity

FENCE = "+++"

SECTIONS = (
    "What it does",
    "Why it is bad",
    "Example",
    "Use instead",
    "When it is fine",
    "How it is proved",
    "References",
)
"""The `##` headings of every page, in this order."""

FAMILIES = {
    "1": "transactions",
    "2": "lifetime",
    "3": "concurrency",
    "4": "engine",
    "5": "migrations",
    "6": "statements",
    "9": "linter",
}
"""What the first digit of a code says about its rule."""

_TEXTS = ("code", "name", "family", "summary", "severity", "since", "proof")
_FLAGS = ("preview", "fix")


class RuleBookError(Exception):
    """The rule book itself is wrong: no pages, or a page that can't be read. Its text names the page."""


class UnknownRule(LookupError):  # noqa: N818 - it says what was asked for, not that something broke
    """There is no page for this code or name. Its text names the nearest ones."""


@dataclass(frozen=True)
class Page:
    """One rule's page.

    family: what the rule is about, see `FAMILIES`. summary: the bad pattern in one sentence. since: the version
    that brought the rule. preview: off by default. fix: it can repair what it finds. proof: what shows on a real
    PostgreSQL that a finding is true. body: the Markdown below the front matter, beginning with its `#` heading.
    """

    code: str
    name: str
    family: str
    summary: str
    severity: Severity
    since: str
    preview: bool
    fix: bool
    proof: str
    body: str
    path: Path

    @property
    def url(self) -> str:
        """The page on the web."""
        return f"{DOCUMENTATION}/{self.path.name}"

    def as_dict(self) -> dict[str, object]:
        """What `--output-format json` says of the rule."""
        return {
            **{key: getattr(self, key) for key in ("code", "name", "family", "summary")},
            "severity": self.severity.value,
            **{key: getattr(self, key) for key in ("since", "preview", "fix", "proof", "url")},
        }


def directory() -> Path:
    """Where the pages are.

    Raises:
        RuleBookError: they are not there, so the installation is broken.
    """
    package = Path(__file__).resolve().parent
    for place in (package / "rules", package.parent / "rules"):
        if next(place.glob("SES*.md"), None) is not None:
            return place
    raise RuleBookError(f"no rule pages in {package / 'rules'}: the installation is not whole")


def load_pages(place: Path | None = None) -> dict[str, Page]:
    """All pages by code, in the order of codes; of `place` instead of the rule book's own directory if given.

    Raises:
        RuleBookError: there are none, one can't be read, or two have the same code.
    """
    pages: dict[str, Page] = {}
    for path in sorted((place or directory()).glob("SES*.md")):
        page = read_page(path)
        if page.code in pages:
            raise RuleBookError(f"{path.name}: {page.code} is also the code of {pages[page.code].path.name}")
        pages[page.code] = page
    return dict(sorted(pages.items()))


def load_page(rule: str) -> Page:
    """The page of one rule, by its code or its name, in any case.

    Raises:
        UnknownRule: there is no such rule.
        RuleBookError: the rule book is broken.
    """
    pages = load_pages()
    wanted = rule.strip()
    for page in pages.values():
        if wanted.upper() == page.code or wanted.lower() == page.name:
            return page
    meant = nearest(wanted, [page.name for page in pages.values()]) or nearest_code(wanted, sorted(pages))
    raise UnknownRule(f"no such rule: {wanted}" + (f"; did you mean {meant}?" if meant else ""))


_COMMENT = re.compile(r"^<!--.*?-->\n+", re.MULTILINE | re.DOTALL)
"""What a page says to its tests."""


def read_page(path: Path) -> Page:
    """One page from its file.

    Raises:
        RuleBookError: the file can't be read, or its front matter is missing, wrong or not complete.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RuleBookError(f"{path.name}: {error}") from error
    head, front, body = (*text.split(f"{FENCE}\n", 2), "", "")[:3]
    if head or not body:
        raise RuleBookError(f"{path.name}: the page must begin with TOML between two {FENCE} lines")
    try:
        values = tomllib.loads(front)
    except tomllib.TOMLDecodeError as error:
        raise RuleBookError(f"{path.name}: front matter: {error}") from error
    _check_front(path.name, values)
    return Page(
        **{key: values[key] for key in (*_TEXTS, *_FLAGS) if key != "severity"},
        severity=Severity(values["severity"]),
        body=_COMMENT.sub("", body).strip() + "\n",
        path=path,
    )


def _check_front(name: str, values: Mapping[str, object]) -> None:
    expected = {**dict.fromkeys(_TEXTS, str), **dict.fromkeys(_FLAGS, bool)}
    for key, kind in expected.items():
        if key not in values:
            raise RuleBookError(f"{name}: front matter: {key} is missing")
        if type(values[key]) is not kind or values[key] == "":
            raise RuleBookError(f"{name}: front matter: {key} must be a {'text' if kind is str else 'true or false'}")
    unknown = sorted(values.keys() - expected)
    if unknown:
        raise RuleBookError(f"{name}: front matter: unknown key {unknown[0]}")
    severities = [severity.value for severity in Severity]
    if values["severity"] not in severities:
        raise RuleBookError(f"{name}: front matter: severity must be one of {', '.join(severities)}")


# ------------------------------------------------------------------------------------------ what the commands print


def explanation(page: Page) -> str:
    """The page as `explain` prints it: Markdown that also reads well as it is."""
    status = ["preview, off by default" if page.preview else "on by default", f"since {page.since}"]
    if page.fix:
        status.append("fixable")
    title, _, rest = page.body.partition("\n")
    facts = f"{page.family} · {page.severity.value} · {' · '.join(status)}"
    return f"{title}\n\n{facts}\n{rest}\n{page.url}\n"


def rules_table(output_format: str, pages: Mapping[str, Page] | None = None) -> str:
    """All rules as "text", "markdown" (the README's table) or "json".

    Raises:
        ValueError: an unknown format.
        RuleBookError: the rule book is broken.
    """
    rows = list((load_pages() if pages is None else pages).values())
    if output_format == "json":
        return json.dumps([page.as_dict() for page in rows], indent=2) + "\n"
    if output_format == "markdown":
        lines = ["| code | name | severity | what it finds |", "|---|---|---|---|"]
        lines += [
            f"| [{page.code}](rules/{page.path.name}) | {page.name} | {_severity(page)} | {page.summary} |"
            for page in rows
        ]
        return "\n".join(lines) + "\n"
    if output_format == "text":
        width = max((len(page.name) for page in rows), default=0)
        kinds = max((len(_severity(page)) for page in rows), default=0)
        return "".join(
            f"{page.code}  {page.name:{width}}  {_severity(page):{kinds}}  {page.summary}\n" for page in rows
        )
    raise ValueError(f"unknown format: {output_format}")


def _severity(page: Page) -> str:
    return f"{page.severity.value}, preview" if page.preview else page.severity.value
