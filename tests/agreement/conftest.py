"""What these tests share with those of the shim, and a garbage collector that has less to look at."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from probing import probe

__all__ = ["probe"]


@pytest.fixture(scope="session", autouse=True)
def frozen() -> Iterator[None]:
    """Each run is followed by a collection; what the libraries and the linter hold need not be looked through."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
