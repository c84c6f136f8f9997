"""`session-lint confirm PATHS -- COMMAND`: findings, then the project's own tests with real faults, then verdicts.

The command runs in its own process, with its own interpreter, and pytest there loads our plugin; this process starts
the PostgreSQL server, reads what the plugin has written and joins it with the findings.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from session_lint.findings import Affected, Finding, Report, Verdict
from session_lint.reporters.json import render as render_json
from session_lint.runtime.evidence import Evidence
from session_lint.runtime.postgres import ENVIRONMENT, PostgresUnavailableError, running_server
from session_lint.runtime.report import RUNNING, RunReport
from session_lint.runtime.verdicts import Judged, Verdicts, judge

PLUGIN = "session_lint.plugins.pytest"
FINISHED = (0, 1)
"""The exit statuses of pytest's that mean that all tests ran."""


class ConfirmError(Exception):
    """The tests could not be run. The text is one line."""


def run_tests(command: Sequence[str], *, resume: Path | None = None, quiet: bool = False) -> tuple[RunReport, int]:
    """Run the project's test command with faults; gives what it has shown and its exit status.

    resume: the file that keeps which runs with a fault are done, until all are.

    Raises:
        ConfirmError: the command can't be started, or pytest did not run in it with our plugin, or ran no test.
        PostgresUnavailableError: there is no server to be had.
    """
    if not command:
        raise ConfirmError("name the tests' command after --, as in: session-lint confirm src/ -- pytest tests/")
    with running_server() as server, tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "report.json")
        running = Path(directory, "running")
        environment = _environment(os.environ, file, server.url(), resume) | {RUNNING: str(running)}
        output = subprocess.DEVNULL if quiet else sys.stderr  # standard output is for the verdicts
        try:
            process = subprocess.Popen(_command(command), env=environment, stdout=output)
        except OSError as error:
            raise ConfirmError(f"cannot run {command[0]}: {error.strerror or error}") from error
        status = _ended(process)
        if not file.exists():
            raise ConfirmError(_no_report(status, running, resume))
        report = RunReport.from_dict(json.loads(file.read_text(encoding="utf-8")))
    if not report.tests:
        raise ConfirmError(f"no test ran, so nothing is proved: the tests' command {_how(status)}")
    return report, status


_PATIENCE = 30.0
"""Seconds that the tests' fixtures have to clean up when only we were told to end."""


def _ended(process: subprocess.Popen[bytes]) -> int:
    """The exit status. Tests that are interrupted clean up first, in their own time, while the server is there."""
    try:
        return process.wait()
    except KeyboardInterrupt as interrupt:
        told = bool(interrupt.args)  # by a signal that was for this process alone, while Ctrl-C is for both
        if told:
            process.send_signal(signal.SIGINT)
        for stop in (process.terminate, process.kill):
            try:
                process.wait(_PATIENCE if told else None)
                break
            except (KeyboardInterrupt, subprocess.TimeoutExpired):  # again
                stop()
        process.wait()
        raise


