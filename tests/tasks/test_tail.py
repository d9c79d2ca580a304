"""The end of a graph behind what is learned: run image by image, and joined."""

import pickle

import numpy as np
import onnx
import pytest

from n2n_edge.graph.image_session import ImageSession
from n2n_edge.graph.teacher import Teacher
from n2n_edge.tasks.tail import Tail, tail_of
from tests.graph.test_free_batch import images, network
from tests.graph.test_learned import selected


def graph(*, keeps_axis: bool) -> Tail:
    """Return the tail that keeps what is above a half of each image's row, with or without an axis for the image."""
    helper = onnx.helper
    nodes = [
        helper.make_node("Flatten", ["raw"], ["flat"], axis=0),
        helper.make_node("Greater", ["flat", "half"], ["above"]),
        helper.make_node("Compress", ["flat", "above_flat"], ["rows"], axis=1),
        helper.make_node("Transpose", ["rows"], ["columns"], perm=[1, 0]),
    ]
    nodes.insert(2, helper.make_node("Squeeze", ["above", "first"], ["above_flat"]))
    if keeps_axis:
        nodes.append(helper.make_node("Unsqueeze", ["columns", "first"], ["out"]))
    else:
        nodes.append(helper.make_node("Identity", ["columns"], ["out"]))
    shape: list[int | str | None] = [1, "n", 1] if keeps_axis else ["n", 1]
    made = helper.make_graph(
        nodes, "tail", [helper.make_tensor_value_info("raw", 1, [1, 4])],
        [helper.make_tensor_value_info("out", 1, shape)],
        [onnx.numpy_helper.from_array(np.array(0.5, np.float32), "half"),
         onnx.numpy_helper.from_array(np.array([0], np.int64), "first")],
    )  # fmt: skip
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Tail(("raw",), (keeps_axis,), model.SerializeToString())


RAW = np.array([[0.9, 0.1, 0.1, 0.1], [0.1, 0.8, 0.1, 0.7], [0.1, 0.1, 0.6, 0.1]], np.float32)
ONE_EACH = RAW[[0, 2]]


@pytest.mark.parametrize("keeps_axis", [True, False])
def test_images_stay_apart_however_many_rows_each_has(keeps_axis: bool) -> None:
    tail = graph(keeps_axis=keeps_axis)
    (joined,) = tail.run([RAW])
    assert joined.shape == (3, 2, 1)
    assert joined[1, :, 0] == pytest.approx([0.8, 0.7])
    assert joined[0, :, 0] == pytest.approx([0.9, 0.0])  # filled up
    (single,) = tail.run([ONE_EACH])
    assert single.shape == (2, 1, 1)
    assert single[:, 0, 0] == pytest.approx([0.9, 0.6])
    (one,) = pickle.loads(pickle.dumps(tail)).run([RAW[:1]])
    assert one.shape == (1, 1, 1)


def test_a_file_s_own_selection_is_its_tail() -> None:
    model = network(selected, tail=False)
    teacher = Teacher(model)
    tail = tail_of(teacher.model)
    assert tail is not None
    pictures = images()
    learned = ImageSession.learned(teacher.model).run(pictures)
    (joined,) = tail.run(learned)
    (whole,) = ImageSession(teacher.model).run(pictures)
    assert joined == pytest.approx(whole, abs=1e-5)
