"""One probe for all tests: SQLAlchemy's hooks are for the whole process."""

from __future__ import annotations

import functools

import pytest

from session_lint.runtime.probe import Probe


@functools.cache
def the_probe() -> Probe:
    probe = Probe(thorough=True)
    probe.start()
    return probe


@pytest.fixture
def probe() -> Probe:
    return the_probe()
