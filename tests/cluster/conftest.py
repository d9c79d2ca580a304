"""A Ray with room for four workers on this machine, for all tests."""

import warnings
from collections.abc import Iterator
from importlib.util import find_spec

import pytest


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Ray with room for four workers; where it runs already, evaluations use it and leave it."""
    if find_spec("ray") is None:
        pytest.skip("needs Ray, the extra [cluster]")
    from n2n_edge.cluster.connection import Connection
    from tests.cluster import made_up

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        with Connection("local", 4, 0):
            import ray

            ray.cloudpickle.register_pickle_by_value(made_up)
            yield
