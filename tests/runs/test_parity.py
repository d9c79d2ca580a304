"""Parity forgives a file the rounding that the network itself amplifies, and nothing else."""

import numpy as np
import onnx_ir as ir
import pytest

from n2n_edge.data.dataset import Data, Split
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.errors import UnsuitableEnvironmentError
from n2n_edge.graph.image_session import ImageSession
from n2n_edge.runs.parity import MAX_RELATIVE_ERROR, check_parity
from n2n_edge.tasks.values import Values
from tests.graph.test_free_batch import Net

SIZE = 8


def network(offset: float) -> ir.Model:
    """Adds a number to its inputs and takes it off again, which costs digits."""
    net = Net()
    y = net.op("Conv", "x", net.constant(np.eye(3)[:, :, None, None], np.float32))
    y = net.op("Sub", net.op("Add", y, net.constant(offset, np.float32)), net.constant(offset, np.float32))
    shape = ["N", 3, SIZE, SIZE]
    return ir.from_proto(net.model(y, shape, shape))


def images() -> Data:
    pixels = np.random.default_rng(0).integers(0, 255, (12, SIZE, SIZE, 3), dtype=np.uint8)
    split = Split(pixels, None)
    return Data(split, split, split, (), Preprocessing((SIZE, SIZE)), task=Values())


def parity(monkeypatch, tmp_path, offset, error=0.0):
    """Hold a network against a file that computes it exactly, but for an error relative to its largest output."""
    path = tmp_path / "student.onnx"
    ir.save(network(offset), path)
    monkeypatch.setattr(ImageSession, "run", lambda self, batch: [(batch * (1 + error)).astype(np.float32)])
    return check_parity(network(offset), path, images())


def test_a_network_that_amplifies_rounding_ships_with_a_warning(monkeypatch, tmp_path):
    found = parity(monkeypatch, tmp_path, 1e5)
    assert found.max_relative_error > MAX_RELATIVE_ERROR
    assert found.rounding == pytest.approx(found.max_relative_error, rel=0.01)
    assert [notice.code for notice in found.notices] == ["amplifies-rounding"]


def test_a_network_that_doesnt_says_nothing(monkeypatch, tmp_path):
    found = parity(monkeypatch, tmp_path, 1.0, error=0.5 * MAX_RELATIVE_ERROR)
    assert (found.rounding, found.notices) == (None, ())


@pytest.mark.parametrize(("offset", "error"), [(1.0, 0.002), (1e5, 0.03), (1e7, 0.03), (1.0, float("nan"))])
def test_a_file_that_is_something_else_is_refused(monkeypatch, tmp_path, offset, error):
    with pytest.raises(UnsuitableEnvironmentError, match="the file isn't what was trained"):
        parity(monkeypatch, tmp_path, offset, error)


def test_a_runtime_that_rounds_coarsely_is_known_by_its_own_disagreement(monkeypatch, tmp_path):
    class Fixed:
        batch = None

        def __init__(self, error):
            self.error = error

        def run(self, batch):
            return [(batch * (1 + self.error)).astype(np.float32)]

    path = tmp_path / "student.onnx"
    ir.save(network(1.0), path)
    monkeypatch.setattr(ImageSession, "learned", lambda _, optimised=True: Fixed(0.002 if optimised else 0.001))
    assert check_parity(network(1.0), path, images()).rounding == pytest.approx(0.001, rel=0.05)
    monkeypatch.setattr(ImageSession, "learned", lambda _, optimised=True: Fixed(0.002))
    with pytest.raises(UnsuitableEnvironmentError, match="the file isn't what was trained"):
        check_parity(network(1.0), path, images())


def test_a_coarse_file_of_one_image_at_a_time_is_held_to_all_images(monkeypatch, tmp_path):
    one = network(1.0)
    one.graph.inputs[0].shape = ir.Shape([1, 3, SIZE, SIZE])
    path = tmp_path / "student.onnx"
    ir.save(one, path)
    calls = []

    def run(self, batch):
        calls.append(batch)
        return [batch + (np.float32(off) if len(calls) == 1 else 0)]

    off = 0.02
    monkeypatch.setattr(ImageSession, "run", run)
    found = check_parity(network(1.0), path, images(), coarse=True)
    assert len(calls) == 12
    largest = max(float(np.abs(batch).max()) for batch in calls)
    assert found.max_relative_error == pytest.approx(off / 12**0.5 / largest, rel=0.01)
    calls.clear()
    off = 0.04
    with pytest.raises(UnsuitableEnvironmentError, match="the file isn't what was trained"):
        check_parity(network(1.0), path, images(), coarse=True)
