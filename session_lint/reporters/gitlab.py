"""GitLab's Code Quality report: https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format"""

from __future__ import annotations

import json

from session_lint.findings import Finding, Report, Severity, Verdict
from session_lint.reporters.context import Context, identity

_SEVERITIES = {Severity.ERROR: "major", Severity.WARNING: "minor", Severity.INFO: "info"}


def render(report: Report, context: Context) -> str:
    """A JSON array with one object per finding."""
    issues = [
        {
            "description": f"{finding.code} {finding.message}{_verdict(finding)}",
            "check_name": f"{finding.code}-{finding.name}",
            "fingerprint": identity(finding),
            "severity": _SEVERITIES[finding.severity],
            "location": {
                "path": context.path_below("CI_PROJECT_DIR", finding.path),
                "lines": {"begin": finding.span.line, "end": max(finding.span.end_line, finding.span.line)},
            },
        }
        for finding in report.findings
    ]
    return json.dumps(issues, indent=2) + "\n"


def _verdict(finding: Finding) -> str:
    return "" if finding.verdict is Verdict.STATIC else f" ({finding.verdict.value})"
