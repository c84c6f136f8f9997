"""The outermost frame of the children. Has a test's name, so that the shim takes it for no part of the application."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest


def run_pytest(arguments: list[str], directory: Path, environment: dict[str, str], output: Path) -> None:
    """As `python -m pytest` there would."""
    os.chdir(directory)
    sys.path.insert(0, str(directory))
    os.environ.clear()
    os.environ.update(environment)
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(pytest.main(arguments))
