"""Bounds that no calibration image reaches go, others stay."""

import numpy as np
import onnx_ir as ir
import pytest

from n2n_edge.quantize.equalise import equalise
from n2n_edge.quantize.scaling import scalable
from n2n_edge.quantize.unreached import without_unreached_bounds
from tests.graph.running import assert_same_outputs, inputs_of, run
from tests.quantize.pairs import network


def _clips(model: ir.Model) -> int:
    return sum(node.op_type == "Clip" for node in model.graph)


@pytest.mark.parametrize("opset", [11, 17])
def test_what_no_image_reaches_goes_and_channels_are_equalised_through_it(opset: int) -> None:
    model = network("inverted", "plain", activation="Clip", opset=opset)
    images = inputs_of(model, 4)
    small = {name: 0.5 * array for name, array in images.items()}
    plain, gone = without_unreached_bounds(model, [small])
    assert len(gone) == _clips(model) - _clips(plain) > 0
    assert_same_outputs(run(model, small), run(plain, small), relative=1e-6)
    assert scalable(plain).free.sum() > scalable(model).free.sum()
    assert_same_outputs(run(model, small), run(equalise(plain, [small]), small), relative=1e-4)


def test_what_an_image_reaches_stays() -> None:
    model = network("plain", activation="Clip")
    large = {name: 100 * array for name, array in inputs_of(model, 2).items()}
    same, gone = without_unreached_bounds(model, [large])
    names = [str(node.name) for node in model.graph if node.op_type == "Clip"]
    assert names[0] not in gone
    assert np.array_equal(run(same, large)[0], run(model, large)[0])


def test_a_margin_keeps_bounds_that_images_come_near() -> None:
    model = network("plain", "plain", activation="Clip")
    images = inputs_of(model, 4)
    few = [len(without_unreached_bounds(model, [images], margin=margin)[1]) for margin in (1.0, 0.5, 1e-6)]
    assert few[0] >= few[1] >= few[2] == 0
