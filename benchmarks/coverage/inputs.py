"""Compression of real models whose inputs have all shapes: fixed batches, channels last, further inputs, free sizes.

Every file goes through `compress` with two candidates and one epoch, by fidelity to the teacher, in a process of its
own. What shipped is run in ONNX Runtime on image files, read by `raw_images.py` through its recorded preprocessing
alone, and read back in torch on what the run itself makes of the files. A candidate is trained on few images here: the
question is what goes through, not how good it gets.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raw_images import as_input, read_raw

if TYPE_CHECKING:
    import onnx_ir as ir

HERE = Path(__file__).parent
BINDINGS = {"pairlie.onnx": ("exposure=0.5",), "deimv2-atto.onnx": ("orig_target_sizes=640,640",)}
OF_OPENCV = {"channels": "bgr", "pixels": "0..255", "antialias": False}
PREPROCESSING: dict[str, dict[str, Any]] = {
    "yolox-nano.onnx": {"resize": "letterbox", "pad_position": "top-left", **OF_OPENCV},
    "nanodet-m-416.onnx": {
        "resize": "squash", "mean": (103.53, 116.28, 123.675), "std": (57.375, 57.12, 58.395), **OF_OPENCV,
    },
    "selfie.onnx": {"resize": "squash"},
}  # fmt: skip
"""As their authors give them images."""
LEFT_OUT = {"super-resolution.onnx": "ONNX Runtime refuses it"}
IMAGES_OF_A_CANDIDATE = 16
RAW = 4
MINUTES = 6
SECONDS = 600


def row(model: Path, data: Path, out: Path) -> dict[str, object]:
    """Compress one model, and return what came of it."""
    import n2n_edge
    from n2n_edge.graph.bind import bound_names
    from n2n_edge.graph.free_batch import takes_one_image
    from n2n_edge.graph.input_shape import input_layout, leaves_size_free
    from n2n_edge.graph.learned import learned_outputs
    from n2n_edge.graph.load import load_model
    from n2n_edge.graph.teacher import Teacher
    from n2n_edge.runs import settings

    quick = settings.EFFORTS["quick"]
    settings.EFFORTS["quick"] = replace(quick, short_images=IMAGES_OF_A_CANDIDATE)  # type: ignore[index]
    teacher = load_model(model)
    planes = four_planes(teacher, data, out)
    run = n2n_edge.compress(
        model, data=planes or data, effort="quick", candidates=2, epochs=1, minutes=MINUTES,
        bind=BINDINGS.get(model.name), out=out, **PREPROCESSING.get(model.name, {}),
    )  # fmt: skip
    student = load_model(run.student)
    kinds = {
        "channels last": input_layout(teacher) == "nhwc",
        "free size": leaves_size_free(student),
        "size settled": leaves_size_free(teacher) and not leaves_size_free(student),
        "batch of one": takes_one_image(teacher),
        "not opened": BINDINGS.get(model.name) is None and takes_one_image(Teacher(teacher).model),
        "four planes": planes is not None,
        "bound input": bool(bound_names(student)),
        "tail": [value.name for value in learned_outputs(student)] != [value.name for value in student.graph.outputs],
    }
    report = run.report
    return {
        "outcome": "ok",
        "kinds": [kind for kind, holds in kinds.items() if holds],
        "opset": student.opset_imports.get("", student.opset_imports.get("ai.onnx")),
        "params": [report[side]["params"]["value"] for side in ("teacher", "student")],
        "macs": [report[side]["macs"]["value"] for side in ("teacher", "student")],
        "fidelity": report["student"]["fidelity"]["value"],
        "parity": report["parity"]["max_relative_error"],
        "raw_images": on_raw_images(run.student, sorted(data.iterdir())[:RAW] if planes is None else planes),
    }


def four_planes(teacher: "ir.Model", data: Path, out: Path) -> Path | None:
    """Return an .npz of the images with a plane of ones, for a teacher that takes one; image folders have three."""
    import numpy as np
    from PIL import Image

    from n2n_edge.graph.input_shape import image_shape, input_layout

    sizes = next(value for value in teacher.graph.inputs if not value.is_initializer()).shape
    if sizes is None or sizes[-1 if input_layout(teacher) == "nhwc" else 1] != 4:
        return None
    _, height, width = image_shape(teacher)
    images = [np.asarray(Image.open(file).convert("RGB").resize((width, height))) for file in sorted(data.iterdir())]
    planes = np.concatenate([np.stack(images), np.ones((len(images), height, width, 1), np.uint8)], axis=3)
    out.parent.mkdir(parents=True, exist_ok=True)
    path = out.with_suffix(".npz")
    np.savez(path, x_train=planes[:-RAW], x_test=planes[-RAW:])
    return path


def on_raw_images(student: Path, given: list[Path] | Path) -> float:
    """Return how far ONNX Runtime, on what is read by the metadata alone, and torch are apart.

    That is image files, or the test images of an .npz, which have the network's size.
    """
    import numpy as np
    import torch

    import n2n_edge
    from n2n_edge.data.preprocessing import METADATA_KEY
    from n2n_edge.graph.image_session import ImageSession
    from n2n_edge.graph.load import load_model
    from n2n_edge.runs.parity import worst_difference
    from n2n_edge.training.executor import GraphModule

    model, recorded = load_model(student), n2n_edge.Preprocessing.of(student)
    session, module = ImageSession.learned(student), GraphModule(model)
    metadata = json.loads(model.metadata_props[METADATA_KEY])
    worst = 0.0
    files = [(recorded.resized(file), read_raw(file, metadata)) for file in given] if isinstance(given, list) else []
    arrays = np.load(given)["x_test"] if isinstance(given, Path) else []
    for own_bytes, image in (*files, *((array, as_input(array, metadata)) for array in arrays)):
        if metadata["layout"] == "nhwc":  # which the session turns again
            image = image.transpose(0, 3, 1, 2)
        with torch.inference_mode():
            outputs = module(torch.from_numpy(recorded.batch(own_bytes[np.newaxis])).float())
        own = [item.numpy() for item in (outputs if isinstance(outputs, tuple) else (outputs,))]
        worst = max(worst, worst_difference(own, session.run(image)).relative)
    return worst


def table(rows: dict[str, dict[str, object]]) -> str:
    """Return the rows as a page."""
    lines = [
        "# Inputs of all shapes: real models through `compress`",
        "",
        "Two candidates, one epoch, by fidelity to the teacher (see [README.md](README.md)). *parity*: torch and ONNX",
        "Runtime on the run's images, relative error; *raw images*: on image files, which ONNX Runtime gets through",
        "the recorded preprocessing alone, by a reader of Pillow and numpy, against torch on what the run itself reads",
        "(where scaling isn't antialiased the two round about one byte in a thousand to its neighbour).",
        "",
        "| model | what its inputs and outputs ask for | outcome | params | MACs | parity | raw images | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in sorted(rows):
        row = rows[name]
        if row["outcome"] != "ok":
            lines.append(f"| {name} | | {row['outcome']} | | | | | {row['seconds']} |")
            continue
        shares = ["{1:,} of {0:,}".format(*map(int, row[key])) for key in ("params", "macs")]  # type: ignore[call-overload]
        raw = "" if row["raw_images"] is None else f"{row['raw_images']:.1e}"
        lines.append(
            f"| {name} | {', '.join(row['kinds'])} | ok | {shares[0]} | {shares[1]} | {row['parity']:.1e} | {raw} "  # type: ignore[arg-type]
            f"| {row['seconds']} |"
        )
    done = sum(row["outcome"] == "ok" for row in rows.values())
    return "\n".join([*lines, "", f"{done} of the {len(rows)} models that were tried go through."]) + "\n"


def main() -> None:
    """Compress the models that have no row yet, one process each, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, help="folder of ONNX files")
    parser.add_argument("data", type=Path, help="folder of images, some twenty")
    parser.add_argument("runs", type=Path, help="folder for the runs")
    parser.add_argument("--only", nargs="*", help="names of files")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, default=HERE / "inputs.json")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(row(given.models, given.data, given.runs)))
        return
    rows = json.loads(given.results.read_text()) if given.results.exists() else {}
    for model in sorted(given.models.glob("*.onnx")):
        if model.name in LEFT_OUT or (rows.get(model.name, {}).get("outcome") == "ok" and not given.only):
            continue
        if given.only and model.name not in given.only:
            continue
        start = time.monotonic()
        command = [sys.executable, __file__, str(model), str(given.data), str(given.runs / model.stem), "--one"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
            said = (done.stderr.strip().splitlines() or ["no message"])[-1]
            found = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"outcome": said[:200]}
        except subprocess.TimeoutExpired:
            found = {"outcome": f"not done after {SECONDS} s"}
        rows[model.name] = {**found, "seconds": round(time.monotonic() - start)}
        given.results.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n")
        given.results.with_suffix(".md").write_text(table(rows))
        print(model.name, rows[model.name], flush=True)


if __name__ == "__main__":
    main()
