"""Gradients of strided convolutions in the executor against float64; a process, since the wrong kernel kills it."""

import sys
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from n2n_edge.training.executor import GraphModule

SIZE = 12
PASSES = 2
LIMIT = 1e-4
"""Largest error, as a share of the largest gradient."""


def one_node(op: str, channels: int, outputs: int, kernel: int, stride: int, groups: int) -> ir.Model:
    """Make a graph of one convolution."""
    random = np.random.RandomState(channels)
    shape = (channels, outputs // groups) if op == "ConvTranspose" else (outputs, channels // groups)
    arrays = {
        "weight": random.randn(*shape, kernel, kernel).astype(np.float32),
        "bias": random.randn(outputs).astype(np.float32),
    }
    node = helper.make_node(
        op, ["x", *arrays], ["y"], strides=[stride] * 2, pads=[kernel // 2] * 4, group=groups, kernel_shape=[kernel] * 2
    )
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", channels, SIZE, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))


def forms(channels: int) -> Iterator[tuple[int, int, int]]:
    """Give strides, groups and batch sizes."""
    for stride in (1, 2, 3):
        for groups in [1, *([2] if channels % 2 == 0 else []), *([channels] if channels % 4 == 0 else [])]:
            for batch in (1, 16):
                yield stride, groups, batch


def reference(op: str, tensors: list[Tensor], kernel: int, stride: int, groups: int, weights: Tensor) -> list[Tensor]:
    """Return the gradients of x, weight and bias in float64, which no optimised kernel calculates."""
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    function = torch.nn.functional.conv_transpose2d if op == "ConvTranspose" else torch.nn.functional.conv2d
    outputs = function(*exact, stride=stride, padding=kernel // 2, groups=groups)
    return list(torch.autograd.grad((outputs * weights.double()).sum(), exact))


def check(op: str, kernel: int, channels: int) -> list[str]:
    """Return what is wrong with the gradients of one width."""
    wrong = []
    for stride, groups, batch in forms(channels):
        what = f"{op} of {kernel}x{kernel}, {channels} channels, stride {stride}, {groups} groups, batch {batch}"
        print(what, file=sys.stderr, flush=True)  # the last line names what didn't come back
        module = GraphModule(one_node(op, channels, 2 * groups, kernel, stride, groups))
        for _ in range(PASSES):
            x = torch.randn(batch, channels, SIZE, SIZE, requires_grad=True)
            tensors = [x, *module.parameters()]
            result = module(x)
            weights = torch.rand(result.shape)
            found = torch.autograd.grad((result * weights).sum(), tensors)
        exact = reference(op, tensors, kernel, stride, groups, weights)
        for name, got, wanted in zip(("x", "weight", "bias"), found, exact, strict=True):
            error = float((got.double() - wanted).abs().max() / wanted.abs().max())
            if not error <= LIMIT:
                wrong.append(f"{what}: gradient of {name} is off by {error:.1e}")
    return wrong


if __name__ == "__main__":
    torch.manual_seed(0)
    wrong = []
    for threads, convolved, transposed in (
        (1, (*range(1, 10), 12, 15, 16, 17, 20), (1, 2, 4, 7, 8, 16)),
        (2, (3, 8), (4,)),
    ):
        torch.set_num_threads(threads)
        for op, widths in (("Conv", convolved), ("ConvTranspose", transposed)):
            wrong += [
                f"{threads} threads: {line}"
                for width in widths
                for kernel in (1, 3)
                for line in check(op, kernel, width)
            ]
    print("\n".join(wrong) or "all gradients agree")
    sys.exit(1 if wrong else 0)
