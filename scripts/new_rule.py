"""Begins a new rule: its check, its page and its line in the changelog.

    python scripts/new_rule.py SES117 name-of-the-bad-pattern --severity warning

The page's example then fails in `tests/test_rulebook.py`, and the work can begin.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from session_lint import __version__  # noqa: E402
from session_lint.rulebook import FAMILIES, RuleBookError, load_pages  # noqa: E402

NAME = re.compile(r"[a-z]+(?:-[a-z0-9]+)+")

CHECK = '''\
"""{code}: TODO what the rule finds, in one sentence."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint.checks import rule
from session_lint.checks.context import Context
from session_lint.findings import Finding, Severity


@rule("{code}", "{name}", Severity.{constant}{preview_argument})
def check(context: Context) -> Iterator[Finding]:
    for _flow in context.flows():
        # TODO: yield context.finding(flow, place, message, confidence, trail)
        yield from ()
'''

PAGE = """\
+++
code = "{code}"
name = "{name}"
family = "{family}"
summary = "TODO the bad pattern in one sentence."
severity = "{severity}"
since = "{since}"
preview = {preview}
fix = false
proof = "TODO what shows on a real PostgreSQL that a finding is true."
+++

# {code}: {name}

## What it does

TODO. The finding stands at TODO.

## Why it is bad

TODO what PostgreSQL shows, with the SQLSTATE or the state in `pg_stat_activity`.

## Example

### TODO in one module

```python
from sqlalchemy.orm import Session


def function(session: Session) -> None:
    session.commit()  # error: [{code}]
```

### TODO over two modules

`app/db.py`:

```python
from sqlalchemy import create_engine

engine = create_engine("postgresql+psycopg://localhost/shop", pool_pre_ping=True)
```

`app/work.py`:

```python
from sqlalchemy.ext.asyncio import AsyncSession


async def function(session: AsyncSession) -> None:
    await session.commit()  # error: [{code}]
```

## Use instead

### TODO

```python
from sqlalchemy.orm import Session

from app.engine import engine


def function() -> None:
    with Session(engine) as session:
        session.commit()
```

## When it is fine

### TODO why this one is not reported

```python
from sqlalchemy.orm import Session

from app.engine import engine


def function() -> None:
    with Session(engine) as session:
        session.rollback()
```

## How it is proved

TODO which fault is injected, and what confirms the finding.

## References

- [SQLAlchemy: session basics](https://docs.sqlalchemy.org/en/20/orm/session_basics.html)
"""


class Refused(Exception):  # noqa: N818 - it is an answer
    """Why there will be no such rule; nothing was written."""


def create(root: Path, code: str, name: str, severity: str, *, preview: bool = False) -> list[Path]:
    """Write the new rule's files below `root`; gives the files that were made or changed.

    Raises:
        Refused: the code or name is taken or not of the right form, or the changelog has no place for it.
    """
    _check(root, code, name)
    values = {
        "code": code,
        "name": name,
        "family": FAMILIES[code[3]],
        "severity": severity,
        "constant": severity.upper(),
        "since": __version__,
        "preview": str(preview).lower(),
        "preview_argument": ", preview=True" if preview else "",
    }
    check = root / "session_lint" / "checks" / f"{name.replace('-', '_')}.py"
    page = root / "rules" / f"{code}-{name}.md"
    for path in (check, page):
        if path.exists():
            raise Refused(f"{path.relative_to(root)} exists already")
    changelog = root / "CHANGELOG.md"
    changed = _with_line(changelog.read_text(encoding="utf-8"), f"  - {code} {name}")
    check.write_text(CHECK.format(**values), encoding="utf-8")
    page.write_text(PAGE.format(**values), encoding="utf-8")
    changelog.write_text(changed, encoding="utf-8")
    return [check, page, changelog]


def _check(root: Path, code: str, name: str) -> None:
    if re.fullmatch(rf"SES[{''.join(FAMILIES)}]\d\d", code) is None:
        families = ", ".join(f"SES{digit}xx {family}" for digit, family in FAMILIES.items())
        raise Refused(f"{code} is no code of a rule: {families}")
    if NAME.fullmatch(name) is None:
        raise Refused(f"{name} is no name of a rule: words in small letters with hyphens, naming the bad pattern")
    for page in load_pages(root / "rules").values():
        if page.code == code:
            raise Refused(f"{code} is taken by {page.name}")
        if page.name == name:
            raise Refused(f"{name} is the name of {page.code}")
    # A rule that was withdrawn has no page any more, but its code stays taken.
    if re.search(rf"\b{code}\b", (root / "CHANGELOG.md").read_text(encoding="utf-8")):
        raise Refused(f"{code} stands in CHANGELOG.md already; codes are never used twice")


def _with_line(changelog: str, line: str) -> str:
    """The changelog with one more rule under Unreleased, Added, Rules."""
    start = changelog.find("## [Unreleased]\n")
    if start < 0:
        raise Refused("CHANGELOG.md has no heading [Unreleased]")
    end = changelog.find("\n## [", start + 1)
    end = len(changelog) if end < 0 else end + 1
    section = changelog[start:end].rstrip("\n")
    if "\n### Added\n" not in section:
        section = section.replace("## [Unreleased]", "## [Unreleased]\n\n### Added\n", 1).rstrip("\n") + "\n"
    if "\n- Rules:\n" not in section:
        head, _, rest = section.partition("\n### Added\n")
        section = f"{head}\n### Added\n\n- Rules:\n{rest.lstrip(chr(10))}"
    head, _, rest = section.partition("\n- Rules:\n")
    lines = rest.split("\n")
    count = next((number for number, each in enumerate(lines) if not each.startswith("  - ")), len(lines))
    listed = sorted([*lines[:count], line])
    section = "\n".join([f"{head}\n- Rules:", *listed, *lines[count:]]).rstrip("\n")
    return f"{changelog[:start]}{section}\n\n{changelog[end:]}".rstrip("\n") + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="new_rule.py", description="Begin a new rule.")
    parser.add_argument("code", help="an unused code, such as SES117")
    parser.add_argument("name", help="the bad pattern, such as commit-in-loop")
    parser.add_argument("--severity", choices=["error", "warning", "info"], default="warning")
    parser.add_argument("--preview", action="store_true", help="off by default, until its judgement is reliable")
    options = parser.parse_args(arguments)
    try:
        paths = create(ROOT, options.code, options.name, options.severity, preview=options.preview)
    except (Refused, RuleBookError) as error:
        print(f"new_rule.py: {error}", file=sys.stderr)
        return 2
    for path in paths:
        print(path.relative_to(ROOT).as_posix())
    print(
        "Next: write the page, see `pytest tests/test_rulebook.py` fail, write the check, "
        "then run `python scripts/update_readme.py`."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
