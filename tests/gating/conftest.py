"""Fixtures of the tests of this folder."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def _quick_workers(quick_workers: None) -> None:
    """See `quick_workers`."""
