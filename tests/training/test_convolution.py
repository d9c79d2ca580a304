"""Convolutions whose backward pass oneDNN gets wrong never reach it, and gradients are right on every processor."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.utils._python_dispatch import TorchDispatchMode

from n2n_edge.training.executor import GraphModule, load_student
from tests.fork_server import Forks

ROOT = Path(__file__).resolve().parents[2]
TIME_LIMIT_S = 150


@pytest.mark.processor
@pytest.mark.parametrize("isa", ["as it is", "AVX2"])
def test_gradients_of_strided_convolutions_are_those_of_float64(isa: str, torch_forks: Forks) -> None:
    # in a process of its own with an end: the kernel that must not be reached crashes or never comes back
    environment = os.environ | ({} if isa == "as it is" else {"ONEDNN_MAX_CPU_ISA": isa})
    words = torch_forks.argv([sys.executable, "-m", "tests.training.strided_gradients"])
    child = subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False
    )
    assert (child.returncode, child.stdout) == (0, "all gradients agree\n"), child.stderr[-500:]


class Convolutions(TorchDispatchMode):
    """Notes kernel and strides of every convolution that torch is asked for, forwards and backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = func.overloadpacket.__name__
        if name == "convolution":
            self.seen.append((tuple(args[1].shape[2:]), tuple(args[3])))
        elif name == "convolution_backward":
            self.seen.append((tuple(args[2].shape[2:]), tuple(args[4])))
        return func(*args, **(kwargs or {}))


def unsafe(seen: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return [
        (kernel, strides)
        for kernel, strides in seen
        if all(size == 1 for size in kernel) and any(stride > 1 for stride in strides)
    ]


def graph(op: str, rank: int, **attributes: object) -> ir.Model:
    weights = {"weight": np.ones((4, 4, *(1,) * rank), np.float32)} if "Conv" in op else {}
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node(op, ["x", *weights], ["y"], **attributes)],
            "one",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, *(8,) * rank])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * (2 + rank))],
            [numpy_helper.from_array(array, name) for name, array in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )
    return ir.from_proto(model)


@pytest.mark.parametrize(
    ("op", "rank", "attributes"),
    [
        ("Conv", 1, {"strides": [2]}),
        ("Conv", 2, {"strides": [2, 2]}),
        ("Conv", 2, {"strides": [1, 3]}),
        ("Conv", 2, {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ("Conv", 2, {"strides": [2, 2], "pads": [0, 1, 1, 0]}),
        ("Conv", 2, {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        ("Conv", 3, {"strides": [2, 2, 1]}),
        ("ConvTranspose", 1, {"strides": [2]}),
        ("ConvTranspose", 2, {"strides": [2, 2]}),
        ("ConvTranspose", 2, {"strides": [2, 2], "pads": [1, 0, 0, 1]}),
        ("ConvTranspose", 3, {"strides": [1, 2, 2]}),
        ("LpPool", 2, {"kernel_shape": [1, 1], "strides": [2, 2]}),
        ("AveragePool", 2, {"kernel_shape": [1, 1], "strides": [2, 2], "pads": [0, 0, 1, 1], "count_include_pad": 1}),
        ("AveragePool", 2, {"kernel_shape": [1, 1], "strides": [3, 3], "ceil_mode": 1}),
    ],
)
def test_no_strided_pointwise_convolution_is_asked_of_torch(op: str, rank: int, attributes: dict[str, object]) -> None:
    module = GraphModule(graph(op, rank, **attributes))
    with Convolutions() as convolutions:
        x = torch.rand(2, 4, *(8,) * rank, requires_grad=True)
        module(x).sum().backward()
    assert convolutions.seen
    assert unsafe(convolutions.seen) == []


def test_a_loaded_student_trains_without_them_too(tmp_path: Path) -> None:
    path = tmp_path / "student.onnx"
    ir.save(graph("Conv", 2, strides=[2, 2]), path)
    student = load_student(path)
    with Convolutions() as convolutions:
        student.train()(torch.rand(2, 4, 8, 8)).sum().backward()
    assert convolutions.seen
    assert unsafe(convolutions.seen) == []


def test_the_memory_format_survives_a_strided_pointwise_convolution() -> None:
    x = torch.rand(2, 4, 8, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    module = GraphModule(graph("Conv", 2, strides=[2, 2]))
    outputs = module(x)
    outputs.sum().backward()
    assert outputs.is_contiguous(memory_format=torch.channels_last)
    assert x.grad is not None
    assert x.grad.is_contiguous(memory_format=torch.channels_last)
