"""What the tests of the shim share."""

from __future__ import annotations

from pathlib import Path

import pytest
from children import Run, run_in
from probing import probe

from session_lint.runtime.postgres import PostgresServer

__all__ = ["probe"]


@pytest.fixture
def run(tmp_path: Path, postgres: PostgresServer) -> Run:
    """Runs pytest in a child process."""
    return run_in(tmp_path, postgres.url())
