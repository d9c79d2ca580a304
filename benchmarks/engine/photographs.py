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

BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, repeats and first stride of MobileNetV2's stages."""

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
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.RandomState(0)
    nodes: list[onnx.NodeProto] = []
    arrays: dict[str, NDArray[np.float32]] = {}

    def conv(
        source: str, inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1, relu: bool = True
    ) -> str:
        name = f"c{len(nodes)}"
        shape = (outputs, inputs // groups, kernel, kernel)
        arrays[f"{name}.w"] = (random.randn(*shape) * (2 / np.prod(shape[1:])) ** 0.5).astype(np.float32)
        norm = [f"{name}.{part}" for part in ("scale", "shift", "mean", "var")]
        for part, value in zip(norm, (1, 0, 0, 1), strict=True):
            arrays[part] = np.full(outputs, value, np.float32)
        pad = [kernel // 2] * 4
        nodes.append(
            helper.make_node(
                "Conv", [source, f"{name}.w"], [f"{name}.y"], name=name, strides=[stride] * 2, pads=pad, group=groups
            )
        )
        nodes.append(helper.make_node("BatchNormalization", [f"{name}.y", *norm], [f"{name}.n"]))
        if relu:
            nodes.append(helper.make_node("Clip", [f"{name}.n", "low", "high"], [f"{name}.r"]))
        return f"{name}.r" if relu else f"{name}.n"

    arrays["low"], arrays["high"] = np.array(0, np.float32), np.array(6, np.float32)
    last, width = conv("x", 3, 32, 3, 2), 32
    for expansion, channels, repeats, first in BLOCKS:
        for turn in range(repeats):
            stride = first if turn == 0 else 1
            wide = width * expansion
            inner = conv(last, width, wide, 1, 1) if expansion > 1 else last
            inner = conv(inner, wide, wide, 3, stride, groups=wide)
            inner = conv(inner, wide, channels, 1, 1, relu=False)
            if stride == 1 and width == channels:
                nodes.append(helper.make_node("Add", [last, inner], [f"a{len(nodes)}"]))
                inner = nodes[-1].output[0]
            last, width = inner, channels
    last = conv(last, width, 1280, 1, 1)
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
    ]

    def model(outputs: tuple[str, int]) -> onnx.ModelProto:
        graph = helper.make_graph(
            nodes,
            "mobilenet_v2",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, size, size])],
            [helper.make_tensor_value_info(outputs[0], TensorProto.FLOAT, ["batch", outputs[1]])],
            [numpy_helper.from_array(array, name) for name, array in arrays.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    files, labels = _some(folder)
    first = _inputs(files[:32], size)
    for name in [name.removesuffix(".mean") for name in arrays if name.endswith(".mean")]:
        arrays[f"{name}.mean"], arrays[f"{name}.var"] = _statistics(
            model, nodes, f"{name}.y", _inputs(files[:32], size)
        )
    features = np.concatenate(
        [_run(model(("features", 1280)), _inputs(files[at : at + 32], size)) for at in range(0, len(files), 32)]
    )
    middle, spread = features.mean(0), features.std(0) + 1e-3
    inputs = np.concatenate([(features - middle) / spread, np.ones((len(features), 1), np.float32)], 1)
    wanted = 8 * np.eye(CLASSES, dtype=np.float32)[labels]
    solved = np.linalg.solve(inputs.T @ inputs + 200 * np.eye(inputs.shape[1]), inputs.T @ wanted)
    weight = (solved[:-1] / spread[:, None]).astype(np.float32)
    arrays["head.w"], arrays["head.b"] = weight, (solved[-1] - middle @ weight).astype(np.float32)
    nodes.append(helper.make_node("Gemm", ["features", "head.w", "head.b"], ["scores"], name="head"))
    onnx.save(model(("scores", CLASSES)), path)


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


def _statistics(
    model: "object", nodes: "object", value: str, images: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    import onnx

    whole = model((value, 1))  # type: ignore[operator]
    whole.graph.output[0].CopyFrom(onnx.helper.make_empty_tensor_value_info(value))
    whole.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    found = _run(whole, images)
    return found.mean((0, 2, 3)), found.var((0, 2, 3)) + np.float32(1e-3)


if __name__ == "__main__":
    make_folder(Path(sys.argv[1]), int(sys.argv[2]))
