"""The command line: which options there are, and what is said of those that don't exist."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from session_lint import __version__
from session_lint.reporters import FORMATS


class CommandError(Exception):
    """The run can't be made. The message is one line for the user."""


class _Parser(argparse.ArgumentParser):
    """One line for an error, instead of the usage and a line."""

    def error(self, message: str) -> NoReturn:
        raise CommandError(message)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options with `command`. Raises CommandError; `--help` and `--version` raise SystemExit."""
    parser = _Parser(
        prog="session-lint",
        description="Finds the SQLAlchemy session bugs that take production down.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"session-lint {__version__}")
    # With `prog`, argparse need not work out the usage to find it, for which it asks the terminal's width.
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", prog=parser.prog, parser_class=_Parser)
    check = commands.add_parser("check", help="lint files and directories", allow_abbrev=False)
    _check_options(check)
    confirm = commands.add_parser(
        "confirm",
        help="prove the findings: session-lint confirm PATHS -- pytest TESTS",
        usage="session-lint confirm [OPTION ...] [PATH ...] -- pytest [TESTS AND OPTIONS ...]",
        description="Runs the tests' command behind -- with real faults, and gives each finding its verdict.",
        allow_abbrev=False,
    )
    _check_options(confirm)
    for unfit in ("--stdin-filename", "--verdicts"):
        confirm._option_string_actions[unfit].help = argparse.SUPPRESS
    confirm.add_argument(
        "--resume",
        metavar="FILE",
        type=Path,
        help="keep there which runs with a fault are done: the same command goes on after an interruption",
    )
    explain = commands.add_parser("explain", help="show a rule's page", allow_abbrev=False)
    explain.add_argument("rule", metavar="CODE", help="such as SES101, or the rule's name")
    _color_option(explain)
    rules = commands.add_parser("rules", help="list the rules", allow_abbrev=False)
    rules.add_argument("--output-format", choices=("text", "json", "markdown"), default="text")
    for command in (check, confirm, explain, rules):
        command.add_argument("-v", "--verbose", action="store_true", help="say more on standard error")

    if not arguments:
        parser.print_help(sys.stderr)
        raise CommandError(f"name a command: {', '.join(commands.choices)}")
    first = arguments[0]
    if first.startswith("-") and first not in parser._option_string_actions:
        raise CommandError(f"{first} stands before the command; write session-lint check {first}")
    if not first.startswith("-") and first not in commands.choices:
        raise CommandError(_unknown_command(first, list(commands.choices)))
    tests: list[str] = []
    if first == "confirm" and "--" in arguments:
        end = list(arguments).index("--")
        arguments, tests = arguments[:end], list(arguments[end + 1 :])
    options, unknown = parser.parse_known_args(arguments)
    options.tests = tests
    if options.command in {"check", "confirm"} and not any(word.startswith("-") for word in unknown):
        # argparse takes only the first group of paths: "check a.py --statistics b.py".
        options.paths.extend(unknown)
        unknown = []
    if unknown:
        word = next((word for word in unknown if word.startswith("-")), unknown[0])
        raise CommandError(_unknown_option(word, commands.choices[options.command]))
    return options


def _unknown_command(word: str, commands: list[str]) -> str:
    if os.path.exists(word):  # noqa: PTH110 - Path.exists raises for names that no file can have
        return f'"{word}" is not a command; did you mean "session-lint check {word}"?'
    from session_lint.codes import nearest

    meant = nearest(word, commands)
    return f'unknown command "{word}"' + (
        f'; did you mean "{meant}"?' if meant else f"; there are {', '.join(commands)}"
    )


def _unknown_option(word: str, parser: argparse.ArgumentParser) -> str:
    from session_lint.codes import nearest

    if not word.startswith("-"):
        return f"unexpected argument: {word}"
    # Compared without the dashes, which all have.
    known = [option[2:] for option in parser._option_string_actions if option.startswith("--")]
    option = word.split("=", 1)[0]
    meant = nearest(option.lstrip("-"), known)
    return f"unknown option {option}" + (f"; did you mean --{meant}?" if meant else "")


def _color_option(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="auto: on a terminal without NO_COLOR"
    )


def _check_options(parser: argparse.ArgumentParser) -> None:
    codes: dict[str, Any] = {"action": "append", "metavar": "CODES", "type": _split, "default": None}
    parser.add_argument("paths", nargs="*", metavar="PATH", help="files and directories, or - for standard input [.]")

    rules = parser.add_argument_group("rules")
    rules.add_argument("--select", help='only these: codes, prefixes or "ALL", with commas', **codes)
    rules.add_argument("--extend-select", help="these too", **codes)
    rules.add_argument("--ignore", help="not these", **codes)
    rules.add_argument(
        "--min-confidence", choices=("certain", "likely", "possible"), help="show what is at least this sure"
    )
    rules.add_argument(
        "--ownership",
        choices=("project", "local"),
        help="who has to clean up: anybody on the way out, or each function by itself",
    )
    rules.add_argument(
        "--show-mitigated", action="store_true", default=None, help="also show what somebody cleans up after"
    )

    files = parser.add_argument_group("files")
    patterns = {**codes, "metavar": "PATTERNS"}
    files.add_argument("--exclude", help="pass these over: patterns as in .gitignore, with commas", **patterns)
    files.add_argument("--extend-exclude", help="these too", **patterns)
    files.add_argument(
        "--force-exclude", action="store_true", default=None, help="also if they are named here (for pre-commit)"
    )
    files.add_argument(
        "--no-gitignore",
        dest="respect_gitignore",
        action="store_false",
        default=None,
        help="read files that git ignores too",
    )
    files.add_argument("--stdin-filename", metavar="PATH", help="the file that standard input stands for")

    output = parser.add_argument_group("output")
    output.add_argument("--output-format", choices=FORMATS, default="text")
    output.add_argument("--output-file", metavar="FILE", type=Path, help="write there instead of standard output")
    output.add_argument("--verdicts", metavar="FILE", type=Path, help="show the verdicts of confirm's JSON, too")
    output.add_argument("--statistics", action="store_true", help="count the findings of each rule")
    output.add_argument("--exit-zero", action="store_true", help="exit with 0 even if something is found")
    output.add_argument("-q", "--quiet", action="store_true", help="findings only: no summary, warnings or hints")
    _color_option(output)

    other = parser.add_argument_group("settings and cache")
    other.add_argument("--config", metavar="FILE", type=Path, help="this settings file instead of the nearest one")
    other.add_argument("--isolated", action="store_true", help="no settings file")
    other.add_argument("--show-settings", action="store_true", help="show what would be used, and stop")
    other.add_argument("--cache-dir", metavar="DIRECTORY", type=Path)
    other.add_argument("--no-cache", dest="cache", action="store_false", default=None)
    other.add_argument("--jobs", metavar="N", type=int, help="processes [one per processor]")


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
