"""The command `session-lint`.

Exit status: 0 nothing to report, 1 findings, 2 the run itself failed (one line says why), 130 interrupted.
Imports are made where they are needed: a run that finds everything in its cache is over in the time that
importing everything would take.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from session_lint.options import CommandError, parse
from session_lint.output import forget_output, is_terminal, say, use_color, write
from session_lint.reporters import FOR_PEOPLE

if TYPE_CHECKING:
    from session_lint.findings import Report
    from session_lint.settings import Settings
    from session_lint.source.reading import Source

ISSUES = "https://github.com/session-lint/session-lint/issues"

FOUND_NOTHING, FOUND, FAILED, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the exit status. Never raises but for `--help` and `--version`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        options = parse(arguments)
        if options.command == "explain":
            return _explain(options)
        if options.command == "rules":
            return _rules(options)
        if options.command == "confirm":
            return _confirm(options)
        return _check(options)
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        forget_output()
        return FAILED
    except Exception as error:  # noqa: BLE001 - a linter's traceback in a CI log helps nobody
        message = _message(error)
        if message is not None:
            say(f"error: {message}")
            return FAILED
        if "--verbose" in arguments or "-v" in arguments:
            import traceback

            traceback.print_exc()
        say(f"internal error: {_described(error)}; please report it with the code that causes it: {ISSUES}")
        return FAILED


def _message(error: Exception) -> str | None:
    """The line for a failure that has one; None if it is a defect of ours."""
    if isinstance(error, CommandError):
        return str(error)
    # Only modules that are loaded can have raised.
    for module, names in _FAILURES.items():
        loaded = sys.modules.get(module)
        if loaded is not None and isinstance(error, tuple(getattr(loaded, name) for name in names)):
            return " ".join(str(error).split())
    return None


_FAILURES = {
    "session_lint.settings": ("SettingsError",),
    "session_lint.source.discovery": ("UsageError",),
    "session_lint.rulebook": ("UnknownRule", "RuleBookError"),
    "session_lint.runtime.confirm": ("ConfirmError", "PostgresUnavailableError"),
}


def _described(error: Exception) -> str:
    place = ""
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "session_lint" in file:
            place = f" ({Path(file).name}:{trace.tb_lineno})"
        trace = trace.tb_next
    detail = " ".join(str(error).split())
    return f"{type(error).__name__}{f': {detail}' if detail else ''}{place}"


# ------------------------------------------------------------------------------------------------------- check

_OVERRIDES = (
    "min_confidence",
    "ownership",
    "show_mitigated",
    "force_exclude",
    "respect_gitignore",
    "cache_dir",
    "cache",
    "jobs",
)
_LISTS = ("select", "extend_select", "ignore", "exclude", "extend_exclude")


def _check(options: argparse.Namespace) -> int:
    from session_lint.settings import show

    paths, stdin_path = _paths(options)
    settings = _settings(options, paths)
    if options.show_settings:
        write(show(settings), None, for_people=True)
        return FOUND_NOTHING

    report = _run(paths, settings, stdin_path, quiet=options.quiet)
    if options.verdicts is not None:
        _add_verdicts(report, options.verdicts)
    status = FOUND if report.findings and not options.exit_zero else FOUND_NOTHING
    try:
        _show(report, settings, options)
    except BrokenPipeError:
        forget_output()  # the reader has seen enough; what was found stays found
    return status


def _settings(options: argparse.Namespace, paths: Sequence[Path]) -> Settings:
    from session_lint.settings import load

    overrides: dict[str, object] = {name: getattr(options, name) for name in _OVERRIDES}
    for name in _LISTS:
        lists = getattr(options, name)
        overrides[name] = None if lists is None else [item for items in lists for item in items]
    return load(_start(paths), config=options.config, isolated=options.isolated, overrides=overrides)


def _add_verdicts(report: Report, file: Path) -> None:
    import json

    from session_lint.runtime.verdicts import with_verdicts

    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        report.findings = with_verdicts(report.findings, document)
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CommandError(f"{file}: not the JSON of session-lint confirm ({error})") from error


def _paths(options: argparse.Namespace) -> tuple[list[Path], Path | None]:
    """What to lint, and the path that standard input stands for if it is to be linted."""
    names: list[str] = options.paths
    if any(not name for name in names):
        raise CommandError("a path is empty")
    if "-" not in names and options.stdin_filename is None:
        return [Path(name) for name in names or ["."]], None
    if any(name != "-" for name in names):
        raise CommandError("standard input is linted alone; leave the other paths out")
    path = Path(options.stdin_filename or "stdin.py")
    return [path], path


def _start(paths: Sequence[Path]) -> Path:
    """Where to look for settings: the directory that holds all that is linted."""
    try:
        Path.cwd()
    except OSError:
        raise CommandError("the working directory no longer exists") from None
    try:
        return Path(os.path.commonpath([os.path.abspath(path) for path in paths]))  # noqa: PTH100
    except ValueError:  # on several drives
        return Path.cwd()


def _run(paths: Sequence[Path], settings: Settings, stdin_path: Path | None, *, quiet: bool) -> Report:
    from session_lint.engine import check
    from session_lint.progress import Progress

    source = None
    if stdin_path is not None:
        source = _stdin(stdin_path)
        if settings.force_exclude and _excluded(stdin_path, settings):
            from session_lint.findings import Report

            return Report()
    progress = Progress(sys.stderr) if not quiet and is_terminal(sys.stderr) else None
    try:
        return check(paths, settings, stdin=source, progress=progress)
    finally:
        if progress is not None:
            progress.clear()


def _stdin(path: Path) -> Source:
    from session_lint.source.reading import Source

    if sys.stdin is None:
        raise CommandError("cannot read standard input: it is closed")
    return Source(path, sys.stdin.buffer.read())


def _excluded(path: Path, settings: Settings) -> bool:
    from session_lint.source.discovery import excluded

    return excluded(path, settings)


def _show(report: Report, settings: Settings, options: argparse.Namespace) -> None:
    from session_lint.reporters import render
    from session_lint.reporters.context import Context
    from session_lint.reporters.summary import statistics, summary

    for_people = options.output_format in FOR_PEOPLE
    in_file = options.output_file is not None
    context = Context(
        color=use_color(options.color, to_terminal=not in_file and is_terminal(sys.stdout)),
        show_mitigated=settings.show_mitigated,
        statistics=options.statistics and for_people,
        summary=for_people and not options.quiet and not in_file,
        environment=os.environ,
    )
    if not options.quiet:
        for warning in report.warnings:
            say(f"warning: {warning}")
        if not report.files and not report.warnings:
            say(f"warning: no Python files found in {', '.join(options.paths or ['.'])}")
    write(render(options.output_format, report, context), options.output_file, for_people=for_people)
    if options.statistics and not for_people and report.findings:
        say(f"findings of each rule:\n{statistics(report).rstrip()}")
    if options.verbose:
        say(f"settings: {settings.source or 'none'}; root: {settings.root}")
        for note in report.notes:
            say(note)
    if options.quiet:
        return
    if in_file:
        write(f"{summary(report)}\n", None, for_people=True)
    elif not for_people and options.stdin_filename is None:
        # Machines read standard output; the people who read the log are still told what is held back.
        say(summary(report))
    if report.noqa:
        from session_lint.hints import ruff_hint

        hint = ruff_hint(settings.root)
        if hint is not None:
            say(f"hint: {hint}")


# ----------------------------------------------------------------------------------------------------- confirm


def _confirm(options: argparse.Namespace) -> int:
    from session_lint.runtime import confirm
    from session_lint.source.discovery import discover

    paths, stdin_path = _paths(options)
    settings = _settings(options, paths)
    report = _run(paths, settings, stdin_path, quiet=options.quiet)
    files = [file.display for file in discover(paths, settings).files]
    verdicts, tests_status = confirm.confirm(report, files, options.tests, resume=options.resume, quiet=options.quiet)
    if options.output_format == "text":
        write(confirm.as_text(verdicts), options.output_file, for_people=True)
    elif options.output_format == "json":
        write(confirm.as_json(report, verdicts, None), options.output_file, for_people=False)
    else:
        _show(confirm.with_verdicts(report, verdicts), settings, options)
    if verdicts.report.status not in confirm.FINISHED:
        say(f"error: the tests did not run to their end: pytest ended with exit status {verdicts.report.status}")
        return FAILED
    if tests_status:
        say(f"warning: the tests ended with exit status {tests_status}")
    found = verdicts.findings or verdicts.missed
    return FOUND if found and not options.exit_zero else FOUND_NOTHING


# ----------------------------------------------------------------------------------------------- explain, rules


def _explain(options: argparse.Namespace) -> int:
    from session_lint.rulebook import explanation, load_page

    text = explanation(load_page(options.rule))
    if not use_color(options.color, to_terminal=is_terminal(sys.stdout)) or not _print_markdown(text):
        write(text, None, for_people=True)
    return FOUND_NOTHING


def _print_markdown(text: str) -> bool:
    try:
        from rich.console import Console
        from rich.markdown import Markdown
    except ImportError:
        return False
    Console(force_terminal=True, width=min(Console().width, 100)).print(Markdown(text))
    return True


def _rules(options: argparse.Namespace) -> int:
    from session_lint.rulebook import rules_table

    write(rules_table(options.output_format), None, for_people=options.output_format == "text")
    return FOUND_NOTHING
