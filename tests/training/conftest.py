"""Fixtures for the tests of this folder."""

from collections.abc import Iterator

import pytest
import torch

from n2n_edge.data.dataset import Data
from tests.training import small


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Calculate on one thread: models as small as these only wait for a second one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def striped_data() -> Data:
    return small.striped_data()
