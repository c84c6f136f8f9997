"""JUnit XML, for the CI systems that show test results: a suite per file, a failed case per finding."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby
from xml.sax.saxutils import escape, quoteattr

from session_lint.findings import Finding, Report
from session_lint.reporters.context import Context, trail_lines

# What XML 1.0 cannot say, not even as a reference.
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(report: Report, context: Context) -> str:  # noqa: ARG001
    """One XML document, in ASCII so that no stream can spoil it."""
    findings = sorted(report.findings, key=lambda finding: finding.path)
    errors = sum(_is_error(finding) for finding in findings)
    lines = ['<?xml version="1.0" encoding="UTF-8"?>']
    failures = len(findings) - errors
    lines.append(
        _open("testsuites", name="session-lint", tests=max(len(findings), 1), failures=failures, errors=errors)
    )
    for path, group in groupby(findings, key=lambda finding: finding.path):
        lines.extend(_suite(path, list(group)))
    if not findings:
        # Some systems take a report without a case for a run that never happened.
        lines.append("  " + _open("testsuite", name="session-lint", tests=1, failures=0, errors=0))
        lines.append("    " + _open("testcase", classname="session-lint", name="no findings").removesuffix(">") + "/>")
        lines.append("  </testsuite>")
    lines.append("</testsuites>")
    return ("\n".join(lines) + "\n").encode("ascii", "xmlcharrefreplace").decode("ascii")


def _suite(path: str, findings: list[Finding]) -> Iterable[str]:
    errors = sum(_is_error(finding) for finding in findings)
    yield "  " + _open("testsuite", name=path, tests=len(findings), failures=len(findings) - errors, errors=errors)
    for finding in findings:
        name = f"{finding.code} {finding.name} ({finding.line}:{finding.column})"
        classname = finding.path.removesuffix(".py").replace("/", ".")
        kind = "error" if _is_error(finding) else "failure"
        place = f"{finding.path}:{finding.line}:{finding.column}: {finding.code} {finding.message}"
        details = [place, *trail_lines(finding), finding.url]
        yield "    " + _open("testcase", classname=classname, name=name, file=finding.path, line=finding.line)
        yield (
            "      "
            + _open(kind, type=finding.code, message=finding.message)
            + _text("\n".join(details))
            + f"</{kind}>"
        )
        yield "    </testcase>"
    yield "  </testsuite>"


def _is_error(finding: Finding) -> bool:
    return finding.code == "SES902"


def _open(tag: str, **attributes: object) -> str:
    pairs = "".join(f" {name}={quoteattr(_legal(str(value)))}" for name, value in attributes.items())
    return f"<{tag}{pairs}>"


def _text(text: str) -> str:
    return escape(_legal(text))


def _legal(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", text)
