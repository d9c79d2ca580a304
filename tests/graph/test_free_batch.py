"""A network exported for one image is opened into one that does the same for every image, or not at all."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from n2n_edge.graph.free_batch import fix_batch
from n2n_edge.graph.shape_run import run_graph
from n2n_edge.graph.teacher import Teacher
from tests.graph.running import has_free_batch, run

Body = Callable[["Net", str], str]

CHANNELS, SIZE = 4, 8


class Net:
    """A small graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(0)

    def constant(self, array: object, kind: type = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, kind), name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def random(self, *shape: int) -> str:
        return self.constant(self.rng.standard_normal(shape) * 0.3)

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        names = [f"v{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0]

    def conv(self, x: str, width: int, filters: int, stride: int = 1) -> str:
        weights = self.random(filters, width, 3, 3), self.random(filters)
        return self.op("Conv", x, *weights, kernel_shape=[3, 3], pads=[1] * 4, strides=[stride] * 2)

    def model(
        self,
        output: str,
        sizes: Sequence[int | str],
        output_sizes: Sequence[int | str] | None,
        *,
        kind: int = TensorProto.FLOAT,
        opset: int = 17,
    ) -> onnx.ModelProto:
        """Return the finished graph, whose input ``x`` has these `sizes` and is of this `kind`."""
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", kind, sizes)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, output_sizes)],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)

    def low(self, x: str) -> str:
        return self.op("Relu", self.conv(x, CHANNELS, CHANNELS, 2))


def network(body: Body, opset: int = 17, *, tail: bool = True) -> ir.Model:
    """Convolution, `body`, and a classifier behind it; made for one image."""
    net = Net()
    y = body(net, net.op("Relu", net.conv("x", 3, CHANNELS)))
    shape: list[int | str] | None = None
    if tail:
        pooled = net.op("Flatten", net.op("GlobalAveragePool", net.op("Relu", net.conv(y, CHANNELS, 6))))
        y = net.op("Gemm", pooled, net.random(5, 6), net.random(5), transB=1)
        shape = [1, 5]
    return ir.from_proto(net.model(y, [1, 3, SIZE, SIZE], shape, opset=opset))


def add(net: Net, y: str, other: str) -> str:
    return net.op("Add", y, other)


def gate(net: Net, y: str, other: str) -> str:
    return net.op("Mul", y, net.op("Sigmoid", other))


def enlarged(mode: str, **more: object) -> Body:
    return lambda net, y: net.op(
        "Resize", net.low(y), "", "", net.ints(1, CHANNELS, SIZE, SIZE), mode=mode, **more
    )  # fmt: skip


def pooled(net: Net, y: str) -> str:
    return net.op("GlobalAveragePool", y)


def attention(net: Net, y: str, rows: tuple[int, ...], perm: list[int], back: list[int]) -> str:
    """Attend over the positions of a map; `rows` is the shape of the map's matrix."""
    matrix = net.op("Transpose", net.op("Reshape", y, net.ints(*rows)), perm=perm)
    scores = net.op("Softmax", net.op("MatMul", matrix, net.op("Transpose", matrix, perm=perm)), axis=-1)
    mixed = net.op("Transpose", net.op("MatMul", scores, matrix), perm=back)
    return net.op("Reshape", mixed, net.ints(1, CHANNELS, SIZE, SIZE))


OPENED: dict[str, tuple[Body, int]] = {
    "plain": (lambda net, y: net.low(y), 17),
    "reshape": (lambda net, y: net.op("Reshape", y, net.ints(1, CHANNELS, SIZE * 2, SIZE // 2)), 17),
    "nearest to sizes, added": (lambda net, y: add(net, y, enlarged("nearest")(net, y)), 17),
    "nearest to sizes of three axes": (
        lambda net, y: add(
            net, y, net.op("Resize", net.low(y), "", "", net.ints(CHANNELS, SIZE, SIZE), mode="nearest", axes=[1, 2, 3])
        ),
        18,
    ),
    "linear to sizes": (lambda net, y: enlarged("linear")(net, y), 18),
    "sizes as a gate": (lambda net, y: gate(net, y, enlarged("linear")(net, y)), 13),
    "uneven sizes": (
        lambda net, y: net.op("Resize", net.low(y), "", "", net.ints(1, CHANNELS, 7, 11), mode="nearest"),
        13,
    ),
    "slice of the first": (
        lambda net, y: add(
            net, y, net.op("Slice", net.conv(y, CHANNELS, CHANNELS), net.ints(0), net.ints(1), net.ints(0))
        ),
        17,
    ),
    "slice of the last": (
        lambda net, y: add(net, y, net.op("Slice", y, net.ints(-1), net.ints(2**31), net.ints(0))),
        17,
    ),
    "mean over batch and space": (
        lambda net, y: net.op("Sub", y, net.op("ReduceMean", y, axes=[0, 2, 3], keepdims=1)),
        17,
    ),
    "mean, axes as an input": (
        lambda net, y: net.op("Sub", y, net.op("ReduceMean", y, net.ints(0, 2, 3), keepdims=1)),
        18,
    ),
    "sum, axes as an input": (
        lambda net, y: net.op("Sub", y, net.op("ReduceSum", y, net.ints(0, 2, 3), keepdims=1)),
        13,
    ),
    "maximum of everything": (lambda net, y: net.op("Sub", y, net.op("ReduceMax", y, keepdims=1)), 17),
    "norm with default axes": (lambda net, y: net.op("MeanVarianceNormalization", y), 17),
    "batch in the middle": (
        lambda net, y: net.op(
            "Transpose",
            add(net, net.op("Transpose", y, perm=[1, 0, 2, 3]), net.random(CHANNELS, 1, SIZE, SIZE)),
            perm=[1, 0, 2, 3],
        ),
        17,
    ),
    "attention within an image": (
        lambda net, y: attention(net, y, (1, CHANNELS, SIZE * SIZE), [0, 2, 1], [0, 2, 1]),
        17,
    ),
}

OPENED |= {
    "a constant joined to the channels": (
        lambda net, y: net.op(
            "Slice",
            net.op("Concat", net.random(1, 2, SIZE, SIZE), y, axis=1),
            net.ints(1),
            net.ints(1 + CHANNELS),
            net.ints(1),
        ),
        17,
    ),
    "a class token": (
        lambda net, y: net.op(
            "Reshape",
            net.op(
                "Slice",
                net.op(
                    "Concat",
                    net.random(1, CHANNELS, 1),
                    net.op("Reshape", y, net.ints(1, CHANNELS, SIZE * SIZE)),
                    axis=-1,
                ),
                net.ints(0),
                net.ints(SIZE * SIZE),
                net.ints(2),
            ),
            net.ints(1, CHANNELS, SIZE, SIZE),
        ),
        13,
    ),
    "a grid of one image": (
        lambda net, y: net.op("GridSample", y, net.constant(Net().rng.uniform(-1, 1, (1, SIZE, SIZE, 2)))),
        16,
    ),
}

EITHER: dict[str, tuple[Body, int]] = {
    "gather of the first": (lambda net, y: add(net, y, net.op("Gather", y, net.constant(0, np.int64), axis=0)), 17),
    "gather of the last": (lambda net, y: add(net, y, net.op("Gather", y, net.constant(-1, np.int64), axis=0)), 17),
    "gather of a gate": (
        lambda net, y: gate(net, y, net.op("Gather", pooled(net, y), net.constant(0, np.int64), axis=0)),
        17,
    ),
    "gather of a list": (lambda net, y: add(net, y, net.op("Gather", y, net.ints(0), axis=0)), 17),
    "slice with a step backwards": (
        lambda net, y: net.op("Slice", y, net.ints(-1), net.ints(-(2**31)), net.ints(0), net.ints(-1)),
        17,
    ),
    "squeezed and put back": (
        lambda net, y: net.op("Unsqueeze", net.op("Squeeze", y, net.ints(0)), net.ints(0)),
        17,
    ),
    "sum over the batch": (
        lambda net, y: add(net, y, net.op("ReduceSum", y, net.ints(0), keepdims=1)),
        17,
    ),
    "softmax over the batch": (lambda net, y: net.op("Mul", y, net.op("Softmax", y, axis=0)), 17),
    "softmax of everything": (lambda net, y: net.op("Mul", y, net.op("Softmax", y, axis=0)), 11),
    "cumulative sum over the batch": (lambda net, y: net.op("CumSum", y, net.constant(0, np.int64)), 17),
    "the largest of the batch": (
        lambda net, y: add(net, y, net.op("TopK", y, net.ints(1), outputs=2, axis=0)),
        17,
    ),
    "sorted over the batch through a transpose": (
        lambda net, y: net.op(
            "Transpose",
            net.op("TopK", net.op("Transpose", y, perm=[1, 0, 2, 3]), net.ints(1), outputs=2, axis=1),
            perm=[1, 0, 2, 3],
        ),
        17,
    ),
    "attention across images": (
        lambda net, y: attention(net, y, (CHANNELS, SIZE * SIZE), [1, 0], [1, 0]),
        17,
    ),
    "attention across images, free length": (
        lambda net, y: attention(net, y, (CHANNELS, -1), [1, 0], [1, 0]),
        17,
    ),
    "gram matrix of the batch": (
        lambda net, y: add(
            net,
            y,
            net.op(
                "Reshape",
                net.op(
                    "MatMul",
                    net.op(
                        "MatMul",
                        net.op("Flatten", pooled(net, y)),
                        net.op("Transpose", net.op("Flatten", pooled(net, y)), perm=[1, 0]),
                    ),
                    net.op("Flatten", pooled(net, y)),
                ),
                net.ints(-1, CHANNELS, 1, 1),
            ),
        ),
        17,
    ),
    "mixed behind a saturation": (
        lambda net, y: gate(
            net,
            y,
            net.op(
                "Add",
                net.op("Mul", net.op("Gather", y, net.constant(0, np.int64), axis=0), net.constant(1e-6)),
                net.constant(30.0),
            ),
        ),
        17,
    ),
    "mixed into a dead branch": (
        lambda net, y: add(
            net,
            y,
            net.op("Mul", net.op("Gather", y, net.constant(0, np.int64), axis=0), net.constant(np.zeros(1))),
        ),
        17,
    ),
    "flattened over all": (
        lambda net, y: gate(
            net,
            y,
            net.op(
                "Reshape",
                net.op("MatMul", net.op("Flatten", pooled(net, y), axis=0), net.random(CHANNELS, CHANNELS)),
                net.ints(1, CHANNELS, 1, 1),
            ),
        ),
        17,
    ),
    "condition on the batch": (
        lambda net, y: net.op(
            "Where",
            net.op("Greater", net.op("ReduceMean", y, keepdims=1, axes=[0, 1, 2, 3]), net.constant(0.2)),
            y,
            net.op("Neg", y),
        ),
        17,
    ),
    "condition on the largest of the batch": (
        lambda net, y: net.op(
            "Where", net.op("Greater", y, net.op("ReduceMax", y, axes=[0], keepdims=0)), net.op("Neg", y), y
        ),
        17,
    ),
}


def images() -> np.ndarray:
    rng = np.random.default_rng(9)
    scales = np.array([1, -2, 0.05, 20], np.float32).reshape(-1, 1, 1, 1)
    return (rng.standard_normal((4, 3, SIZE, SIZE)) * scales).astype(np.float32)


def apart(model: ir.Model, opened: ir.Model) -> float:
    """How far a batch is from its images one by one, relative to each image's own output."""
    batch = images()
    alone = [run(model, {"x": image[None]})[0] for image in batch]
    together = run(opened, {"x": batch})[0]
    assert together.shape == (len(batch), *alone[0].shape[1:])
    return max(
        float(np.abs(one[0] - other).max() / max(np.abs(one).max(), 1e-6))
        for one, other in zip(alone, together, strict=True)
    )


@pytest.mark.parametrize("tail", [True, False])
@pytest.mark.parametrize("name", OPENED)
def test_what_has_a_form_for_every_image_is_opened(name: str, tail: bool) -> None:
    body, opset = OPENED[name]
    model = network(body, opset, tail=tail)
    opened = Teacher(model).model

    assert has_free_batch(opened)
    assert apart(model, opened) < 1e-4


@pytest.mark.parametrize("tail", [True, False])
@pytest.mark.parametrize("name", EITHER)
def test_what_mixes_images_stays_closed_or_is_opened_rightly(name: str, tail: bool) -> None:
    body, opset = EITHER[name]
    model = network(body, opset, tail=tail)
    opened = Teacher(model).model

    if has_free_batch(opened):
        assert apart(model, opened) < 1e-4
    else:
        assert list(opened.graph.inputs[0].shape or ()) == [1, 3, SIZE, SIZE]


@pytest.mark.parametrize("name", ["mixed into a dead branch", "mixed behind a saturation"])
def test_mixing_that_the_output_hides_keeps_the_model_closed(name: str) -> None:
    body, opset = EITHER[name]

    assert not has_free_batch(Teacher(network(body, opset)).model)


@pytest.mark.parametrize("name", ["slice of the first", "a class token", "reshape"])
def test_a_student_for_one_image_is_opened_again(name: str) -> None:
    body, opset = OPENED[name]
    student = fix_batch(Teacher(network(body, opset)).model)

    assert has_free_batch(Teacher(student).model)


def test_a_network_that_is_too_large_is_compared_by_its_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """All values of a network of 35 GMACs for 320x320 pixels took more memory than a comparison has."""
    most: list[int] = []

    def watched(model: ir.Model, inputs: object, names: set[str]) -> dict[str, np.ndarray]:
        most.append(len(names))
        return run_graph(model, inputs, names)  # type: ignore[arg-type]

    monkeypatch.setattr("n2n_edge.graph.free_batch.run_graph", watched)
    monkeypatch.setattr("n2n_edge.graph.free_batch._MOST_COMPARED", 10)
    body, opset = OPENED["reshape"]
    mixing, their_opset = EITHER["softmax over the batch"]

    assert has_free_batch(Teacher(network(body, opset)).model)
    assert not has_free_batch(Teacher(network(mixing, their_opset)).model)
    assert set(most) == {1}
