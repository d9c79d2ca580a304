"""Files from elsewhere, mutated: one line at most, in bounded time and memory, and nothing written over.

`N2N_EDGE_FUZZ_INPUTS` says how many inputs the slow test feeds.
"""

import os
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.faults.hunt import Finding, Hunt, running_hunt, shares
from tests.faults.subjects import SUBJECTS
from tests.fork_server import Forks

CHEAP = [kind for kind in SUBJECTS if kind not in ("onnx", "metadata", "weights")]


@pytest.fixture(scope="module")
def hunt(command_forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hunt]:
    with running_hunt(tmp_path_factory.mktemp("hunt"), command_forks) as found:
        yield found


def check(found: Finding) -> None:
    assert not found.is_fault, f"{found.kind}: {found.outcome}: {found.text}\n{found.traceback}"
    assert found.outcome != "unforeseen", f"{found.kind}: {found.text}\n{found.traceback}"


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(CHEAP), random=st.randoms(use_true_random=True))
def test_mutated_files_are_read_or_refused(hunt: Hunt, kind: str, random: Random) -> None:
    check(hunt.read(kind, random))


@pytest.mark.parametrize("seed", range(3))
def test_mutated_models_are_read_or_refused(hunt: Hunt, seed: int) -> None:
    check(hunt.read("onnx", Random(seed)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", SUBJECTS)
def test_many_mutated_files_are_read_or_refused(hunt: Hunt, kind: str) -> None:
    first = int(os.environ.get("N2N_EDGE_FUZZ_SEED", "0"))
    count = shares(int(os.environ.get("N2N_EDGE_FUZZ_INPUTS", "10000")))[kind]
    for seed in range(first, first + count):
        found = hunt.read(kind, Random(seed))
        assert not found.is_fault, f"{kind} {seed}: {found.outcome}: {found.text}\n{found.traceback}"


@pytest.mark.parametrize(
    ("what", "outcome"),
    [
        ("os.abort()", "signal"),
        ("raise KeyError(3)", "traceback"),
        ("(folder / 'a').write_text('x')", "overwritten"),
    ],
)
def test_a_fault_is_seen(hunt: Hunt, what: str, outcome: str) -> None:
    found = hunt.read_files("code", {"a": b"", "code.py": what.encode()}, 0)
    assert found.outcome == outcome
