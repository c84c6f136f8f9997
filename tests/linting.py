"""Runs a case of `book` through the linter and says in plain words where it differs from the marks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from book import ERROR, POSSIBLE, Case, Mark

from session_lint.engine import check
from session_lint.findings import Finding, Report
from session_lint.settings import load

SETTINGS_FILE = "session-lint.toml"


def lint(case: Case, root: Path) -> Report:
    """Write the case's files below `root` and lint them as `session-lint check .` does there."""
    write(case, root)
    return check([root], load(root))


def write(case: Case, root: Path) -> None:
    """The case as a project of its own."""
    for source in case.sources:
        path = root / source.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source.text, encoding="utf-8")
    if not (root / SETTINGS_FILE).exists():
        lines = [f"{key} = {_toml(value)}\n" for key, value in case.settings.items()]
        (root / SETTINGS_FILE).write_text("".join(lines), encoding="utf-8")


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def differences(case: Case, report: Report, root: Path) -> list[str]:
    """One text per line of code that does not get what its mark says; nothing if all is as marked."""
    shown = _by_line(report.findings, root)
    held_back = _by_line(report.held_back, root)
    result: list[str] = []
    for source in case.sources:
        marks = {mark.line: mark for mark in source.marks}
        lines = source.text.splitlines()
        for number in sorted({*marks, *shown.get(source.name, ())}):
            mark = marks.get(number)
            findings = shown.get(source.name, {}).get(number, [])
            hidden = held_back.get(source.name, {}).get(number, [])
            result.extend(
                f"  {case.path.name}:{source.at + number}: {source.name}:{number}\n"
                f"    code      {lines[number - 1].strip() if number <= len(lines) else '(after the end)'}\n{problem}"
                for problem in _problems(mark, findings, hidden)
            )
    names = {source.name for source in case.sources}
    for name in sorted(shown.keys() - names):
        result += [f"  {name}:{number}\n{_got(found)}" for number, found in sorted(shown[name].items())]
    return result


def _by_line(findings: Iterable[Finding], root: Path) -> dict[str, dict[int, list[Finding]]]:
    files: dict[str, dict[int, list[Finding]]] = {}
    for finding in findings:
        path = (Path.cwd() / finding.path).resolve()
        inside = path.is_relative_to(root.resolve())
        name = path.relative_to(root.resolve()).as_posix() if inside else str(path)
        files.setdefault(name, {}).setdefault(finding.line, []).append(finding)
    return files


def _problems(mark: Mark | None, findings: list[Finding], hidden: list[Finding]) -> Iterator[str]:
    expected = Counter(mark.codes if mark and mark.kind == ERROR else ())
    if expected != Counter(finding.code for finding in findings):
        wanted = ", ".join(sorted(expected.elements())) or "nothing"
        yield f"    expected  {wanted}\n{_got(findings)}{_got(hidden, 'held back')}"
    if mark is None:
        return
    if mark.kind == POSSIBLE and Counter(mark.codes) - Counter(finding.code for finding in hidden):
        yield f"    expected  {', '.join(mark.codes)}, held back\n{_got(hidden, 'held back')}{_got(findings)}"
    marked = findings if mark.kind == ERROR else hidden
    if mark.text is not None and not any(
        mark.text in finding.message for finding in marked if finding.code in mark.codes
    ):
        yield f'    expected  a message with "{mark.text}"\n{_got(marked)}'


def _got(findings: list[Finding], label: str = "got") -> str:
    if not findings:
        return f"    {label:9} nothing\n" if label == "got" else ""
    return "".join(
        f"    {label:9} {finding.code} ({finding.confidence.value}): {finding.message}\n" for finding in findings
    )
