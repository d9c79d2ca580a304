"""Teachers and data as people have them: each goes through `compress`, or is refused in one line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import n2n_edge
from n2n_edge.devices.registry import load_profile
from n2n_edge.errors import InputError, UnsuitableEnvironmentError
from n2n_edge.latency.file_figures import file_figures
from n2n_edge.latency.prediction import predict_latency
from n2n_edge.measure.bench import WarmWorker, bench
from n2n_edge.measure.measurement import MeasurementError
from n2n_edge.measure.options import BenchOptions

TINY = {"device": "raspberry-pi-4", "effort": "quick", "candidates": 2, "epochs": 1}
CLASSES = 4


def teacher_file(
    path: Path, *, batch: int | str = "N", head: str = "gemm", outputs: int = 1, flatten_to: list[int] | None = None
) -> Path:
    """Write a small network of three convolutions without BatchNorm for 3x12x12 images."""
    random = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
        return numpy_helper.from_array((random.standard_normal(shape) / fan_in**0.5).astype(np.float32), name)

    nodes, weights, source, channels = [], [], "input", 3
    for index, width in enumerate((16, 16, 24)):
        weights += [weight(f"conv{index}.weight", width, channels, 3, 3), weight(f"conv{index}.bias", width)]
        names = [source, f"conv{index}.weight", f"conv{index}.bias"]
        nodes.append(helper.make_node("Conv", names, [f"c{index}"], pads=[1, 1, 1, 1], name=f"conv{index}"))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        source, channels = f"r{index}", width
    given = []
    if head == "map":
        weights.append(weight("head.weight", 2, channels, 1, 1))
        nodes.append(helper.make_node("Conv", [source, "head.weight"], ["y"], name="head"))
        given.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 2, 12, 12]))
    else:
        weights.append(weight("fc.weight", CLASSES, channels))
        nodes.append(helper.make_node("GlobalAveragePool", [source], ["pooled"]))
        if flatten_to is None:
            nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
        else:
            weights.append(numpy_helper.from_array(np.array(flatten_to, np.int64), "flat_shape"))
            nodes.append(helper.make_node("Reshape", ["pooled", "flat_shape"], ["flat"]))
        nodes.append(helper.make_node("Gemm", ["flat", "fc.weight"], ["logits"], transB=1, name="fc"))
        if head == "softmax":
            nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))
        final = "probabilities" if head == "softmax" else "logits"
        given.append(helper.make_tensor_value_info(final, TensorProto.FLOAT, [batch, CLASSES]))
    if outputs == 2:
        given.append(helper.make_tensor_value_info("r1", TensorProto.FLOAT, [batch, 16, 12, 12]))
    taken = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, 12, 12])]
    graph = helper.make_graph(nodes, "teacher", taken, given, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def images_npz(path: Path, count: int = 80, *, labels: bool = True) -> Path:
    random = np.random.default_rng(1)
    kinds = np.arange(count) % CLASSES
    images = (random.integers(0, 120, (count, 12, 12, 3)) + 30 * kinds[:, None, None, None]).astype(np.uint8)
    arrays = {"x": images, "y": kinds} if labels else {"x": images}
    np.savez(path, **arrays)
    return path


def image_folder(path: Path, count: int = 60) -> Path:
    path.mkdir()
    random = np.random.default_rng(2)
    for index in range(count):
        Image.fromarray(random.integers(0, 255, (12, 12, 3)).astype(np.uint8)).save(path / f"{index:03d}.png")
    return path


Compress = Callable[..., "n2n_edge.Run"]


@pytest.fixture
def compress(tmp_path: Path) -> Compress:
    def call(teacher: Path, data: Path, **more: object) -> "n2n_edge.Run":
        settings = {**TINY, "mean": (0.5,), "std": (0.5,), "max_params": 4_000.0, **more}
        return n2n_edge.compress(teacher, data=data, out=tmp_path / "run", **settings)

    return call


def test_folded_batch_norms_with_few_images(tmp_path: Path, compress: Compress) -> None:
    result = compress(teacher_file(tmp_path / "t.onnx"), images_npz(tmp_path / "d.npz", 40))
    assert result.met
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(result.student).graph.node}


@pytest.mark.parametrize("target", [[1, 24], [1, -1], [-1, 24], [0, -1]])
def test_a_batch_fixed_at_one_is_trained_in_batches_and_ships_as_it_came(
    tmp_path: Path, compress: Compress, target: list[int]
) -> None:
    teacher = teacher_file(tmp_path / "t.onnx", batch=1, flatten_to=target)
    result = compress(teacher, images_npz(tmp_path / "d.npz"))
    session = onnxruntime.InferenceSession(str(result.student), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [1, 3, 12, 12]
    assert session.get_outputs()[0].shape == [1, CLASSES]
    assert session.run(None, {"input": np.zeros((1, 3, 12, 12), np.float32)})[0].shape == (1, CLASSES)
    assert result.report["student"]["accuracy"] is not None
    bench(result.student, BenchOptions(min_time_s=0.0, max_time_s=0.2))
    assert file_figures(result.student)["macs"].value == result.report["student"]["macs"]["value"]


def test_a_larger_fixed_batch_is_refused(tmp_path: Path, compress: Compress) -> None:
    teacher = teacher_file(tmp_path / "t.onnx", batch=4)
    with pytest.raises(InputError, match="export it with a free batch axis"):
        compress(teacher, images_npz(tmp_path / "d.npz"))
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_ends_in_softmax(tmp_path: Path, compress: Compress) -> None:
    result = compress(teacher_file(tmp_path / "t.onnx", head="softmax"), images_npz(tmp_path / "d.npz"))
    assert result.met
    assert onnx.load(result.student).graph.node[-1].op_type == "Softmax"


@pytest.mark.parametrize(("head", "outputs"), [("gemm", 1), ("map", 1), ("gemm", 2)])
def test_unlabelled_images_are_judged_by_fidelity(tmp_path: Path, compress: Compress, head: str, outputs: int) -> None:
    teacher = teacher_file(tmp_path / "t.onnx", head=head, outputs=outputs)
    result = compress(teacher, image_folder(tmp_path / "images"))
    assert result.met
    fidelity = result.report["student"]["fidelity"]
    assert fidelity is not None
    assert 0 <= float(fidelity["value"]) <= 1
    assert "accuracy" not in result.report["student"]
    teachers = result.report["teacher"]["fidelity"]
    assert teachers is not None
    assert teachers["value"] == pytest.approx(1, abs=1e-6)


def test_free_height_and_width_need_a_shape(tmp_path: Path, compress: Compress) -> None:
    path = teacher_file(tmp_path / "t.onnx")
    model = onnx.load(path)
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"size{axis}"
    onnx.save(model, path)
    with pytest.raises(InputError, match="input_shape"):
        compress(path, images_npz(tmp_path / "d.npz"))
    assert compress(path, images_npz(tmp_path / "d.npz"), input_shape=(3, 12, 12)).met


def test_latency_as_the_objective_without_a_budget(tmp_path: Path, compress: Compress) -> None:
    result = compress(
        teacher_file(tmp_path / "t.onnx"), images_npz(tmp_path / "d.npz"), device="cpu", objective="latency_ms",
        max_params=None, candidates=4,
    )  # fmt: skip
    assert all(row["latency_ms"] is not None for row in result.report["search"]["candidates"])
    assert result.report["search"]["objective"] == "latency_ms"
    assert any(row["reward"] > 0 for row in result.report["search"]["candidates"])


def test_a_loose_budget_does_not_stop_the_shrinking(tmp_path: Path, compress: Compress) -> None:
    result = compress(teacher_file(tmp_path / "t.onnx"), images_npz(tmp_path / "d.npz"), max_params=1e9, candidates=6)
    assert len({row["params"] for row in result.report["search"]["candidates"]}) > 2


def test_a_crash_of_the_runtime_fails_one_candidate_alone(
    tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = WarmWorker.measure, []

    def sometimes(self: WarmWorker, model: bytes, options: BenchOptions) -> object:
        calls.append(str(type(model)))
        if len(calls) in (2, 3):  # both tries of the second candidate
            raise MeasurementError("the runtime crashed")
        return real(self, model, options)

    monkeypatch.setattr(WarmWorker, "measure", sometimes)
    result = compress(
        teacher_file(tmp_path / "t.onnx"), images_npz(tmp_path / "d.npz"), device="cpu", max_latency_ms=1000.0,
        max_params=None, candidates=4,
    )  # fmt: skip
    assert len(calls) > 3
    assert sum(not row["feasible"] for row in result.report["search"]["candidates"]) >= 1


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
    settings = {**TINY, "data": data, "mean": (0.5,), "std": (0.5,), "max_params": 2_000.0, "input_shape": (3, 12, 12)}

    result = n2n_edge.compress("torch_network:network", out=tmp_path / "run", **settings)  # type: ignore[arg-type]

    assert result.met
    assert result.report["teacher"]["params"]["value"] == 4_044
    (tmp_path / "torch_network.py").unlink()
    again = n2n_edge.compress(out=tmp_path / "run", resume=True)
    assert again.report == result.report


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


def test_a_free_size_is_counted_and_timed_at_the_runs_own(tmp_path: Path, compress: Compress) -> None:
    fixed = teacher_file(tmp_path / "fixed.onnx")
    model = onnx.load(fixed)
    for axis, name in ((2, "H"), (3, "W")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    onnx.save(model, tmp_path / "free.onnx")

    result = compress(tmp_path / "free.onnx", images_npz(tmp_path / "d.npz"), input_shape=(3, 12, 12))

    expected, teacher = file_figures(fixed), result.report["teacher"]
    assert teacher["macs"]["value"] == expected["macs"].value
    assert teacher["memory_bound_mb"]["value"] == expected["memory_bound_mb"].value
    predicted = predict_latency(onnx_model(fixed), load_profile("raspberry-pi-4"))
    assert teacher["latency_ms"]["raspberry-pi-4"]["value"] == pytest.approx(predicted.value)
    assert not [text for text in result.report["warnings"] if "was set to 224" in text]


def onnx_model(path: Path) -> ir.Model:
    return ir.load(path)
