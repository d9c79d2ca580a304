"""Teachers and data as people have them: each goes through `compress`, or is refused in one line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper

import n2n_edge
from n2n_edge.devices.registry import load_profile
from n2n_edge.errors import InputError, UnsuitableEnvironmentError
from n2n_edge.latency.file_figures import file_figures
from n2n_edge.latency.model import LatencyModel
from n2n_edge.measure.bench import WarmWorker, bench
from n2n_edge.measure.measurement import MeasurementError
from n2n_edge.measure.options import BenchOptions
from n2n_edge.search.store import Journal
from tests.runs.small import CLASSES, image_folder, images_npz, teacher_file
from tests.runs.stopping import begun

TINY = {"device": "raspberry-pi-4", "effort": "quick", "candidates": 2, "epochs": 1}

Compress = Callable[..., "n2n_edge.Run"]
SETTINGS = {**TINY, "mean": (0.5,), "std": (0.5,), "max_params": 4_000.0}


@pytest.fixture
def compress(tmp_path: Path) -> Compress:
    def call(teacher: Path, data: Path, **more: object) -> "n2n_edge.Run":
        return n2n_edge.compress(teacher, data=data, out=tmp_path / "run", **{**SETTINGS, **more})  # type: ignore[arg-type]

    return call


@pytest.fixture(scope="module")
def one_at_a_time(tmp_path_factory: pytest.TempPathFactory) -> "n2n_edge.Run":
    """A run with a folded teacher of probabilities whose batch is fixed, on few images, and with a vain hope."""
    folder = tmp_path_factory.mktemp("one")
    teacher = teacher_file(folder / "t.onnx", batch=1, head="softmax", flatten_to=[1, 24])
    data = images_npz(folder / "d.npz", 40)
    return n2n_edge.compress(teacher, data=data, out=folder / "run", min_accuracy=0.9999, **SETTINGS)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, "n2n_edge.Run"]:
    """A teacher of fixed size, and a run with the same one of free size and two outputs, on images without labels."""
    folder = tmp_path_factory.mktemp("unlabelled")
    fixed = teacher_file(folder / "fixed.onnx", head="map", outputs=2)
    free, images = freed(fixed, folder / "free.onnx"), image_folder(folder / "images")
    return fixed, n2n_edge.compress(free, data=images, out=folder / "run", input_shape=(3, 12, 12), **SETTINGS)  # type: ignore[arg-type]


def freed(fixed: Path, free: Path) -> Path:
    model = onnx.load(fixed)
    for axis, name in ((2, "H"), (3, "W")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    onnx.save(model, free)
    return free


def test_folded_batch_norms_with_few_images(one_at_a_time: "n2n_edge.Run") -> None:
    assert one_at_a_time.report["student"]["params"]["value"] <= 4_000
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(one_at_a_time.student).graph.node}


def test_a_batch_fixed_at_one_is_trained_in_batches_and_ships_as_it_came(
    one_at_a_time: "n2n_edge.Run",
) -> None:
    session = onnxruntime.InferenceSession(str(one_at_a_time.student), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [1, 3, 12, 12]
    assert session.get_outputs()[0].shape == [1, CLASSES]
    assert session.run(None, {"input": np.zeros((1, 3, 12, 12), np.float32)})[0].shape == (1, CLASSES)
    report = one_at_a_time.report
    assert report["student"]["accuracy"] is not None
    bench(one_at_a_time.student, BenchOptions(min_time_s=0.0, max_time_s=0.2))
    assert file_figures(one_at_a_time.student)["macs"].value == report["student"]["macs"]["value"]


@pytest.mark.parametrize("target", [[1, -1], [-1, 24], [0, -1]])
def test_every_way_to_flatten_one_image_is_trained_in_batches(tmp_path: Path, target: list[int]) -> None:
    teacher = teacher_file(tmp_path / "t.onnx", batch=1, flatten_to=target)
    rows = begun(tmp_path / "run", teacher=teacher, data=images_npz(tmp_path / "d.npz"), **SETTINGS)
    assert rows[0].score is not None


def test_an_accuracy_that_is_not_reached_is_not_pretended(one_at_a_time: "n2n_edge.Run") -> None:
    assert not one_at_a_time.met
    assert [(verdict.budget.cost, verdict.met) for verdict in one_at_a_time.verdicts] == [
        ("params", True),
        ("score", False),
    ]


def test_a_larger_fixed_batch_is_refused(tmp_path: Path, compress: Compress) -> None:
    teacher = teacher_file(tmp_path / "t.onnx", batch=4)
    with pytest.raises(InputError, match="export it for one, or with a free batch axis"):
        compress(teacher, images_npz(tmp_path / "d.npz"))
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_ends_in_softmax(one_at_a_time: "n2n_edge.Run") -> None:
    assert onnx.load(one_at_a_time.student).graph.node[-1].op_type == "Softmax"


def test_unlabelled_images_are_judged_by_fidelity(unlabelled: tuple[Path, "n2n_edge.Run"]) -> None:
    _, result = unlabelled
    assert result.met
    fidelity = result.report["student"]["fidelity"]
    assert fidelity is not None
    assert 0 <= float(fidelity["value"]) < 1
    assert "accuracy" not in result.report["student"]
    teachers = result.report["teacher"]["fidelity"]
    assert teachers is not None
    assert teachers["value"] == pytest.approx(1, abs=1e-6)
    assert result.report["task"]["metric"] == "fidelity"
    assert "difference" not in result.report


def test_values_with_labels_are_reported_in_r2_beside_the_teachers(tmp_path: Path, compress: Compress) -> None:
    teacher = teacher_file(tmp_path / "t.onnx")
    with np.load(images_npz(tmp_path / "images.npz", 60)) as images:
        x = images["x"]
    inputs = ((x.astype(np.float32) / 255 - 0.5) / 0.5).transpose(0, 3, 1, 2)
    session = onnxruntime.InferenceSession(str(teacher), providers=["CPUExecutionProvider"])
    (values,) = session.run(None, {"input": inputs})
    noise = np.random.default_rng(0).normal(size=values.shape).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, y=values + 0.1 * values.std(axis=0) * noise)

    run = compress(teacher, tmp_path / "d.npz", task="regression", max_drop=99.0)

    report, difference = run.report, run.report["difference"]
    assert (report["task"]["name"], report["task"]["metric"]) == ("regression", "r2")
    scores = [float(report[role]["r2"]["value"]) for role in ("teacher", "student")]
    assert scores[0] > 0.9
    assert float(difference["value"]) == pytest.approx(100 * (scores[1] - scores[0]))
    assert float(difference["low"]) <= float(difference["value"]) <= float(difference["high"])
    errors = [report[role]["details"]["mae"] for role in ("teacher", "student")]
    assert errors[0]["unit"] == "label units"
    assert 0 < errors[0]["value"] <= errors[1]["value"]
    verdict = next(each for each in run.verdicts if each.cost == "drop")
    assert (verdict.metric, verdict.reached.value) == ("r2", pytest.approx(100 * (scores[0] - scores[1])))


@pytest.mark.parametrize(("head", "outputs"), [("gemm", 1), ("map", 1), ("gemm", 2)])
def test_candidates_are_judged_by_fidelity_to_every_kind_of_output(tmp_path: Path, head: str, outputs: int) -> None:
    teacher = teacher_file(tmp_path / "t.onnx", head=head, outputs=outputs)
    rows = begun(tmp_path / "run", teacher=teacher, data=image_folder(tmp_path / "images"), **SETTINGS)
    assert rows[0].score is not None
    assert 0 <= rows[0].score <= 1
    with Journal.read(tmp_path / "run" / "journal.sqlite") as journal:
        assert journal.meta()["metric"] == "fidelity"


def test_height_and_width_that_the_teacher_leaves_free_are_free_in_the_student(
    unlabelled: tuple[Path, "n2n_edge.Run"],
) -> None:
    session = onnxruntime.InferenceSession(str(unlabelled[1].student), providers=["CPUExecutionProvider"])

    assert session.get_inputs()[0].shape[1:] == [3, "H", "W"]
    for height, width in ((12, 12), (20, 16)):
        outputs = session.run(None, {session.get_inputs()[0].name: np.zeros((2, 3, height, width), np.float32)})
        assert all(len(output) == 2 for output in outputs)


def test_a_free_size_is_counted_and_timed_at_the_runs_own(unlabelled: tuple[Path, "n2n_edge.Run"]) -> None:
    fixed, result = unlabelled
    expected, teacher = file_figures(fixed), result.report["teacher"]
    assert teacher["macs"]["value"] == expected["macs"].value
    assert teacher["memory_bound_mb"]["value"] == expected["memory_bound_mb"].value
    predicted = LatencyModel(load_profile("raspberry-pi-4")).estimate(ir.load(fixed)).figure
    assert teacher["latency_ms"]["raspberry-pi-4"]["value"] == pytest.approx(predicted.value)
    assert not [text for text in result.report["warnings"] if "was set to 224" in text]


def test_latency_as_the_objective_without_a_budget(tmp_path: Path) -> None:
    given = {**SETTINGS, "device": "cpu", "objective": "latency_ms", "max_params": None, "candidates": 4}
    teacher, data = teacher_file(tmp_path / "t.onnx"), images_npz(tmp_path / "d.npz")
    rows = begun(tmp_path / "run", searched=True, teacher=teacher, data=data, **given)
    assert all(row.costs.latency is not None for row in rows)
    assert any(row.reward > 0 for row in rows)
    with Journal.read(tmp_path / "run" / "journal.sqlite") as journal:
        assert journal.meta()["objective"] == "latency_ms"


def test_a_loose_budget_does_not_stop_the_shrinking(tmp_path: Path) -> None:
    given = {**SETTINGS, "max_params": 1e9, "candidates": 6}
    teacher, data = teacher_file(tmp_path / "t.onnx"), images_npz(tmp_path / "d.npz")
    rows = begun(tmp_path / "run", searched=True, teacher=teacher, data=data, **given)
    assert len({row.costs.params for row in rows}) > 2


def test_a_crash_of_the_runtime_fails_one_candidate_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = WarmWorker.measure, []

    def sometimes(self: WarmWorker, model: bytes, options: BenchOptions) -> object:
        calls.append(str(type(model)))
        if len(calls) in (2, 3):  # both tries of the second candidate
            raise MeasurementError("the runtime crashed")
        return real(self, model, options)

    monkeypatch.setattr(WarmWorker, "measure", sometimes)
    given = {**SETTINGS, "device": "cpu", "max_latency_ms": 1000.0, "max_params": None, "candidates": 4}
    teacher, data = teacher_file(tmp_path / "t.onnx"), images_npz(tmp_path / "d.npz")
    rows = begun(tmp_path / "run", searched=True, teacher=teacher, data=data, **given)
    assert len(calls) > 3
    assert len(rows) > 2
    assert [row for row in rows if not row.feasible] == [rows[1]]


def test_outputs_that_are_not_numbers_are_no_parity(tmp_path: Path) -> None:
    from n2n_edge.data.dataset import load_data
    from n2n_edge.graph.teacher import Teacher
    from n2n_edge.runs.parity import check_parity

    path = teacher_file(tmp_path / "t.onnx", head="map")
    data = load_data(str(images_npz(tmp_path / "d.npz")), input_shape=(3, 12, 12), classes=None)
    good = Teacher.load(path).model
    assert check_parity(good, path, data).max_relative_error < 1e-4
    model = onnx.load(path)
    broken = numpy_helper.from_array(np.full((2, 24, 1, 1), np.nan, np.float32), "head.weight")
    next(item for item in model.graph.initializer if item.name == "head.weight").CopyFrom(broken)
    onnx.save(model, path)
    with pytest.raises(UnsuitableEnvironmentError, match="differ"):
        check_parity(good, path, data)


def test_images_of_the_wrong_colour_depth(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "rgb")
    for index in range(10):
        (folder / f"class{index}").mkdir()
    for index, path in enumerate(sorted(folder.glob("*.png"))):
        path.rename(folder / f"class{index % 10}" / path.name)
    from n2n_edge._example import teacher_path

    with pytest.raises(InputError, match=r"have 3 channel\(s\), but the teacher takes 1"):
        n2n_edge.compress(teacher_path(), data=folder, out=tmp_path / "run", **TINY)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


TORCH_NETWORK = """
from torch import nn

