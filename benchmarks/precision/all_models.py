"""Every float model of a folder through `quantize`: does the file load, what does it lose, what does it weigh and take.

    python benchmarks/precision/all_models.py MODELS COCO CIFAR WORK [--only yolox-nano ...] [--pictures 48]

MODELS holds exam/, models/ and teachers/; COCO is a folder in YOLO's layout with images/train2017, CIFAR one with
train/ and test/; WORK gets the files. All networks but the CIFAR ones look at pictures without labels, so what they
lose is agreement with the float file. Files are written whatever they lose; no layer goes back to float unless
--max-drop asks for it. Rows that are in ``all_models.json`` are kept; ``all_models.md`` is written after each.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

import n2n_edge

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tasks"))

from networks import NETWORKS  # noqa: E402

FOLDERS = ("models", "exam", "teachers")
CIFAR = {"resnet20_jpeg", "resnet56_jpeg", "resnet20", "resnet56", "mlperftiny_ic_resnet8_fp32"}
NORMALISED = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
PLAIN = {"mean": (0.0,), "std": (1.0,), "resize": "squash"}
SPECIAL: dict[str, dict[str, Any]] = {
    "mlperftiny_ic_resnet8_fp32": {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "pixels": "0..255"},
    "bodypix": {**PLAIN, "input_shape": (3, 257, 257)},
    "ch_ppocr_mobile_v2.0_cls_infer": {**PLAIN, "input_shape": (3, 48, 192)},
    "deimv2-atto": {**PLAIN, "bind": ("orig_target_sizes=320,320",)},
    "pairlie": {**PLAIN, "bind": ("exposure=0.5",)},
    "ppocrv3-det-en": {**PLAIN, "task": "segmentation", "input_shape": (3, 320, 320)},
}

WITH_OPACITY = {"mlsd-tiny": 512}
"""Models that take a fourth channel, and the size of their images."""


def main() -> None:
    """Quantize what has no row yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("models", "coco", "cifar", "work"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--only", nargs="*", help="names of models, without .onnx")
    parser.add_argument("--skip", nargs="*", default=(), help="names of models to leave out this time")
    parser.add_argument("--pictures", type=int, default=48, help="pictures without labels")
    parser.add_argument("--images", type=int, default=32, help="of these, and of CIFAR's, so many set ranges")
    parser.add_argument("--calibration", default="auto")
    parser.add_argument("--max-time", type=float, default=1.0)
    parser.add_argument("--max-drop", type=float, default=100.0)
    parser.add_argument("--results", type=Path, default=HERE / "all_models.json")
    given = parser.parse_args()
    rows: dict[str, Any] = json.loads(given.results.read_text()) if given.results.exists() else {}
    pictures = linked(given.coco / "images" / "train2017", given.work / "pictures", given.pictures)
    for path in sorted(each for folder in FOLDERS for each in (given.models / folder).glob("*.onnx")):
        if path.stem in rows or path.stem in given.skip or (given.only and path.stem not in given.only):
            continue
        print(path.stem, flush=True)
        rows[path.stem] = row(path, pictures, given)
        given.results.write_text(json.dumps(rows, indent=1) + "\n")
        given.results.with_suffix(".md").write_text(table(rows))
        print("  ", json.dumps(rows[path.stem]), flush=True)


def linked(source: Path, target: Path, count: int) -> Path:
    """Return a folder with the first `count` pictures of another."""
    target.mkdir(parents=True, exist_ok=True)
    for picture in sorted(source.iterdir())[:count]:
        if not (target / picture.name).exists():
            (target / picture.name).symlink_to(picture.absolute())
    return target


def opaque(pictures: Path, size: int, path: Path) -> Path:
    """Write pictures with a fourth channel that says opaque, as arrays."""
    images = [Image.open(each).convert("RGBA").resize((size, size)) for each in sorted(pictures.iterdir())]
    np.savez(path, images=np.stack([np.asarray(image) for image in images]))
    return path


def row(path: Path, pictures: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Quantize one file; what stops it is an error of one line."""
    known = next((network.options for network in NETWORKS.values() if Path(network.file).stem == path.stem), None)
    options = SPECIAL.get(path.stem) or (NORMALISED if path.stem in CIFAR else None) or known or PLAIN
    source = given.cifar if path.stem in CIFAR else pictures
    if path.stem in WITH_OPACITY:
        source = opaque(pictures, WITH_OPACITY[path.stem], given.work / f"{path.stem}.npz")
    started = time.monotonic()
    try:
        report = n2n_edge.quantize_model(
            path, source, out=given.work / f"{path.stem}-int8.onnx",
            images=given.images, max_time=given.max_time, max_drop=given.max_drop, force=True, threads=1,
            calibration=given.calibration,
            on_message=lambda text: print(f"   {time.monotonic() - started:.0f} s: {text}", flush=True),
            **options,  # type: ignore[arg-type]
        )  # fmt: skip
    except n2n_edge.N2NError as error:
        return {"error": str(error).replace(f"{path.parent}/", "")}
    assert report.out is not None
    onnxruntime.InferenceSession(str(report.out), providers=["CPUExecutionProvider"])
    macs, found = report.precisions.macs, report.found
    assert found is not None
    before, after = report.float_figures, report.quantized_figures
    return {
        "task": report.task,
        "metric": report.metric,
        "float_mb": round(before["size_mb"].value, 3),
        "int8_mb": round(after["size_mb"].value, 3),
        "float": round(before[report.metric].value, 4),
        "int8": round(after[report.metric].value, 4),
        "drop": round(report.drop.value, 2),
        "images": after[report.metric].n,
        "integer_macs": round(macs.get("int8", 0) / max(1, sum(macs.values())), 3),
        "conversions": report.precisions.conversions,
        "ratio": None if report.ratio is None else report.ratio.to_json(),
        "method": found.method,
        "steps": {name: float(f"{loss:.4g}") for name, loss in found.steps.items()},
        "returned": len(found.returned),
        "seconds": round(time.monotonic() - started),
    }


def table(rows: dict[str, Any]) -> str:
    """Return all rows as Markdown."""
    lines = ["| model | task | MB | MB int8 | MACs in int8 | float | int8 | points lost | time, int8 over float |"]
    lines.append("| --- " * 9 + "|")
    for name, each in sorted(rows.items()):
        if "error" in each:
            lines.append(f"| {name} | {each['error']} |" + " |" * 7)
            continue
        ratio = each["ratio"]
        time_words = "" if ratio is None else f"{ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
        lines.append(
            f"| {name} | {each['task']}, {each['metric']} of {each['images']} | {each['float_mb']} | {each['int8_mb']} "
            f"| {each['integer_macs']:.0%} | {each['float']:.1%} | {each['int8']:.1%} | {each['drop']} | {time_words} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
