"""The output formats: one module each, with a function `render(report, context) -> str`.

Adding a format is a new module and its name in `FORMATS`. Modules are imported when they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from session_lint.findings import Report
    from session_lint.reporters.context import Context

FORMATS = ("text", "concise", "json", "github", "sarif", "junit", "gitlab")
"""The names for `--output-format`."""

FOR_PEOPLE = ("text", "concise")
"""The formats that end with a summary, and that follow the terminal's encoding instead of being UTF-8."""


class Reporter(Protocol):
    def render(self, report: Report, context: Context) -> str:
        """The report in this format, ending with a line end unless it is empty."""


def render(output_format: str, report: Report, context: Context) -> str:
    """The report in a format. Raises ValueError for one that doesn't exist."""
    if output_format not in FORMATS:
        raise ValueError(f"unknown output format: {output_format}")
    from importlib import import_module

    return cast("Reporter", import_module(f"{__name__}.{output_format}")).render(report, context)
