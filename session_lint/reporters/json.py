"""JSON, version 1: the contract with other programs. Fields are added, never changed or taken away."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from session_lint.findings import Finding, Report, Verdict
from session_lint.reporters.context import Context

if TYPE_CHECKING:
    from session_lint.runtime.evidence import Evidence

VERSION = 1


def render(report: Report, context: Context) -> str:  # noqa: ARG001
    """One JSON object."""
    document = {
        "version": VERSION,
        "findings": [as_dict(finding) for finding in report.findings],
        "summary": {
            "files": report.files,
            "files_analysed": report.files_analysed,
            "lines": report.lines,
            "functions": report.functions,
            "findings": len(report.findings),
            "suppressed": report.suppressed,
            "mitigated": len(report.mitigated),
            "errors": report.errors,
        },
    }
    return json.dumps(document, indent=2) + "\n"


def as_dict(finding: Finding) -> dict[str, object]:
    """One finding of the contract. Evidence stands with those that have a verdict of PostgreSQL's."""
    return {
        "code": finding.code,
        "name": finding.name,
        "message": finding.message,
        "path": finding.path,
        "line": finding.span.line,
        "column": finding.span.column,
        "end_line": finding.span.end_line,
        "end_column": finding.span.end_column,
        "function": finding.function,
        "severity": finding.severity.value,
        "confidence": finding.confidence.value,
        "verdict": finding.verdict.value,
        "trail": [
            {"path": step.path, "line": step.line, "column": step.column, "message": step.message}
            for step in finding.trail
        ],
        "affects": [
            {
                "path": affected.path,
                "line": affected.line,
                "column": affected.column,
                "function": affected.function,
                "message": affected.message,
                **_proved(affected.verdict, affected.evidence, {"verdict": affected.verdict.value}),
            }
            for affected in finding.affects
        ],
        "fingerprint": finding.fingerprint,
        "url": finding.url,
        **_proved(finding.verdict, finding.evidence),
    }


def _proved(
    verdict: Verdict, evidence: Iterable[Evidence], more: Mapping[str, object] | None = None
) -> dict[str, object]:
    if verdict is Verdict.STATIC:
        return {}
    return {**(more or {}), "evidence": [each.as_dict() for each in evidence]}
