"""What equalisation and bias correction bring to post-training quantization, on networks as they are.

    python benchmarks/rewrites/run.py CIFAR PHOTOS MODELS [--networks resnet20 ...]

CIFAR is a folder with train/ and test/, each with a folder of images per class; PHOTOS one with images/train2017 and
images/val2017; MODELS one with teachers/, models/ and exam/. Ranges are the least and largest figures of 128 (CIFAR) or
16 training images, so that nothing but the rewrites differs; QDQ models are run as they are written. Rows that
``results.json`` has are kept.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
from PIL import Image

from n2n_edge.graph.batchnorm import fold_batchnorm
from n2n_edge.graph.file_version import in_version
from n2n_edge.graph.input_shape import in_layout, input_layout
from n2n_edge.graph.learned import with_learned_outputs
from n2n_edge.graph.load import load_model
from n2n_edge.graph.normalise import normalise
from n2n_edge.graph.shape_run import run_graph_each
from n2n_edge.quantize.bias_correction import correct_biases
from n2n_edge.quantize.equalise import equalise
from n2n_edge.quantize.plan import QuantizationPlan
from n2n_edge.quantize.qdq import LEAST_OPSET, activations, folded, output_nodes, with_qdq
from n2n_edge.quantize.sensitivity import output_error

HERE = Path(__file__).parent
IMAGENET = (np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375]))
HALF, UNIT, BYTES = (127.5, 127.5), (0.0, 255.0), (0.0, 1.0)
NETWORKS = {
    "resnet20": ("teachers/resnet20_jpeg.onnx", IMAGENET, True),
    "resnet56": ("teachers/resnet56_jpeg.onnx", IMAGENET, True),
    "mobilenet-v1 0.25": ("models/mlperftiny_vww_mbv1_025_fp32.onnx", UNIT, False),
    "ultraface": ("models/ultraface_RFB-320.onnx", HALF, False),
    "pfld": ("exam/pfld.onnx", UNIT, False),
    "ppocr direction": ("models/ch_ppocr_mobile_v2.0_cls_infer.onnx", HALF, False),
    "blazeface": ("exam/blazeface-back.onnx", HALF, False),
    "nanodet-m": ("exam/nanodet-m-416.onnx", IMAGENET, False),
    "yolox-nano": ("exam/yolox-nano.onnx", BYTES, False),
}
"""File, mean and deviation of pixels, and whether it tells the classes of CIFAR-10."""

Batches = list[dict[str, np.ndarray]]
Scale = tuple[float | np.ndarray, float | np.ndarray]


def files(folder: Path, most: int) -> tuple[list[Path], np.ndarray]:
    """Return at most so many images of a folder, evenly chosen, and the number of each one's class."""
    everything = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    chosen = [everything[i] for i in np.linspace(0, len(everything) - 1, most).astype(int)]
    classes = sorted({path.parent.name for path in everything})
    return chosen, np.array([classes.index(path.parent.name) for path in chosen])


def batches(paths: list[Path], model: ir.Model, scale: Scale) -> Batches:
    """Return images as the network takes them, one at a time where its batch is fixed."""
    value, layout = model.graph.inputs[0], input_layout(model)
    assert value.shape is not None
    sizes = [size if isinstance(size, int) else 1 for size in value.shape]
    height, width = sizes[1:3] if sizes[3] in (1, 3) else sizes[2:4]
    mean, deviation = (np.asarray(each, np.float32).reshape(-1, 1, 1) for each in scale)
    size = 1 if isinstance(value.shape[0], int) else (32 if height <= 64 else 4)
    images = [
        (np.asarray(Image.open(path).convert("RGB").resize((width, height)), np.float32).transpose(2, 0, 1) - mean)
        / deviation
        for path in paths
    ]
    parts = (np.stack(images[start : start + size]).astype(np.float32) for start in range(0, len(images), size))
    return [{str(value.name): in_layout(part, layout)} for part in parts]


def outputs(model: ir.Model, images: Batches) -> list[np.ndarray]:
    """Return the learned outputs of a model for all images."""
    model = with_learned_outputs(model)
    names = [str(value.name) for value in model.graph.outputs]
    seen = [[batch[name] for name in names] for batch in run_graph_each(model, images, set(names))]
    return [np.concatenate(parts) for parts in zip(*seen, strict=True)]


def ranges(model: ir.Model, plan: QuantizationPlan, images: Batches) -> dict[str, tuple[float, float]]:
    """Return the least and the largest figure of every value that is quantized."""
    names, found = set(activations(model, plan)), {}
    for batch, seen in zip(images, run_graph_each(model, images, names), strict=True):
        for name, array in {**batch, **seen}.items():
            low, high = found.get(name, (0.0, 0.0))
            found[name] = (min(low, float(array.min())), max(high, float(array.max())))
    return found


def variants(model: ir.Model, plan: QuantizationPlan, images: Batches) -> Iterator[tuple[str, ir.Model, float]]:
    """Give the quantized models, and the seconds that each rewrite takes."""
    for name, change in (("plain", lambda graph: graph), ("equalised", lambda graph: equalise(graph, images))):
        start = time.monotonic()
        graph = change(model)
        seconds = time.monotonic() - start
        training = with_qdq(graph, ranges(graph, plan, images), plan)
        yield name, folded(training), seconds
        start = time.monotonic()
        corrected = correct_biases(training, graph, images)
        yield f"{name}, corrected" if name != "plain" else "corrected", folded(corrected), time.monotonic() - start


def measured(path: Path, scale: Scale, cifar: bool, arguments: argparse.Namespace) -> dict[str, object]:
    """Return a network's row."""
    source = normalise(load_model(path))
    if source.opset_imports.get("", 1) < LEAST_OPSET:
        source = normalise(in_version(source, LEAST_OPSET, None))
    model = fold_batchnorm(source)
    if cifar:
        train, (test, labels) = files(arguments.cifar / "train", 128)[0], files(arguments.cifar / "test", 1000)
    else:
        train, (test, labels) = (
            files(arguments.photos / "images/train2017", 16)[0],
            files(arguments.photos / "images/val2017", 12),
        )
    calibration, images = batches(train, model, scale), batches(test, model, scale)
    plan = QuantizationPlan(float_nodes=frozenset(() if cifar else output_nodes(model)))
    wanted = outputs(model, images)
    row: dict[str, object] = {}
    if cifar:
        row["float"] = {"accuracy": round(100 * float((wanted[0].argmax(1) == labels).mean()), 2)}
    for name, quantized, seconds in variants(model, plan, calibration):
        given = outputs(quantized, images)
        figures = {"error": float(f"{output_error(wanted, given):.3g}"), "seconds": round(seconds, 1)}
        if cifar:
            figures["accuracy"] = round(100 * float((given[0].argmax(1) == labels).mean()), 2)
            figures["agreement"] = round(100 * float((given[0].argmax(1) == wanted[0].argmax(1)).mean()), 2)
        row[name] = figures
        print(path.name, name, figures, flush=True)
    return row


def table(rows: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return the rows as Markdown."""
    names = ("plain", "equalised", "corrected", "equalised, corrected")
    lines = [
        "# Error of int8 networks by rewrite",
        "",
        "Squared error of the outputs as a share of their squares, in thousandths; for CIFAR-10 also the points of "
        "accuracy that are lost and, in brackets, the share of 1000 test images with another class than float gives.",
        "",
        "| network | " + " | ".join(names) + " |",
        "| --- |" + " --- |" * len(names),
    ]
    for network, row in rows.items():
        cells = []
        for name in names:
            cell = f"{1000 * row[name]['error']:.3g}"
            if "float" in row:
                lost, other = row["float"]["accuracy"] - row[name]["accuracy"], 100 - row[name]["agreement"]
                cell += f"; {lost:+.1f} ({other:.1f}%)"
            cells.append(cell)
        lines.append(f"| {network} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure what isn't there yet and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("cifar", "photos", "models"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    arguments = parser.parse_args()
    results = HERE / "results.json"
    rows = json.loads(results.read_text()) if results.exists() else {}
    for name in arguments.networks:
        if name not in rows:
            path, scale, cifar = NETWORKS[name]
            rows[name] = measured(arguments.models / path, scale, cifar, arguments)
            results.write_text(json.dumps(rows, indent=1) + "\n")
            (HERE / "results.md").write_text(table(rows))


if __name__ == "__main__":
    main()
