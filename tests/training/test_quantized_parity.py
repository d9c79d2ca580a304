"""Parity of a network in training form with the file that ships, on real images and real networks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from n2n_edge.graph.batchnorm import fold_batchnorm
from n2n_edge.graph.pairs import behind_pairs
from n2n_edge.graph.teacher import Teacher
from n2n_edge.quantize.calibrate import Calibration
from n2n_edge.quantize.device_plan import host_plan
from n2n_edge.quantize.plan import Activations, QuantizationPlan
from n2n_edge.quantize.qdq import activations, folded, with_qdq
from n2n_edge.training.executor import GraphModule

pytestmark = pytest.mark.processor

Floats = NDArray[np.float32]
NETWORKS = {
    "resnet20": ("teachers/resnet20_jpeg.onnx", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "resnet8": ("models/mlperftiny_ic_resnet8_fp32.onnx", (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
}


@dataclass(frozen=True)
class Quantized:
    """A network in training form, the images, and what a step of its outputs is."""

    model: ir.Model
    images: Floats
    step: float


@pytest.fixture(scope="module", params=list(NETWORKS))
def network(request: pytest.FixtureRequest, shared_data: Path) -> tuple[ir.Model, Floats]:
    """A float network in front of its Softmax, and photographs."""
    path, mean, std = NETWORKS[request.param]
    model = fold_batchnorm(Teacher.load(shared_data / path).model)
    last = model.graph.outputs[0].producer()
    if last is not None and last.op_type == "Softmax" and last.inputs[0] is not None:
        model.graph.outputs[0] = last.inputs[0]
        model.graph.remove(last)
    with np.load(shared_data / "sign-digits-32.npz") as data:
        images = data["x_test"][:64].transpose(0, 3, 1, 2).astype(np.float32) / 255
    parts = [np.array(each, np.float32).reshape(1, 3, 1, 1) for each in (mean, std)]
    return model, (images - parts[0]) / parts[1]


def feeds(model: ir.Model, images: Floats) -> Iterator[Mapping[str, Floats]]:
    """Yield images as the graph takes them."""
    value = model.graph.inputs[0]
    last = value.shape is not None and value.shape[-1] == 3
    yield {str(value.name): np.ascontiguousarray(images.transpose(0, 2, 3, 1) if last else images)}


def quantized(network: tuple[ir.Model, Floats], kind: Activations) -> Quantized:
    model, images = network
    plan = QuantizationPlan(weight_bits=host_plan().weight_bits, activations=kind)
    calibration = Calibration.of(model, activations(model, plan), feeds(model, images))
    with torch.inference_mode():
        outputs = GraphModule(model, whole=True)(torch.from_numpy(images))
    assert isinstance(outputs, torch.Tensor)
    return Quantized(
        with_qdq(model, calibration.ranges("minmax"), plan), images, float(outputs.max() - outputs.min()) / 255
    )


def runtime(model: ir.Model, images: Floats, *, optimised: bool) -> Floats:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (feed,) = feeds(model, images)
    return np.asarray(session.run(None, dict(feed))[0])


def is_constant(node: ir.Node) -> bool:
    """Tell whether a DequantizeLinear gives a weight."""
    return node.inputs[0] is None or behind_pairs(node.inputs[0]).const_value is not None


def in_torch(model: ir.Model, images: Floats, *, dtype: torch.dtype = torch.float32) -> Floats:
    with torch.inference_mode():
        outputs = GraphModule(model, whole=True).to(dtype)(torch.from_numpy(images).to(dtype))
    assert isinstance(outputs, torch.Tensor)
    return outputs.float().numpy()


@pytest.fixture(scope="module")
def u8(network: tuple[ir.Model, Floats]) -> Quantized:
    return quantized(network, "uint8")


def steps_apart(found: Quantized, *, optimised: bool, dtype: torch.dtype = torch.float32) -> Floats:
    """Return by how many steps of the outputs the file that ships is away from what torch says of the training form."""
    theirs = runtime(folded(found.model), found.images, optimised=optimised)
    own = in_torch(found.model, found.images, dtype=dtype)
    assert (own.argmax(1) == theirs.argmax(1)).mean() >= 0.95
    return np.abs(own - theirs) / found.step


def test_what_ships_computes_what_was_trained(u8: Quantized) -> None:
    # integer kernels add exactly, so floats of 32 bits, whose last bits are the processor's, would be the less exact
    apart = steps_apart(u8, optimised=True, dtype=torch.float64)

    # a sum that lies between two steps falls to either by its last bit, and those behind it follow
    assert np.quantile(apart, 0.9) <= 0.5
    assert apart.mean() <= 0.15


def test_floats_in_another_order_are_half_a_step_apart_on_average(u8: Quantized) -> None:
    assert steps_apart(u8, optimised=False).mean() <= 0.5


def test_the_shipped_form_is_the_training_form(u8: Quantized) -> None:
    assert np.array_equal(in_torch(u8.model, u8.images), in_torch(folded(u8.model), u8.images))


def test_first_layers_are_exact(u8: Quantized) -> None:
    """Where no pool is quantized, and sums are few, nothing lies between two steps."""
    model = u8.model.clone()
    pairs = [node for node in model.graph if node.op_type == "DequantizeLinear" and not is_constant(node)]
    model.graph.outputs[:] = [pairs[3].outputs[0]]
    model.graph.outputs[0].dtype = ir.DataType.FLOAT

    assert np.array_equal(in_torch(model, u8.images), runtime(folded(model), u8.images, optimised=True))
