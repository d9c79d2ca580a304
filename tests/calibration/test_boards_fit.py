"""How the fit of the public tables is judged: by the runtime that was timed, and terms by all boards together."""

import numpy as np
import pytest

from benchmarks.latency_prediction.fit import held
from benchmarks.latency_prediction.optional_terms import choose
from benchmarks.latency_prediction.tables import Row, Table
from n2n_edge.devices.registry import load_profile
from n2n_edge.devices.terms import TERMS
from n2n_edge.latency.model import LatencyModel

NETWORKS = ("a", "b", "c", "d", "e", "f")


def table(device: str, values: tuple[float, ...] = (1.0,) * 6, terms: float = 1.0) -> Table:
    """Timings of six made-up networks, each with so much of every term."""
    rows = tuple(
        Row(name, name, value, np.full(len(TERMS), terms), 224.0**2, 1e8, 50.0, 1e7)
        for name, value in zip(NETWORKS, values, strict=True)
    )
    return Table(device, "latency", "ncnn", 1, "fp32", rows, "made up")


def test_coverage_is_that_of_the_interval_for_the_runtime_that_was_timed() -> None:
    board = load_profile("raspberry-pi-4")
    own, other = (LatencyModel(board.under(name), 1, "fp32").basis() for name in ("ncnn", "onnxruntime"))
    assert own.high_ratio < other.high_ratio
    between = sum(own.rates.values()) * (own.high_ratio * other.high_ratio) ** 0.5

    assert held(board, table("raspberry-pi-4", (between,) * 6)).coverage == 0


@pytest.mark.parametrize(
    ("gains", "used", "by_others"),
    [
        ((0.03, 0.03, 0.03, 0.02, 0.02, -0.01), True, (True,) * 6),
        ((-0.02, -0.02, -0.02, -0.02, -0.02, 0.4), False, (False,) * 6),  # one network is no evidence
        ((0.03, 0.03, 0.03, -0.02, -0.02, 0.1), True, (*[True] * 5, False)),
    ],
)
def test_terms_are_settled_by_all_boards_and_each_network_is_judged_by_what_the_others_choose(
    gains: tuple[float, ...], used: bool, by_others: tuple[bool, ...]
) -> None:
    tables = [table(device) for device in ("raspberry-pi-4", "rk3399", "raspberry-pi-3b-plus")]
    chance = [np.zeros(6), np.full(6, 0.3), np.full(6, -0.3)]  # of each board, the same for every network
    plain = np.full(6, 0.5)
    full = [plain - np.array(gains) - each for each in chance]

    found = choose(tables, [plain] * 3, full)

    assert found.used is used
    assert set(found.without_chip) == {"raspberry-pi-4", "rk3399", "bcm2837"}
    judged = found.errors(tables[0], plain, full[0])
    assert tuple(bool(each) for each in judged == full[0]) == by_others
