"""Float networks in int8: by ONNX Runtime's own quantization, by ours, and distilled with quantized values.

    python benchmarks/precision/run.py MODELS CIFAR COCO PEOPLE WORK [--cases resnet20 ...] [--seeds 0 1 2]
        [--images 4000] [--epochs 3]

MODELS is the folder of models, CIFAR one of images per class, COCO a data.yaml, PEOPLE one with images/ and masks/.
Every way is calibrated on the same training images and scored on the same test images; a row is one network with one
seed, which draws the images for calibration and training. Rows in ``results.json`` are kept, ``results.md`` is written
after each.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from cases import CASES
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from n2n_edge.data.dataset import Data
from n2n_edge.devices.registry import load_profile
from n2n_edge.graph.file_version import in_version
from n2n_edge.graph.input_shape import in_layout, input_layout
from n2n_edge.graph.load import save_model
from n2n_edge.latency.file_figures import ModelFile
from n2n_edge.measure.comparison import compare
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.target import HostTarget
from n2n_edge.quantize.device_plan import host_plan
from n2n_edge.quantize.plan import QuantizationPlan
from n2n_edge.quantize.ptq import Validation, image_batches, post_train, quantized
from n2n_edge.quantize.qdq import LEAST_OPSET, folded, output_nodes
from n2n_edge.tasks.choice import task_of
from n2n_edge.tasks.paired import paired_difference
from n2n_edge.training.batches import subset
from n2n_edge.training.file_evaluation import file_meters
from n2n_edge.training.quantization_aware import quantize_aware, quantize_aware_settings
from n2n_edge.training.settings import DistillSettings

HERE = Path(__file__).parent
BOARDS = ("raspberry-pi-4", "raspberry-pi-5", "raspberry-pi-zero-2-w")
WAYS = ("float", "ORT default", "ORT per channel", "ours calibrated", "ours distilled")
CALIBRATION, VALIDATION = 256, 512
Row = dict[str, Any]


class Reader:
    """Calibration images as onnxruntime.quantization takes them."""

    def __init__(self, model: ir.Model, data: Data) -> None:
        name, layout = str(model.graph.inputs[0].name), input_layout(model)
        self.batches: Iterator[dict[str, Any]] = (
            {name: each[None]}
            for batch in image_batches(data, data.train, CALIBRATION)
            for each in in_layout(batch, layout)
        )

    def get_next(self) -> dict[str, Any] | None:
        """Return the next image, None behind the last."""
        return next(self.batches, None)


def of_runtime(source: Path, graph: ir.Model, data: Data, folder: Path, **options: Any) -> Path:
    """Return what ONNX Runtime's static quantization makes of a file, prepared as its guide says."""
    prepared, out = folder / "prepared.onnx", folder / f"{'-'.join(map(str, options.values())) or 'default'}.onnx"
    old = (ir.load(source).opset_imports.get("") or LEAST_OPSET) < LEAST_OPSET
    if old:  # for a scale per channel
        source = folder / "raised.onnx"
        save_model(in_version(graph, LEAST_OPSET, None), source)
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=old)
    quantize_static(
        str(prepared), str(out), Reader(graph, data), quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, **options,
    )  # fmt: skip
    return out


def ways(
    source: Path, graph: ir.Model, data: Data, folder: Path, epochs: int, seed: int
) -> Iterator[tuple[str, Path, Path]]:
    """Yield every way's file, and what is timed here: of ours the twin with activations as this host likes."""
    validation = Validation(graph, data, data.validation, VALIDATION)
    yield "float", source, source
    default = of_runtime(source, graph, data, folder)
    yield "ORT default", default, default
    tried = [
        of_runtime(source, graph, data, folder, per_channel=True, calibrate_method=method)
        for method in (CalibrationMethod.MinMax, CalibrationMethod.Percentile, CalibrationMethod.Entropy)
    ]
    best = min(tried, key=lambda path: validation.drop(ir.load(path)))
    yield "ORT per channel", best, best
    kept = frozenset() if task_of(graph, data).name == "classification" else frozenset(output_nodes(graph))
    plan = QuantizationPlan(kept)
    found = post_train(
        graph, data, validation, plan, images=CALIBRATION, watch=lambda text: print("   ", text, flush=True)
    )
    save_model(found.model, folder / "calibrated.onnx")
    on_host = host_plan(found.plan.float_nodes)
    save_model(quantized(found.graph, found.ranges, on_host), folder / "timed.onnx")
    yield "ours calibrated", folder / "calibrated.onnx", folder / "timed.onnx"
    settings = quantize_aware_settings(DistillSettings(seed=seed).for_images(len(data.train)))
    result = quantize_aware(
        found.training, graph, data, replace(settings, epochs=epochs, threads=1),
        on_epoch=lambda report: print("   ", report, flush=True),
    )  # fmt: skip
    save_model(folded(result.model), folder / "distilled.onnx")
    yield "ours distilled", folder / "distilled.onnx", folder / "timed.onnx"