def network():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 4),
    )

def frozen():
    return nn.Sequential(nn.Flatten(), nn.Linear(432, 4))
"""


def test_a_torch_network_is_exported_once_and_resumed_from_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch_network.py").write_text(TORCH_NETWORK)
    monkeypatch.chdir(tmp_path)
    data = images_npz(tmp_path / "d.npz")
    given = {**SETTINGS, "max_params": 2_000.0, "input_shape": (3, 12, 12)}
    first = begun(tmp_path / "run", teacher="torch_network:network", data=data, **given)
    assert file_figures(tmp_path / "run" / "teacher.onnx")["params"].value == 4_044
    (tmp_path / "torch_network.py").unlink()
    assert begun(tmp_path / "run", resume=True) == first


def test_a_torch_network_that_cannot_be_touched_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch_network.py").write_text(TORCH_NETWORK)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InputError, match="nothing in this model can be removed or shrunk"):
        n2n_edge.compress(
            "torch_network:frozen", data=images_npz(tmp_path / "d.npz"), input_shape=(3, 12, 12), out=tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()


def test_weights_belong_to_torch_networks(tmp_path: Path, compress: Compress) -> None:
    with pytest.raises(InputError, match="an ONNX teacher holds its weights; leave it out"):
        compress(teacher_file(tmp_path / "t.onnx"), images_npz(tmp_path / "d.npz"), weights="weights.pt")
