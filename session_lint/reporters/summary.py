"""The last line of a run for people, and the table of `--statistics`."""

from __future__ import annotations

from collections import Counter

from session_lint.findings import Confidence, Report
from session_lint.reporters.context import SEVERITIES


def count(number: int, noun: str) -> str:
    """ "1 finding", "2 findings"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def summary(report: Report) -> str:
    """One line that says what was found, and what was found but is not shown."""
    parts = []
    if report.findings:
        severities = Counter(finding.severity for finding in report.findings)
        kinds = ", ".join(
            count(severities[severity], severity.value) if severity.value != "info" else f"{severities[severity]} info"
            for severity in SEVERITIES
            if severities[severity]
        )
        places = len({finding.path for finding in report.findings})
        parts.append(f"{count(len(report.findings), 'finding')} ({kinds}) in {places} of {count(report.files, 'file')}")
    else:
        parts.append(f"No findings in {count(report.files, 'file')}")
    if report.errors:
        parts.append(f"{count(report.errors, 'file')} could not be analysed")
    if report.held_back:
        parts.append(_held_back(report))
    if report.suppressed:
        parts.append(f"{report.suppressed} suppressed")
    if report.mitigated:
        parts.append(f"{len(report.mitigated)} mitigated (--show-mitigated lists them)")
    return "; ".join(parts) + "."


def _held_back(report: Report) -> str:
    """ "2 likely and 1 possible finding not shown; ..." """
    counts = Counter(finding.confidence for finding in report.held_back)
    present = [confidence for confidence in Confidence if counts[confidence]]
    kinds = " and ".join(f"{counts[confidence]} {confidence.value}" for confidence in present)
    noun = "finding" if len(report.held_back) == 1 else "findings"
    return f"{kinds} {noun} not shown; --min-confidence {present[-1].value} shows them"


def statistics(report: Report) -> str:
    """How many findings of each rule, most first; empty if there are none."""
    counts = Counter((finding.code, finding.name) for finding in report.findings)
    if not counts:
        return ""
    width = len(str(max(counts.values())))
    return "".join(
        f"{number:>{width}}  {code}  {name}\n"
        for (code, name), number in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )
