"""Students that take smaller images than their teachers: asked for, or as large as the budgets allow."""

import importlib
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest

import n2n_edge
from n2n_edge.data.labels.values import Objects
from n2n_edge.errors import InputError
from n2n_edge.tasks.detection import Detection
from n2n_edge.tasks.head import Signature
from tests.runs.small import images_npz, teacher_file

TASKS = Path(__file__).parents[2] / "benchmarks" / "tasks"
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def sizes(path: Path) -> list[int]:
    shape = onnx.load(path).graph.input[0].type.tensor_type.shape
    return [dim.dim_value for dim in shape.dim[2:]]


def small(folder: Path, **more: object) -> n2n_edge.Run:
    return n2n_edge.compress(
        teacher_file(folder / "t.onnx"), images_npz(folder / "d.npz"), device="raspberry-pi-4", effort="quick",
        candidates=2, epochs=1, out=folder / "run", **{**PLAIN, **more},
    )  # fmt: skip


def test_a_size_that_is_asked_for(tmp_path: Path) -> None:
    run = small(tmp_path, input_size="8x8", corruptions=True)
    report = run.report
    assert sizes(run.student) == [8, 8]
    assert report["data"]["input_shape"] == [3, 8, 8]
    assert "input-size" in report["note_codes"]
    assert report["teacher"]["macs"]["value"] == n2n_edge.costs(n2n_edge.Teacher.load(tmp_path / "t.onnx").model).macs
    own = n2n_edge.costs(n2n_edge.Teacher.load(run.student).model).macs
    assert report["student"]["macs"]["value"] == own < 0.5 * report["teacher"]["macs"]["value"]
    recorded = {each.key: each.value for each in onnx.load(run.student).metadata_props}
    assert json.loads(recorded["n2n_edge.preprocessing"])["size"] == [8, 8]
    (gate,) = n2n_edge.gate(run.student, data=tmp_path / "d.npz", min_score=0.01, baseline=tmp_path / "t.onnx")
    assert gate.outcome == "pass"


def test_auto_keeps_the_size_of_a_classifier(tmp_path: Path) -> None:
    run = small(tmp_path, input_size="auto", max_macs=1e5)
    assert sizes(run.student) == [12, 12]


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ("large", "give keep, auto, or height and width such as 320x320"),
        ("0x8", "give keep, auto, or height and width"),
        ("8x8x3", "give keep, auto, or height and width"),
    ],
)
def test_a_wrong_size_is_one_line(tmp_path: Path, size: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        small(tmp_path, input_size=size)
    assert not (tmp_path / "run").exists()


def test_a_size_that_the_network_cannot_take_is_one_line(tmp_path: Path) -> None:
    flat = Path(tmp_path / "t.onnx")
    teacher_file(flat)
    model = onnx.load(flat)
    pool = next(node for node in model.graph.node if node.op_type == "GlobalAveragePool")
    pool.op_type = "AveragePool"
    pool.attribute.append(onnx.helper.make_attribute("kernel_shape", [6, 6]))
    pool.attribute.append(onnx.helper.make_attribute("strides", [6, 6]))
    weight = next(each for each in model.graph.initializer if each.name == "fc.weight")
    weight.CopyFrom(onnx.numpy_helper.from_array(np.ones((4, 96), np.float32), "fc.weight"))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, flat)
    with pytest.raises(InputError, match="input_size 6x6: the network is for 12x12"):
        n2n_edge.compress(
            flat,
            images_npz(tmp_path / "d.npz"),
            device="raspberry-pi-4",
            input_size="6x6",
            out=tmp_path / "run",
            **PLAIN,
        )  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_detections_at_another_size_are_compared_in_the_teachers_frame() -> None:
    large, little = (
        Detection(Signature(side, side, (), frozenset()), reader=f"{__name__}:decode") for side in (200, 100)
    )
    boxes = np.array([[[10, 20, 60, 90], [100, 100, 180, 190]]], np.float32)
    values = np.concatenate([boxes, np.full((1, 2, 1), 0.9, np.float32), np.array([[[0], [1]]], np.float32)], 2)
    halved = values.copy()
    halved[..., :4] /= 2
    meter = large.meter_of(little)
    assert meter is not None
    meter.add([halved], [values], [Objects(boxes[0], np.array([0, 1]))])
    found = meter.evaluation()
    assert (found.score, found.fidelity) == (1.0, 1.0)


def decode(outputs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    (values,) = outputs
    return values[..., :4], values[..., 4], values[..., 5]


@pytest.mark.slow
def test_a_detector_takes_the_size_that_its_budget_leaves(tmp_path: Path) -> None:
    sys.path.insert(0, str(TASKS))
    try:
        shapes, teachers = importlib.import_module("shapes"), importlib.import_module("teachers")
        spec = shapes.write("detection", tmp_path / "data", 100)
        data = n2n_edge.data.dataset.load_data(
            str(spec), input_shape=(3, shapes.SIDE, shapes.SIDE), classes=None, may_be_values=True
        )
        module = teachers.train("detection", data, 25, teachers.Detector(width=8))
        with warnings.catch_warnings(action="ignore"):
            teachers.export(module, tmp_path / "t.onnx", free=False)
    finally:
        sys.path.remove(str(TASKS))
    macs = n2n_edge.costs(n2n_edge.Teacher.load(tmp_path / "t.onnx").model).macs
    out = tmp_path / "run"
    run = n2n_edge.compress(
        tmp_path / "t.onnx", spec, device="raspberry-pi-4", max_macs=0.8 * macs, effort="quick", candidates=2, epochs=1,
        input_size="auto", out=out, **PLAIN,
    )  # fmt: skip
    assert run.met
    assert sizes(run.student) < sizes(tmp_path / "t.onnx")
    assert (out / "input-size.toml").exists()
    assert run.report["difference"]["unit"] == "points"
    assert run.report["examples"]