def figures(source: Path, path: Path, timed: Path | None, data: Data) -> Row:
    """Return score, drop, size, the time of `timed` beside the float file's, and predictions."""
    before, after = file_meters(source, path, data.test, data, fidelity=(False, True), threads=1)
    evaluation, file = after.evaluation(), ModelFile(path)
    row: Row = {
        "score": evaluation.score, "agreement": evaluation.fidelity, "n": evaluation.n,
        "mb": path.stat().st_size / 1e6,
        "predicted": {board: file.estimate(load_profile(board)).figure.value for board in BOARDS},
    }  # fmt: skip
    if path != source and (difference := paired_difference(before, after)) is not None:
        row["difference"] = [difference.value, difference.low, difference.high]
    if timed is not None and path != source:
        found = compare([source, timed], BenchOptions(threads=1, max_time_s=10.0), HostTarget(), threshold=0.02)
        if (ratio := found.comparisons[1]) is not None:
            row["ratio"] = [ratio.ratio, ratio.low, ratio.high]
    return row


def write_table(rows: Mapping[str, Row], path: Path) -> None:
    """Write means over seeds; behind them the deviation of one seed."""
    lines = [
        "| network | way | seeds | score | lost, points | agreement | MB | host latency ratio | "
        + " | ".join(f"{b}, ms" for b in BOARDS)
        + " |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |" + " --- |" * len(BOARDS),
    ]
    for case in CASES:
        found = [row for key, row in rows.items() if key.split(" | ")[0] == case]
        for way in WAYS if found else ():
            each = [row[way] for row in found]
            scores = [100 * one["score"] for one in each]
            lost = [-one["difference"][0] for one in each if "difference" in one]
            cells = [
                case, way, str(len(each)), f"{statistics.mean(scores):.2f}",
                _spread(lost) if lost else "", f"{statistics.mean(one['agreement'] for one in each):.3f}",
                f"{each[0]['mb']:.3f}",
                "{:.2f} ({:.2f} to {:.2f})".format(*each[0]["ratio"]) if "ratio" in each[0] else "",
                *(f"{each[0]['predicted'][board]:.2f}" for board in BOARDS),
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    path.write_text("\n".join(lines) + "\n")


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.mean(values):.2f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values) / math.sqrt(len(values)):.2f}"


def main() -> None:
    """Fill in what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("models", "cifar", "coco", "people", "work"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--teachers", type=Path, default=HERE.parent / "teachers")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=4000, help="training images of every seed")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--test", type=int, default=None, help="test images, all unless told")
    parser.add_argument("--untimed", action="store_true", help="leave the host's latency out")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    sources = {"cifar": given.cifar, "coco": given.coco, "people": given.people}
    for seed in given.seeds:
        for case in given.cases:
            rows = json.loads(given.out.read_text()) if given.out.exists() else {}
            if (key := f"{case} | {seed}") in rows:
                continue
            source, graph, data = CASES[case].load(given.models, given.teachers, sources)
            data = replace(data, train=subset(data.train, min(given.images, len(data.train)), seed))
            if given.test is not None:
                data = replace(data, test=subset(data.test, min(given.test, len(data.test)), 0))
            folder, begun = given.work / f"{case}-{seed}", time.monotonic()
            folder.mkdir(parents=True, exist_ok=True)
            row: Row = {}
            for way, path, timed in ways(source, graph, data, folder, given.epochs, seed):
                row[way] = figures(source, path, None if given.untimed or seed else timed, data)
                print(key, way, row[way], flush=True)
            row["seconds"], row["images"], row["epochs"] = (
                round(time.monotonic() - begun),
                len(data.train),
                given.epochs,
            )
            rows[key] = row
            given.out.write_text(json.dumps(rows, indent=1) + "\n")
            write_table(rows, given.out.with_suffix(".md"))


if __name__ == "__main__":
    main()
