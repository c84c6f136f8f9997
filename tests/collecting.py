"""How Markdown cases become pytest's tests: which files, which names, and what a failure says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from book import BookError, Case, read

from session_lint.rulebook import SECTIONS, RuleBookError, load_pages

ROOT = Path(__file__).resolve().parent.parent
RULES = ROOT / "rules"
CASES = ROOT / "tests" / "cases"

EXAMPLE, USE_INSTEAD, FINE = SECTIONS[2:5]


def read_cases(path: Path) -> list[Case]:
    """The cases of a file.

    Raises:
        BookError: see `book.read`; also a file without any case.
    """
    cases = read(path, load_pages(RULES).keys())
    if not cases:
        raise BookError(f"{path.name}: no code block")
    return cases


def page_cases(path: Path) -> list[Case]:
    """The cases of a rule's page, where the section says what a block may show.

    Raises:
        BookError: an example that expects nothing, a mark among the good code, code in another section.
    """
    cases = read_cases(path)
    code = path.name.split("-")[0]
    for case in cases:
        section = case.headings[1] if len(case.headings) > 1 else ""
        if section not in (EXAMPLE, USE_INSTEAD, FINE):
            raise BookError(f"{case.place}: code stands only in {EXAMPLE}, {USE_INSTEAD} and {FINE}")
        if section == EXAMPLE and not case.marks:
            raise BookError(f"{case.place}: an example must mark what is reported")
        if section != EXAMPLE and any(mark.kind == "error" for mark in case.marks):
            raise BookError(f"{case.place}: no mark may stand in {section}")
    if not any(code in mark.codes for case in cases for mark in case.marks):
        raise BookError(f"{path.name}: no example is marked with {code}")
    return cases


def parameters(paths: Iterable[Path], reader: Callable[[Path], list[Case]]) -> list[object]:
    """One pytest parameter per case. A misused file becomes one that fails, so that the others still run."""
    result: list[object] = []
    for path in paths:
        try:
            cases = reader(path)
        except (BookError, RuleBookError) as error:
            result.append(pytest.param(error, id=path.stem))
            continue
        for case in cases:
            # Only the failure that `verify` reports is expected: a crash of the linter is none.
            known = pytest.mark.xfail(reason=case.known or "", strict=True, raises=pytest.fail.Exception)
            # The first heading is the file's own title.
            name = " > ".join(case.headings[1:]) or case.headings[0]
            number = f" ({case.number})" if case.number > 1 else ""
            result.append(
                pytest.param(case, id=f"{path.stem}: {name}{number}", marks=[known] if case.known is not None else [])
            )
    return result


def verify(case: Case | Exception, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lint the case in `root` and fail with every line that differs from its mark."""
    if isinstance(case, Exception):
        raise case
    # Imported here: the pages can be checked where the engine can't be imported.
    from linting import differences, lint

    monkeypatch.chdir(root)
    problems = differences(case, lint(case, root), root)
    if problems:
        pytest.fail(f"{case.place}: {case.title}\n" + "\n".join(problems), pytrace=False)
