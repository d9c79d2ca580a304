"""The way of a YOLO user from end to end: a detector and its data.yaml, a budget, the student, and gate."""

import importlib
import sys
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import n2n_edge
from n2n_edge.data.dataset import load_data

TASKS = Path(__file__).parents[2] / "benchmarks" / "tasks"
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def way(tmp_path_factory):
    """A folder with data.yaml and two exports of a small detector: of one size, and with free height and width."""
    folder = tmp_path_factory.mktemp("yolo")
    sys.path.insert(0, str(TASKS))
    try:
        shapes, teachers = importlib.import_module("shapes"), importlib.import_module("teachers")
        spec = shapes.write("detection", folder / "data", 100)
        data = load_data(str(spec), input_shape=(3, shapes.SIDE, shapes.SIDE), classes=None, may_be_values=True)
        torch = importlib.import_module("torch")
        torch.manual_seed(0)
        module = teachers.train("detection", data, 25, teachers.Detector(width=8))
        for name, free in (("fixed", False), ("free", True)):
            with warnings.catch_warnings(action="ignore"):  # torch's exporter says that it is the older one
                teachers.export(module, folder / f"{name}.onnx", free=free)
    finally:
        sys.path.remove(str(TASKS))
    return folder


@pytest.mark.parametrize("export", ["fixed", "free"])
def test_a_detector_is_compressed_by_its_labels_and_gated(way, export):
    teacher, spec, size = way / f"{export}.onnx", way / "data" / "data.yaml", (3, 96, 96)
    macs = n2n_edge.costs(n2n_edge.Teacher.load(teacher, size).model).macs
    run = n2n_edge.compress(
        teacher, spec, device="raspberry-pi-4", max_macs=0.7 * macs, effort="quick", candidates=2, epochs=3,
        input_shape=size, out=way / f"run-{export}", **PLAIN,
    )  # fmt: skip
    report = run.report
    assert run.met
    assert report["task"]["name"] == "detection"
    assert report["difference"]["unit"] == "points"
    assert "map" in report["student"]
    assert report["examples"]
    curves = report["precision_recall"]
    for role in ("teacher", "student"):
        assert sum(curves[role]) / 101 == pytest.approx(report[role]["details"]["ap50"]["value"], abs=1e-5)
    assert "Precision by recall" in (way / f"run-{export}" / "report.html").read_text()

    (passed,) = n2n_edge.gate(run.student, data=spec, min_score=0.001, max_macs=0.7 * macs)
    (failed,) = n2n_edge.gate(run.student, data=spec, min_score=0.999)
    assert (passed.outcome, failed.outcome) == ("pass", "fail")

    # what a board runs: ONNX Runtime and numpy alone
    picture = (
        np.asarray(Image.open(next((way / "data" / "images" / "test").iterdir())).convert("RGB"), np.float32) / 255
    )
    batch = picture.transpose(2, 0, 1)[None]
    outputs = [onnxruntime.InferenceSession(path).run(None, {"images": batch})[0] for path in (teacher, run.student)]
    assert outputs[0].shape == outputs[1].shape
    boxes, scores = outputs[1][0, :4].T, outputs[1][0, 4:].T
    best = boxes[scores.max(1).argmax()]
    assert ((best[:2] > 0) & (best[:2] < 96)).all()
    assert (best[2:] > 5).all()
