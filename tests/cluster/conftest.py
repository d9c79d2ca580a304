"""A Ray of two workers on this machine, for all tests of a module."""

import warnings
from collections.abc import Iterator

import pytest

ray = pytest.importorskip("ray", reason="needs Ray, the extra [cluster]")


@pytest.fixture(scope="module")
def two_workers() -> Iterator[None]:
    """Ray with room for two workers; where it runs already, evaluations use it and leave it."""
    from n2n_edge.cluster.connection import Connection
    from tests.cluster import made_up

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        with Connection("local", 2, 0):
            ray.cloudpickle.register_pickle_by_value(made_up)
            yield
