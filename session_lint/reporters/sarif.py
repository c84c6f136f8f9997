"""SARIF 2.1.0: GitHub code scanning, Azure, VS Code and other viewers.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING
from urllib.parse import quote

from session_lint import __version__
from session_lint.findings import Affected, Finding, Report, Severity, Span, Verdict
from session_lint.reporters.context import Context

if TYPE_CHECKING:
    from session_lint.rulebook import Page

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
HOMEPAGE = "https://github.com/session-lint/session-lint"

_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}

Json = dict[str, object]


def render(report: Report, context: Context) -> str:
    """One SARIF log with one run."""
    rules: list[Json] = []
    numbers: dict[str, int] = {}
    pages = _pages() if report.findings else {}
    for finding in sorted(report.findings, key=lambda finding: finding.code):
        if finding.code not in numbers:
            numbers[finding.code] = len(rules)
            rules.append(_rule(finding, pages.get(finding.code)))
    driver = {"name": "session-lint", "version": __version__, "semanticVersion": __version__}
    run = {
        "tool": {"driver": {**driver, "informationUri": HOMEPAGE, "rules": rules}},
        "invocations": [{"executionSuccessful": True}],
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, numbers[finding.code], context) for finding in report.findings],
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _pages() -> dict[str, Page]:
    from session_lint.rulebook import RuleBookError, load_pages

    try:
        return load_pages()
    except RuleBookError:
        return {}  # a broken rule book is no reason to lose the findings


def _rule(finding: Finding, page: Page | None) -> Json:
    rule: Json = {
        "id": finding.code,
        "name": "".join(part.capitalize() for part in finding.name.split("-")),
        "helpUri": finding.url,
        "defaultConfiguration": {"level": _LEVELS[finding.severity]},
        "properties": {"problem.severity": _LEVELS[finding.severity].replace("note", "recommendation")},
    }
    summary = page.summary if page is not None else finding.name.replace("-", " ")
    rule["shortDescription"] = {"text": summary}
    if page is not None:
        rule["fullDescription"] = {"text": _section(page.body, "What it does") or summary}
        rule["help"] = {"text": page.body, "markdown": page.body}
        rule["properties"] = {
            "problem.severity": _LEVELS[page.severity].replace("note", "recommendation"),
            "tags": [page.family, "sqlalchemy"],
        }
    return rule


def _section(body: str, title: str) -> str:
    """The text under a `##` heading of a rule page, in one line."""
    match = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", body, re.MULTILINE | re.DOTALL)
    return " ".join(match.group(1).split()) if match else ""


def _result(finding: Finding, rule: int, context: Context) -> Json:
    location: Json = {"physicalLocation": _physical(finding.path, finding.span, context)}
    if finding.function:
        location["logicalLocations"] = [{"fullyQualifiedName": finding.function, "kind": "function"}]
    result: Json = {
        "ruleId": finding.code,
        "ruleIndex": rule,
        "level": _LEVELS[finding.severity],
        "message": {"text": finding.message},
        "locations": [location],
    }
    if finding.fingerprint:
        result["partialFingerprints"] = {"sessionLint/v1": finding.fingerprint}
    if finding.trail:
        steps = [
            {"location": _described(step.path, step.line, step.column, step.message, context)} for step in finding.trail
        ]
        result["codeFlows"] = [{"threadFlows": [{"locations": steps}]}]
    if finding.affects:
        result["relatedLocations"] = [
            {
                "id": number,
                **_described(
                    affected.path,
                    affected.line,
                    affected.column,
                    f"exposes {affected.function}{_verdict(affected)}: {affected.message}",
                    context,
                ),
            }
            for number, affected in enumerate(finding.affects, 1)
        ]
    properties: Json = {"confidence": finding.confidence.value, "verdict": finding.verdict.value}
    if finding.evidence:
        properties["evidence"] = [evidence.as_dict() for evidence in finding.evidence]
    result["properties"] = properties
    return result


def _verdict(affected: Affected) -> str:
    return "" if affected.verdict is Verdict.STATIC else f" ({affected.verdict.value})"


def _described(path: str, line: int, column: int, message: str, context: Context) -> Json:
    place = {
        "artifactLocation": _artifact(path, context),
        "region": {"startLine": max(line, 1), "startColumn": max(column, 1)},
    }
    return {"physicalLocation": place, "message": {"text": message}}


def _physical(path: str, span: Span, context: Context) -> Json:
    region = {
        "startLine": max(span.line, 1),
        "startColumn": max(span.column, 1),
        "endLine": max(span.end_line, span.line, 1),
        "endColumn": max(span.end_column, 1),
    }
    return {"artifactLocation": _artifact(path, context), "region": region}


def _artifact(path: str, context: Context) -> Json:
    path = context.path_below("GITHUB_WORKSPACE", path)
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(path).is_absolute():
            return {"uri": kind(path).as_uri()}
    # %SRCROOT% is the conventional name for "the top of the checkout, wherever that is".
    return {"uri": quote(path.encode("utf-8", "surrogateescape")), "uriBaseId": "%SRCROOT%"}
