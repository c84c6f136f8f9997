"""The other linters, each with the options that come nearest to what session-lint looks for."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# flake8 runs every plugin that is installed, whatever is selected; without this it would run ours too.
FLAKE8 = """
import importlib.metadata as metadata, sys
everything = metadata.distributions
metadata.distributions = lambda **given: (
    found for found in everything(**given) if (found.metadata["Name"] or "").lower() != "session-lint"
)
from flake8.main.cli import main
sys.exit(main())
"""


@dataclass(frozen=True)
class Tool:
    """A linter: the modules it needs, and its arguments after the interpreter."""

    name: str
    label: str
    distributions: tuple[str, ...]
    arguments: tuple[str, ...]

    def command(self, python: str, tree: Path) -> list[str]:
        return [python, *self.arguments, str(tree)]

    def version(self, python: str) -> str | None:
        """Versions of what it needs, None if something is not installed."""
        found = [_version(python, name) for name in self.distributions]
        known = [version for version in found if version is not None]
        pairs = zip(self.distributions, known, strict=False)
        return ", ".join(f"{name} {version}" for name, version in pairs) if len(known) == len(found) else None


def _version(python: str, distribution: str) -> str | None:
    script = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
    done = subprocess.run([python, "-c", script, distribution], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    return ("-m", name, *arguments)


PYLINT: Sequence[str] = ("consider-using-with", "broad-exception-caught", "try-except-raise", "lost-exception")

TOOLS: tuple[Tool, ...] = (
    Tool(
        "ruff",
        "ruff --select ALL, no cache",
        ("ruff",),
        _module("ruff", "check", "--isolated", "--no-cache", "-q", "--select", "ALL"),
    ),
    Tool(
        "flake8",
        "flake8 with bugbear and flake8-async",
        ("flake8", "flake8-bugbear", "flake8-async"),
        ("-c", FLAKE8, "--isolated", "-q", "--select", "B,ASYNC"),
    ),
    Tool(
        "pylint",
        "pylint with four checks",
        ("pylint",),
        _module("pylint", "--jobs=0", "--recursive=y", "--disable=all", f"--enable={','.join(PYLINT)}", "--score=n"),
    ),
    Tool("fixit", "fixit, built-in rules", ("fixit",), _module("fixit", "--quiet", "lint")),
)
