"""One teacher with everything unusual about its input and outputs goes through a run."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import TensorProto, helper

import n2n_edge
from n2n_edge.graph.free_batch import takes_one_image
from n2n_edge.graph.teacher import Teacher
from tests.graph.test_free_batch import Net

SIZE = 12


def teacher(path: Path) -> Path:
    """Channels last, for one image, which a Gather takes the batch off; scaled by an input; the best of its scores."""
    net = Net()
    x = net.op("Transpose", "x", perm=[0, 3, 1, 2])
    y = net.op("Relu", net.conv(x, 3, 8))
    y = net.op("Relu", net.conv(y, 8, 8))
    mixed = net.op("Softmax", net.op("Gather", y, net.constant(0, np.int64), axis=0), axis=-1)
    y = net.op("Mul", y, mixed)
    scores = net.op("Mul", net.op("Sigmoid", net.conv(y, 8, 2)), "scale")
    flat = net.op("Reshape", scores, net.ints(1, -1))
    best = net.op("TopK", flat, net.ints(5), outputs=2, axis=1)
    graph = helper.make_graph(
        net.nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, SIZE, SIZE, 3]),
            helper.make_tensor_value_info("scale", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info(best, TensorProto.FLOAT, [1, 5]),
            helper.make_tensor_value_info(best.replace("_0", "_1"), TensorProto.INT64, [1, 5]),
        ],
        net.constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_teacher_of_unusual_inputs_and_outputs_is_compressed(tmp_path: Path) -> None:
    path = teacher(tmp_path / "t.onnx")
    images = np.random.default_rng(0).integers(0, 255, (30, SIZE, SIZE, 3), np.uint8)
    np.savez(tmp_path / "d.npz", x=images)

    run = n2n_edge.compress(
        path,
        data=tmp_path / "d.npz",
        mean=(0.5,),
        std=(0.5,),
        bind=("scale=2",),
        opset=12,
        ir_version=7,
        device="raspberry-pi-4",
        effort="quick",
        candidates=2,
        epochs=1,
        out=tmp_path / "run",
    )

    student = onnx.load(run.student)
    session = onnxruntime.InferenceSession(str(run.student), providers=["CPUExecutionProvider"])
    pixels = (images[:1].astype(np.float32) / 255 - 0.5) / 0.5
    scores, places = session.run(None, {"x": pixels})
    halved, _ = session.run(None, {"x": pixels, "scale": np.ones(1, np.float32)})
    assert (student.ir_version, student.opset_import[0].version) == (7, 12)
    assert [value.shape for value in session.get_inputs()] == [[1, SIZE, SIZE, 3]]
    assert places.dtype == np.int64
    assert np.allclose(scores, 2 * halved, rtol=1e-5)
    assert takes_one_image(ir.from_proto(student))
    assert Teacher.load(run.student).layers
    assert 0 <= float(run.report["student"]["fidelity"]["value"]) <= 1


def old_teacher(path: Path) -> Path:
    """Opset 7 and IR 3: weights listed as inputs, one image spelt out in Reshape, outputs without a batch."""
    net = Net()
    norm = [net.constant(np.full(8, value)) for value in (1.0, 0.1, 0.0, 1.0)]
    y = net.op("Relu", net.op("BatchNormalization", net.conv("x", 3, 8), *norm))
    y = net.op("Relu", net.conv(net.op("Dropout", y), 8, 8))
    boxes = net.op("Reshape", net.conv(y, 8, 4), net.ints(-1, 4))
    pooled = net.op("Reshape", net.op("AveragePool", y, kernel_shape=[SIZE, SIZE]), net.ints(1, 8))
    scores = net.op("Softmax", net.op("Gemm", pooled, net.random(8, 5), net.random(5)), axis=1)
    anchors = net.op("Identity", net.random(3, 4))
    weights = [helper.make_tensor_value_info(item.name, item.data_type, list(item.dims)) for item in net.constants]
    given = [(boxes, [SIZE * SIZE, 4]), (scores, [1, 5]), (anchors, [3, 4])]
    graph = helper.make_graph(
        net.nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIZE, SIZE]), *weights],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in given],
        net.constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 7)], ir_version=3), path)
    return path


def test_an_old_teacher_is_compressed_and_ships_as_old(tmp_path: Path) -> None:
    path = old_teacher(tmp_path / "t.onnx")
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).integers(0, 255, (30, SIZE, SIZE, 3), np.uint8))

    run = n2n_edge.compress(
        path,
        data=tmp_path / "d.npz",
        device="raspberry-pi-4",
        effort="quick",
        candidates=2,
        epochs=1,
        out=tmp_path / "run",
    )

    student = onnx.load(run.student)
    pixels = np.random.default_rng(1).standard_normal((1, 3, SIZE, SIZE)).astype(np.float32)
    outputs, expected = (
        onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, {"x": pixels})
        for file in (run.student, path)
    )
    assert (student.ir_version, student.opset_import[0].version) == (3, 7)
    assert [output.shape for output in outputs] == [output.shape for output in expected]
    assert np.array_equal(outputs[2], expected[2])
    assert run.report["student"]["params"]["value"] <= run.report["teacher"]["params"]["value"]
