"""One probe for all tests of the shim: SQLAlchemy's hooks are for the whole process."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from children import Run, run_in

from session_lint.runtime.postgres import PostgresServer
from session_lint.runtime.probe import Probe


@functools.cache
def the_probe() -> Probe:
    probe = Probe(thorough=True)
    probe.start()
    return probe


@pytest.fixture
def probe() -> Probe:
    return the_probe()


@pytest.fixture
def run(tmp_path: Path, postgres: PostgresServer) -> Run:
    """Runs pytest in a child process."""
    return run_in(tmp_path, postgres.url())