def _how(status: int) -> str:
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def _no_report(status: int, running: Path, resume: Path | None) -> str:
    said = f"the tests' command {_how(status)} and pytest did not report"
    try:
        test = " ".join(running.read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return f"{said}; is session-lint[runtime] installed where it runs?"
    again = "" if resume is not None else "; --resume FILE keeps what the runs before have shown"
    return f"{said}: it was in {test}{again}"


def _command(command: Sequence[str]) -> list[str]:
    """`pytest` means that of this interpreter, if it has one: another's, first on PATH, would lack the plugin."""
    if command[0] == "pytest" and importlib.util.find_spec("pytest") is not None:
        return [sys.executable, "-m", "pytest", *command[1:]]
    return list(command)


def _environment(environment: Mapping[str, str], file: Path, url: str, resume: Path | None) -> dict[str, str]:
    """Options for every pytest below the command, however deep a Makefile or tox hides it."""
    options = ["--session-lint-faults", "--session-lint-exit-zero", f"--session-lint-report='{file}'"]
    if resume is not None:
        options.append(f"--session-lint-resume='{resume.absolute()}'")
    if not importlib.metadata.entry_points(group="pytest11", name="session_lint"):
        options.insert(0, f"-p {PLUGIN}")  # a checkout that was installed before it had the entry point
    own = environment.get("PYTEST_ADDOPTS", "")
    return {**environment, "PYTEST_ADDOPTS": " ".join([own, *options]).strip(), ENVIRONMENT: url}


def confirm(
    report: Report,
    files: Iterable[str],
    command: Sequence[str],
    *,
    resume: Path | None = None,
    quiet: bool = False,
) -> tuple[Verdicts, int]:
    """Run the tests and judge the findings of a static report of these files by them."""
    runs, status = run_tests(command, resume=resume, quiet=quiet)
    return judge(report.findings, [*report.held_back, *report.mitigated], files, runs), status


# ------------------------------------------------------------------------------------------------------ what is shown


def with_verdicts(report: Report, verdicts: Verdicts) -> Report:
    """The static report with the verdicts in its findings, for the formats that have a place for them."""
    return replace(report, findings=verdicts.proved)


def as_json(report: Report, verdicts: Verdicts, context: Any) -> str:
    """The JSON of `check`, with the evidence of each finding, of what it exposes, and what was missed."""
    document = json.loads(render_json(with_verdicts(report, verdicts), context))
    for entry, judged in zip(document["findings"], verdicts.findings, strict=True):
        _reached(entry, judged)
    document["missed"] = [evidence.as_dict() for evidence in verdicts.missed]
    counts = {verdict.value: sum(j.verdict is verdict for j in verdicts.findings) for verdict in Verdict}
    tests = {"tests": verdicts.report.tests, "runs_with_a_fault": verdicts.report.runs}
    document["summary"] |= {"verdicts": counts, **tests}
    return json.dumps(document, indent=2) + "\n"


def _reached(entry: Any, judged: Judged) -> None:
    entry["reached"] = judged.reached
    for each, exposed in zip(entry["affects"], judged.exposed, strict=True):
        each["reached"] = exposed.reached


def as_text(verdicts: Verdicts) -> str:
    """The table for people: each finding with its verdict and one proof of each kind."""
    lines: list[str] = []
    for judged in verdicts.findings:
        lines.append(f"{judged.verdict.value:<15} {_name(judged.subject)}")
        lines += _proofs(judged, "    ")
        for exposed in judged.exposed:
            lines.append(f"    {exposed.verdict.value:<15} exposed: {_name(exposed.subject)}")
            lines += _proofs(exposed, "        ")
        lines.append("")
    if verdicts.missed:
        lines.append("missed by the analysis:")
        lines += [f"    {evidence.proof}" for evidence in verdicts.missed]
        lines.append("")
    return "\n".join([*lines, summary(verdicts)]) + "\n"


def summary(verdicts: Verdicts) -> str:
    """The last line."""
    counts = [(verdict, sum(j.verdict is verdict for j in verdicts.findings)) for verdict in Verdict]
    parts = ", ".join(f"{count} {verdict.value}" for verdict, count in counts if count) or "nothing to confirm"
    report = verdicts.report
    tests = f"{report.tests} test{'s'[: report.tests != 1]}"
    runs = f"{report.runs} run{'s'[: report.runs != 1]} with a fault"
    return f"{parts}; {len(verdicts.missed)} missed; {tests}, {runs}."


def _name(subject: Finding | Affected) -> str:
    place = f"{subject.path}:{subject.line} {subject.function}".rstrip()
    return f"{subject.code} {subject.name}: {place}" if isinstance(subject, Finding) else place


def _proofs(judged: Judged, indent: str) -> list[str]:
    if not judged.evidence:
        return [f"{indent}reached by {judged.reached}"] if judged.reached else []
    first: dict[object, Evidence] = {}
    for evidence in judged.evidence:
        first.setdefault(evidence.oracle, evidence)
    return [f"{indent}{evidence.proof}" for evidence in first.values()]


__all__ = ["ConfirmError", "PostgresUnavailableError", "as_json", "as_text", "confirm", "summary", "with_verdicts"]
