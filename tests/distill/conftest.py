"""Fixtures for the tests of this folder."""

import pytest

from n2n_edge.distill import Data
from tests.distill import small


@pytest.fixture
def striped_data() -> Data:
    return small.striped_data()
