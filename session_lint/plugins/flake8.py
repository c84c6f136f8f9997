"""session-lint inside flake8: the same engine, the same findings, the same columns as `session-lint check`.

flake8 hands over one file at a time, but the engine judges a file inside its project, and looking at a project
costs more than looking at a file. So everything that flake8 was asked for is judged at once, before flake8
divides the files among its processes; after that a file costs nothing. Text on standard input (an editor's
unsaved buffer) is given to the engine as text that stands for the file named by `--stdin-display-name`.

Suppressions are the engine's: what a `# noqa` or `# session-lint: ignore` has silenced never reaches flake8. With
flake8's `--disable-noqa` none of them counts, and none is reported as unused.
A file with a syntax error never reaches this plugin, because flake8 reports its own E999 and stops there; so
SES902 does not say the same thing twice.
"""

from __future__ import annotations

import argparse
import ast
import multiprocessing
import os
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from session_lint import __version__

if TYPE_CHECKING:
    from flake8.options.manager import OptionManager

    from session_lint.findings import Finding
    from session_lint.settings import Settings
    from session_lint.source.reading import Source

ISSUES = "https://github.com/session-lint/session-lint/issues"

# line, column (0-based: flake8 adds one), text, and a type that flake8 ignores
Problem = tuple[int, int, str, type["Plugin"]]


class Plugin:
    """The entry point that flake8 calls: one instance for each file."""

    name = "session-lint"
    version = __version__

    _settings: ClassVar[Settings | None] = None
    _stdin_name: ClassVar[str | None] = None
    _suppress: ClassVar[bool] = True
    # The findings of every file judged beforehand, by the name that findings call the file.
    _judged: ClassVar[dict[str, list[Finding]]] = {}

    def __init__(self, tree: ast.AST, filename: str, lines: Sequence[str]) -> None:
        # flake8 finds out what a plugin wants from the names of these parameters. `tree` is what makes this
        # a plugin that runs once per file, and only for files that parse.
        self._filename = filename
        self._lines = lines

    @classmethod
    def add_options(cls, manager: OptionManager) -> None:
        """Declare our options in flake8's own configuration and command line."""
        manager.add_option(
            "--session-lint-config",
            metavar="FILE",
            default=None,
            parse_from_config=True,
            normalize_paths=True,
            help="session-lint: settings file to use instead of the nearest pyproject.toml or session-lint.toml",
        )
        manager.add_option(
            "--session-lint-ownership",
            choices=("project", "local"),
            default=None,
            parse_from_config=True,
            help="session-lint: who has to clean up: anybody on the way out, or every function by itself",
        )
        manager.add_option(
            "--session-lint-min-confidence",
            choices=("certain", "likely", "possible"),
            default=None,
            parse_from_config=True,
            help="session-lint: show findings that are at least this sure",
        )

    @classmethod
    def parse_options(cls, options: argparse.Namespace) -> None:
        """Read the settings once for the whole run.

        Raises flake8's ExecutionError (one line, exit status 1) if the settings are wrong: such a run would
        judge every file by rules that nobody asked for.
        """
        from flake8.exceptions import ExecutionError

        from session_lint.settings import SettingsError, load

        overrides: dict[str, object] = {
            "ownership": options.session_lint_ownership,
            "min_confidence": options.session_lint_min_confidence,
            "force_exclude": True,  # flake8 names every file one by one; what the project excludes stays excluded
        }
        config = Path(options.session_lint_config) if options.session_lint_config else None
        try:
            cls._settings = load(_start(options), config=config, overrides=overrides)
        except SettingsError as error:
            message = str(error)  # which may name an option of our command line's
            own = f"session-lint-{message[2:]}" if message.startswith("--") else f"session-lint: {message}"
            raise ExecutionError(own) from error
        cls._stdin_name = options.stdin_display_name if "-" in options.filenames else None
        cls._suppress = not options.disable_noqa
        paths = [Path(name) for name in options.filenames or ["."] if name != "-"]
        try:
            cls._judged = _judge(paths, cls._settings, suppress=cls._suppress)
        except SettingsError as error:  # of a nearer settings file
            raise ExecutionError(f"session-lint: {error}") from error
        except Exception:  # noqa: BLE001 - whatever it is, it shows again with the file that causes it
            cls._judged = {}

    def run(self) -> Iterator[Problem]:
        """The findings of this file, as flake8 wants them."""
        try:
            findings = self._findings()
        # Anything else than a result would take down flake8 with all its other plugins.
        except Exception as error:  # noqa: BLE001
            detail = " ".join(str(error).split())
            text = (
                f"SES902 session-lint failed on this file: {type(error).__name__}: {detail} (please report: {ISSUES})"
            )
            yield 1, 0, text, Plugin
            return
        for finding in findings:
            yield finding.line, finding.column - 1, _text(finding), Plugin

    def _findings(self) -> list[Finding]:
        from session_lint.engine import check
        from session_lint.source.discovery import display_name, excluded

        if self._settings is None:
            raise RuntimeError("flake8 did not call parse_options")
        path = Path(self._filename)
        is_buffer = self._filename == self._stdin_name
        if not is_buffer and (judged := self._judged.get(display_name(path))) is not None:
            return judged
        if excluded(path, self._settings):
            return []
        settings = replace(self._settings, jobs=1)  # flake8's workers may not have processes of their own
        if is_buffer:
            return check([], settings, stdin=_buffer(path, self._lines), suppress=self._suppress).findings
        return check([path], settings, suppress=self._suppress).findings


def _judge(paths: Sequence[Path], settings: Settings, *, suppress: bool) -> dict[str, list[Finding]]:
    """The findings of all Python files below the paths, an empty list for a file without."""
    from session_lint.engine import check
    from session_lint.source.discovery import discover

    existing = [path for path in paths if path.exists()]  # flake8 has its own words for the others
    if not existing:
        return {}
    if multiprocessing.current_process().daemon:
        settings = replace(settings, jobs=1)
    judged: dict[str, list[Finding]] = {file.display: [] for file in discover(existing, settings).files}
    for finding in check(existing, settings, suppress=suppress).findings:
        judged.setdefault(finding.path, []).append(finding)
    return judged


def _start(options: argparse.Namespace) -> Path:
    """Where to look for settings: the directory that holds all that is linted, as on the command line."""
    names = [options.stdin_display_name if name == "-" else name for name in options.filenames or ["."]]
    try:
        return Path(os.path.commonpath([os.path.abspath(name) for name in names]))  # noqa: PTH100
    except ValueError:  # on several drives
        return Path.cwd()


def _text(finding: Finding) -> str:
    """As in the command line's concise output."""
    from session_lint.reporters.context import doubt
    from session_lint.reporters.style import clean

    return f"{finding.code} {clean(finding.message)}{doubt(finding)}"


def _buffer(path: Path, lines: Sequence[str]) -> Source:
    """The text as bytes again, in the encoding that it declares, for the engine decodes it once more."""
    from session_lint.source.reading import Source

    text = "".join(lines)
    declared = (line.encode("utf-8", "replace") for line in lines[:2])
    try:
        encoding, _ = tokenize.detect_encoding(lambda: next(declared, b""))
        return Source(path, text.encode(encoding))
    except (SyntaxError, UnicodeError):  # an unknown encoding, or characters that the declared one does not have
        return Source(path, text.encode("utf-8", "surrogatepass"))
