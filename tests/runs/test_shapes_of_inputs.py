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
