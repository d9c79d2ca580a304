"""A folder of generated photographs, and a teacher of MobileNetV2's size that tells their classes apart."""

import io
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HERE = Path(__file__).resolve().parent
CLASSES, SCENES = 20, 24
"""Classes, and scenes of each, of which every picture is a cut."""

MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


def _scene(random: np.random.RandomState, kind: int) -> NDArray[np.uint8]:
    """Return waves of the class's direction, length and colours, `(450, 600, 3)`, under blobs and noise of any."""
    own = np.random.RandomState(kind)
    rows, columns = np.mgrid[0:450, 0:600].astype(np.float32)
    light, dark = own.uniform(0.2, 1, 3), own.uniform(0, 0.6, 3)
    angle, length = own.uniform(0, np.pi) + random.normal(0, 0.08), own.uniform(8, 60) * random.uniform(0.85, 1.2)
    across = rows * np.sin(angle) + columns * np.cos(angle)
    waves = 0.5 + 0.5 * np.sin(across * 2 * np.pi / length + random.uniform(0, 6))
    picture = dark + (light - dark) * waves[..., None]
    for _ in range(12):
        row, column, size = random.uniform(0, 450), random.uniform(0, 600), random.uniform(15, 90)
        inside = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / size**2)[..., None]
        picture = picture * (1 - inside) + random.uniform(0, 1, 3) * inside
    grain = np.asarray(Image.fromarray(random.randint(0, 256, (225, 300, 3)).astype(np.uint8)).resize((600, 450)))
    return np.clip(picture * 210 + grain * 0.18, 0, 255).astype(np.uint8)


def _make_class(folder: Path, kind: int, count: int) -> None:
    random = np.random.RandomState(1000 + kind)
    scenes = [Image.fromarray(_scene(random, kind)) for _ in range(SCENES)]
    path = folder / f"class{kind:02}"
    path.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        scene = scenes[index % SCENES]
        wide = random.rand() < 0.7
        width, height = (400, 300) if wide else (300, 400)
        width, height = width + random.randint(-12, 13), height + random.randint(-12, 13)
        left, top = random.randint(0, 600 - width + 1), random.randint(0, 450 - height + 1)
        cut = scene.crop((left, top, left + width, top + height))
        if random.rand() < 0.5:
            cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        written = io.BytesIO()
        cut.save(written, "JPEG", quality=int(random.randint(78, 93)))
        (path / f"{index:05}.jpg").write_bytes(written.getvalue())


def make_folder(folder: Path, images: int, processes: int = 2) -> None:
    """Write so many JPEGs of about 400 x 300, a folder per class; a folder that has them is left as it is."""
    mark = folder.parent / f"{folder.name}.{images}"
    if mark.exists():
        return
    with ProcessPoolExecutor(processes) as pool:
        for job in [pool.submit(_make_class, folder, kind, images // CLASSES) for kind in range(CLASSES)]:
            job.result()
    mark.touch()


def make_teacher(path: Path, folder: Path, size: int = 224) -> None:
    """Write a MobileNetV2 of `CLASSES` classes: random filters, and a head fitted to some images of the folder."""
    import onnx
    from mobilenet import FEATURES, mobilenet_v2

    graph = mobilenet_v2(1.0, "Relu6")
    arrays = graph.arrays
    files, labels = _some(folder)
    first = _inputs(files[:32], size)
    for name in [name.removesuffix(".mean") for name in arrays if name.endswith(".mean")]:
        found = _run(graph.model(size, f"{name}.y", None), first)
        arrays[f"{name}.mean"], arrays[f"{name}.var"] = found.mean((0, 2, 3)), found.var((0, 2, 3)) + np.float32(1e-3)
    model = graph.model(size, "features", FEATURES)
    features = np.concatenate([_run(model, _inputs(files[at : at + 32], size)) for at in range(0, len(files), 32)])
    middle, spread = features.mean(0), features.std(0) + 1e-3
    inputs = np.concatenate([(features - middle) / spread, np.ones((len(features), 1), np.float32)], 1)
    wanted = 8 * np.eye(CLASSES, dtype=np.float32)[labels]
    solved = np.linalg.solve(inputs.T @ inputs + 200 * np.eye(inputs.shape[1]), inputs.T @ wanted)
    weight = (solved[:-1] / spread[:, None]).astype(np.float32)
    arrays["head.w"], arrays["head.b"] = weight, (solved[-1] - middle @ weight).astype(np.float32)
    graph.nodes.append(onnx.helper.make_node("Gemm", ["features", "head.w", "head.b"], ["scores"], name="head"))
    onnx.save(graph.model(size, "scores", CLASSES), path)


def _some(folder: Path, each: int = 100) -> tuple[list[Path], NDArray[np.int64]]:
    files = [sorted(path.iterdir())[:each] for path in sorted(folder.iterdir())]
    labels = np.repeat(np.arange(len(files)), [len(own) for own in files])
    order = np.random.RandomState(0).permutation(len(labels))
    flat = [file for own in files for file in own]
    return [flat[place] for place in order], labels[order]


def _inputs(files: list[Path], size: int) -> NDArray[np.float32]:
    inputs = []
    for file in files:
        with Image.open(file) as image:
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            cut = image.crop((left, top, left + side, top + side)).resize((size, size))
            inputs.append(((np.asarray(cut, np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1))
    return np.stack(inputs)


def _run(model: "object", images: NDArray[np.float32]) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString())  # type: ignore[attr-defined]
    found: NDArray[np.float32] = session.run(None, {"x": images})[0]
    return found


if __name__ == "__main__":
    make_folder(Path(sys.argv[1]), int(sys.argv[2]))
