"""What the fuzzer feeds to which public function or command: small real files, mutated, by kind of input."""

import csv
import io
import json
import tomllib
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tests.faults.mutation import (
    ODD_NUMBERS,
    as_json,
    as_toml,
    mutated_bytes,
    mutated_message,
    mutated_png,
    mutated_text,
    mutated_value,
)  # fmt: skip

__all__ = ["CONTROL", "SUBJECTS", "Files", "Subject"]

ROOT = Path(__file__).resolve().parents[2]
Files = dict[str, bytes]
"""Content by relative path."""


@dataclass(frozen=True)
class Subject:
    """One kind of input: `make` gives mutated files, `read` hands their folder to the program."""

    make: Callable[[Random], Files]
    read: Callable[[Path, Random], None]
    writes: tuple[str, ...] = ()
    """Endings of the files that the program writes beside them."""
    weight: int = 1
    """Its part of the inputs of a hunt."""


def command(*words: object) -> None:
    """Run a command in this process; what it prints goes nowhere, its errors are raised."""
    from n2n_edge.cli.app import app

    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        app([str(word) for word in words], standalone_mode=False)


# --- ONNX files -------------------------------------------------------------------------------------------------------


def _network(random: Random) -> Any:
    from tests.strategies import BLOCKS, HEADS, Recipe, build_cnn

    return build_cnn(
        Recipe(
            opset=random.choice((11, 13, 17, 18, 20)),
            seed=random.randrange(2**16),
            batch_norm=random.random() < 0.5,
            activation=random.choice(("Relu", "Clip", "PRelu", "Swish", "LeakyRelu")),
            channels=3,
            size=8,
            stem=4,
            blocks=tuple((random.choice(sorted(BLOCKS)), 1, 4) for _ in range(random.randint(1, 2))),
            head=random.choice(sorted(HEADS)),
            classes=3,
            free_batch=random.random() < 0.5,
            batch=1,
        )
    )


@cache
def _quantized() -> tuple[bytes, ...]:
    from tests.quantized import KINDS, floats, quantized

    with TemporaryDirectory() as name:
        source = floats(Path(name) / "floats.onnx")
        return tuple(quantized(source, kind, Path(name) / f"{kind}.onnx").read_bytes() for kind in KINDS)


def _control_flow(random: Random) -> Any:
    """A network in which an If, a Loop and a function of the file's own stand."""
    from onnx import TensorProto, helper, numpy_helper

    value = [helper.make_tensor_value_info("b", TensorProto.FLOAT, ["n", 3, 8, 8])]
    then = helper.make_graph([helper.make_node("Relu", ["c"], ["b"])], "then", [], value)
    other = helper.make_graph([helper.make_node("Sigmoid", ["c"], ["b"])], "else", [], value)
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Tanh", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, ["n", 3, 8, 8]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, ["n", 3, 8, 8]),
        ],
    )
    function = helper.make_function(
        "local", "Twice", ["a"], ["d"], [helper.make_node("Add", ["a", "a"], ["d"])], [helper.make_opsetid("", 17)]
    )
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c"], pads=[1, 1, 1, 1], name="conv"),
        helper.make_node("If", ["flag"], ["f"], then_branch=then, else_branch=other),
        helper.make_node("Loop", ["turns", "flag", "f"], ["l"], body=body),
        helper.make_node("Twice", ["l"], ["t"], domain="local"),
        helper.make_node("Conv", ["t", "w1"], ["y"], name="last"),
    ]
    generator = np.random.default_rng(random.randrange(100))
    constants = {
        "w0": generator.standard_normal((3, 3, 3, 3)).astype(np.float32),
        "w1": generator.standard_normal((2, 3, 1, 1)).astype(np.float32),
        "flag": np.array(True),
        "turns": np.array(2, np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2, 8, 8])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=imports, functions=[function], ir_version=9)


def _external(model: Any, random: Random) -> Files:
    """Put the weights into a file beside the model, and mutate what leads there, or that file."""
    from onnx.external_data_helper import set_external_data

    content = bytearray()
    for tensor in model.graph.initializer:
        if tensor.HasField("raw_data"):
            raw = tensor.raw_data
            set_external_data(tensor, "weights.bin", len(content), len(raw))
            tensor.ClearField("raw_data")
            tensor.data_location = 1
            content += raw
    data = bytes(content)
    if random.random() < 0.3:
        data = mutated_bytes(data, random)
    else:
        tensors = [tensor for tensor in model.graph.initializer if tensor.external_data]
        entry = random.choice(random.choice(tensors).external_data)
        entry.value = random.choice(
            ("", "..", "/etc/passwd", "-1", "1" * 30, "model.onnx", "../x", "nan", "./weights.bin", "\0", "4096")
        )
    return {"model.onnx": model.SerializeToString(), "weights.bin": data}


def _sparse(model: Any, random: Random) -> None:
    """Make one of the weights sparse, in place."""
    from onnx import helper, numpy_helper

    tensor = random.choice([each for each in model.graph.initializer if each.dims])
    array = numpy_helper.to_array(tensor)
    flat = array.reshape(-1)[:5]
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(flat, tensor.name),
        numpy_helper.from_array(np.arange(len(flat), dtype=np.int64), "places"),
        list(array.shape),
    )
    model.graph.sparse_initializer.append(sparse)
    model.graph.initializer.remove(tensor)


def make_onnx(random: Random) -> Files:
    import onnx

    form = random.randrange(10)
    if form == 0:
        return {"model.onnx": mutated_bytes(random.choice(_quantized()), random)}
    if form == 1:
        model = onnx.load_from_string(random.choice(_quantized()))
    elif form in (2, 3):
        model = _control_flow(random)
    else:
        model = _network(random)
    if form == 4:
        return _external(model, random)
    if form == 5:
        _sparse(model, random)
    if form in (6, 7):
        return {"model.onnx": mutated_bytes(model.SerializeToString(), random)}
    mutated_message(model, random)
    return {"model.onnx": model.SerializeToString()}


def read_onnx(folder: Path, random: Random) -> None:
    import n2n_edge

    path = folder / "model.onnx"
    which = random.randrange(8)
    if which < 4:
        teacher = n2n_edge.Teacher.load(path)
        chosen = frozenset(layer.name for layer in teacher.layers if layer.removable and random.random() < 0.3)
        architecture = teacher.full.remove(*sorted(teacher.repaired(chosen)))
        group = next((group for group in teacher.groups if group.shrinkable and group.width > 1), None)
        if group is not None:
            architecture = architecture.resize(group.name, group.width // 2)
        n2n_edge.costs(n2n_edge.build(teacher, architecture))
    elif which == 4:
        command("inspect", path, *(["--json"] if random.random() < 0.5 else []))
    elif which == 5:
        command("predict", path, "--device", "raspberry-pi-4")
    elif which == 6:
        command("gate", path, "--static", "--max-mb", "1", "--max-params", "1e6", "--max-memory-mb", "5")
    else:
        n2n_edge.dequantize(path)


# --- arrays and pictures ----------------------------------------------------------------------------------------------


def _npy(array: np.ndarray, random: Random) -> bytes:
    """Return an array as a file, its header mutated."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=(1, 0))
    whole = stream.getvalue()
    if random.random() < 0.3:
        return mutated_bytes(whole, random)
    end = 10 + int.from_bytes(whole[8:10], "little")
    header: dict[str, Any] = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
    key = random.choice(list(header))
    descr = (">f4", "<i8", "|u1", "|O", "<U9", "<c8", "|b1", "<f2", "<M8[s]", "|V9", [("a", "<f4")], "?", "<f16", "<u8")
    if key == "descr":
        header[key] = random.choice(descr)
    elif key == "shape":
        sizes = list(array.shape)
        sizes[random.randrange(len(sizes))] = random.choice((0, 1, -1, 2**40, 2**63, 10**30, True))
        header[key] = tuple(sizes[: random.randint(0, 4)])
    else:
        header[key] = random.choice((True, 1, None))
    if random.random() < 0.2:
        header[random.choice(("x", "descr", "shape"))] = mutated_value(7, random)
    text = repr(header).encode("utf-8", "replace")[:60_000]
    return whole[:8] + len(text).to_bytes(2, "little") + text + whole[end:]


def make_npz(random: Random) -> Files:
    import zipfile

    generator = np.random.default_rng(random.randrange(100))
    count = random.choice((3, 6, 12))
    arrays: dict[str, np.ndarray] = {
        "x": generator.integers(0, 255, (count, 8, 8, 3)).astype(np.uint8),
        "y": np.arange(count) % 3,
    }
    if random.random() < 0.4:
        rows = np.arange(2 * count)
        edges = np.tile([1.0, 2.0, 5.0, 6.0], (2 * count, 1))
        arrays = {"x": arrays["x"], "boxes": np.column_stack([rows // 2, edges, rows % 2])}
    if random.random() < 0.3:
        arrays = {f"{name}{suffix}": array for name, array in arrays.items() for suffix in ("_train", "_test")}
    name = random.choice(list(arrays))
    if random.random() < 0.5:
        kinds = ("f2", "f4", "f8", "i1", "i8", "u8", "?", "c8", "U3", "O")
        array = arrays[name].astype(random.choice(kinds))
        if array.size and array.dtype.kind in "fiu" and random.random() < 0.7:
            values = [value for value in ODD_NUMBERS if isinstance(value, float) or abs(value) < 2**15]
            with np.errstate(all="ignore"):
                array.reshape(-1)[random.randrange(array.size)] = np.array(random.choice(values)).astype(array.dtype)
        shapes = (array.shape, (-1,), (1, -1), (-1, 1), array.shape[::-1])
        arrays[name] = array.reshape(random.choice(shapes)) if array.size else array
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for key, array in arrays.items():
            if array.dtype.kind == "O":
                kept = io.BytesIO()
                np.lib.format.write_array(kept, array, allow_pickle=True)
                archive.writestr(f"{key}.npy", kept.getvalue())
            elif key == name and random.random() < 0.5:
                archive.writestr(f"{key}.npy", _npy(array, random))
            else:
                kept = io.BytesIO()
                np.lib.format.write_array(kept, array)
                archive.writestr(f"{key}.npy", kept.getvalue())
    data = stream.getvalue()
    return {"data.npz": mutated_bytes(data, random) if random.random() < 0.4 else data}


def _load_data(path: Path, random: Random) -> None:
    from n2n_edge.data.dataset import load_data
    from n2n_edge.data.loading import Loading

    data = load_data(
        str(path),
        input_shape=(3, 8, 8),
        classes=random.choice((None, None, 3)),
        may_be_values=random.random() < 0.7,
        loading=Loading(workers=0, strict=random.random() < 0.3),
        object_classes=lambda: random.choice((None, None, 2)),
    )
    for split in (data.train, data.validation, data.test):
        images = np.asarray(split.images[np.arange(min(2, len(split)))])
        data.inputs(images)
        if split.annotations is not None and len(split):
            label = split.annotations[0]
            getattr(label, "read", lambda: None)()
    data.digest()
    assert data.counts


def read_npz(folder: Path, random: Random) -> None:
    _load_data(folder / "data.npz", random)


_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")


@cache
def _picture(form: str, mode: str, seed: int, orientation: int = 1) -> bytes:
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 255, (9, 10, 3)).astype(np.uint8)
    stream = io.BytesIO()
    image = Image.fromarray(pixels).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    extra = {"exif": exif} if form in ("JPEG", "PNG", "WEBP") else {}
    image.save(stream, form, **extra)
    return stream.getvalue()


def _mutated_picture(random: Random) -> tuple[str, bytes]:
    form = random.choice(_FORMATS)
    modes = {"JPEG": ("RGB", "L", "CMYK"), "PPM": ("RGB", "L"), "WEBP": ("RGB",), "GIF": ("P", "L")}
    mode = random.choice(modes.get(form, ("RGB", "L", "P", "1")))
    data = _picture(form, mode, random.randrange(3), 6)
    if form == "PNG" and random.random() < 0.6:
        return "png", mutated_png(data, random)
    return form.lower(), mutated_bytes(data, random, [_picture(other, "RGB", 0) for other in ("PNG", "JPEG", "TIFF")])


def make_images(random: Random) -> Files:
    ending, data = _mutated_picture(random)
    plain = {f"{kind}/{index}.png": _picture("PNG", "RGB", index) for kind in ("a", "b", "c") for index in range(2)}
    return {**plain, f"a/z.{ending}": data}


def read_images(folder: Path, random: Random) -> None:
    from n2n_edge.data.preprocessing import Preprocessing

    if random.random() < 0.5:
        _load_data(folder, random)
    else:
        Preprocessing((8, 8), channels=3).apply(next((folder / "a").glob("z.*")))


# --- labels -----------------------------------------------------------------------------------------------------------


def _pictures(*names: str) -> Files:
    return {name: _picture("PNG", "RGB", index % 3) for index, name in enumerate(names)}


_POINTS = "kpt_shape: [2, 3]\nflip_idx: [1, 0]\n"
_YAML = (
    "path: .\ntrain: images/train\nval: images/val\nkpt_shape: [2, 3]\nflip_idx: [1, 0]\nnames:\n  0: cat\n  1: dog\n"
)


def make_yolo(random: Random) -> Files:
    texts = {
        "labels/train/a.txt": "1 0.5 0.5 0.25 0.5\n0 0.25 0.5 0.5 1\n",
        "labels/train/b.txt": "0 0.1 0.1 0.9 0.1 0.5 0.9\n",
        "labels/val/c.txt": "0 0.5 0.5 0.5 0.5\n",
        "data.yaml": _YAML if random.random() < 0.3 else _YAML.replace(_POINTS, ""),
    }
    if "kpt_shape" in texts["data.yaml"]:
        for name in texts:
            if name.endswith(".txt"):
                texts[name] = "1 0.5 0.5 0.25 0.5 0.4 0.4 2 0.6 0.6 1\n"
    chosen = random.choice(list(texts))
    files = {name: text.encode() for name, text in texts.items()}
    if chosen == "data.yaml" and random.random() < 0.5:
        document: Any = {"path": ".", "train": "images/train", "val": "images/val", "nc": 2, "names": ["cat", "dog"]}
        document |= {"kpt_shape": [2, 3], "flip_idx": [1, 0]} if random.random() < 0.5 else {}
        changed = mutated_value(document, random)
        files[chosen] = as_json(changed).replace(b"Infinity", b".inf").replace(b"NaN", b".nan")  # YAML reads JSON
    else:
        files[chosen] = mutated_text(texts[chosen], random)
    return {
        **files,
        **_pictures(*(f"images/{name}.png" for name in ("train/a", "train/b", "train/e", "train/f", "val/c", "val/d"))),
    }


def _coco() -> Any:
    return {
        "images": [{"id": each, "file_name": f"{each}.png", "width": 10, "height": 9} for each in (1, 2, 3, 4)],
        "categories": [
            {"id": 1, "name": "person", "keypoints": ["l_eye", "r_eye"], "skeleton": [[1, 2]]},
            {"id": 90, "name": "bus"},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 90, "bbox": [1, 1, 3, 2], "iscrowd": 0, "area": 6},
            {"id": 2, "image_id": 2, "category_id": 1, "bbox": [0, 0, 2, 2], "segmentation": [[0, 0, 2, 0, 2, 2]]},
            {
                "id": 3, "image_id": 2, "category_id": 1, "bbox": [0, 0, 6, 4], "iscrowd": 1,
                "segmentation": {"size": [9, 10], "counts": [4, 4, 82]},
            },
            {
                "id": 4, "image_id": 3, "category_id": 1, "bbox": [0, 0, 6, 4], "keypoints": [1, 2, 2, 3, 4, 1],
                "segmentation": {"size": [9, 10], "counts": [4, 4, 82]},
            },
        ],
    }  # fmt: skip


def make_coco(random: Random) -> Files:
    document = _coco()
    data = as_json(mutated_value(document, random))
    if random.random() < 0.25:
        data = mutated_bytes(json.dumps(document).encode(), random)
    return {"annotations/instances_train.json": data, **_pictures(*(f"train/{each}.png" for each in (1, 2, 3, 4)))}


_VOC = (
    "<annotation><filename>a.png</filename><size><width>10</width><height>9</height><depth>3</depth></size>"
    "<object><name>dog</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>8</xmax><ymax>7</ymax>"
    "</bndbox></object><object><name>cat</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>4</xmax><ymax>5</ymax></bndbox>"
    "</object></annotation>"
)
_BOMB = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {after} "{f"&{before};" * 10}">' for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)


def make_voc(random: Random) -> Files:
    names = ("a", "b", "c", "d")
    files = {f"Annotations/{name}.xml": _VOC.encode() for name in names}
    files["ImageSets/Main/train.txt"] = b"a\nb\nc\n"
    files["ImageSets/Main/val.txt"] = b"d\n"
    chosen = random.choice(list(files))
    if chosen.endswith(".xml") and random.random() < 0.5:
        text = _VOC.replace("><", "> <")
        changed = mutated_text(text, random)
        files[chosen] = _BOMB.encode() + b"]>" + changed.replace(b"dog", b"&i;") if random.random() < 0.1 else changed
    else:
        files[chosen] = mutated_bytes(files[chosen], random)
    return {**files, **_pictures(*(f"JPEGImages/{name}.png" for name in names))}


def make_csv(random: Random) -> Files:
    rows: list[list[Any]] = [
        ["file", "x0", "y0", "v0", "split"] if random.random() < 0.5 else ["file", "age", "weight"]
    ]
    rows += [[f"{name}.png", *(random.randint(0, 9) for _ in rows[0][1:])] for name in ("a", "b", "c", "d")]
    if rows[0][-1] == "split":
        for row in rows[1:]:
            row[-2:] = [2, "train" if row[0] < "d" else "val"]
    if random.random() < 0.6:
        changed = mutated_value(rows, random)
        rows = (
            [row if isinstance(row, list) else [row] for row in changed] if isinstance(changed, list) else [[changed]]
        )
    stream = io.StringIO()
    csv.writer(stream, delimiter=random.choice(",;\t")).writerows(rows)
    data = stream.getvalue().encode("utf-8", "surrogatepass")
    if random.random() < 0.6:
        data = mutated_bytes(data, random)
    return {"labels.csv": data, **_pictures(*(f"images/{name}.png" for name in ("a", "b", "c", "d")))}


def make_masks(random: Random) -> Files:
    from PIL import Image

    def mask(values: np.ndarray) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(values).save(stream, "PNG")
        return stream.getvalue()

    names = ("a", "b", "c", "d")
    generator = np.random.default_rng(random.randrange(50))
    kinds = (np.uint8, np.uint8, np.uint16)
    files = {
        f"masks/{name}.png": mask(generator.integers(0, 3, (9, 10)).astype(random.choice(kinds))) for name in names
    }
    if random.random() < 0.3:
        files["class_dict.csv"] = mutated_text("name,r,g,b\nsky,0,0,0\nroad,1,1,1\nsea,2,2,2\n", random)
    else:
        chosen = random.choice(names)
        data = files[f"masks/{chosen}.png"]
        files[f"masks/{chosen}.png"] = (mutated_png if random.random() < 0.6 else mutated_bytes)(data, random)
    return {**files, **_pictures(*(f"images/{name}.png" for name in names))}


def make_classes(random: Random) -> Files:
    files = {f"{kind}/{index}.png": _picture("PNG", "RGB", index) for kind in ("a", "b", "c") for index in range(2)}
    return {"names.txt": mutated_text("a\nb\nc\n", random), **{f"data/{name}": data for name, data in files.items()}}


def read_classes(folder: Path, random: Random) -> None:
    from n2n_edge.data.class_names import read_class_names
    from n2n_edge.data.dataset import load_data

    names = read_class_names(folder / "names.txt")
    load_data(str(folder / "data"), input_shape=(3, 8, 8), classes=3, class_names=names)


# --- TOML -------------------------------------------------------------------------------------------------------------


def _mutated_toml(text: str, random: Random) -> bytes:
    if random.random() < 0.35:
        return mutated_bytes(text.encode(), random)
    return as_toml(changed) if isinstance(changed := mutated_value(tomllib.loads(text), random), dict) else b""


@cache
def _profile_texts() -> tuple[str, ...]:
    return tuple((ROOT / "profiles" / f"{name}.toml").read_text() for name in ("raspberry-pi-4", "jetson-orin-nano"))


def make_profile(random: Random) -> Files:
    text = random.choice(_profile_texts())
    name = tomllib.loads(text)["name"]
    return {"mine.toml": _mutated_toml(text.replace(f'"{name}"', '"mine"').replace("aliases", "# aliases"), random)}


def read_profile(folder: Path, random: Random) -> None:
    import n2n_edge

    which = random.randrange(4)
    if which == 0:
        command("profiles", "show", folder / "mine.toml")
    elif which == 1:
        command("profiles", "validate", folder / "mine.toml")
    elif which == 2:
        command("predict", EXAMPLE, "--device", folder / "mine.toml")
    else:
        profile = n2n_edge.load_profile(str(folder / "mine.toml"))
        n2n_edge.predict(EXAMPLE, profile)


EXAMPLE = ROOT / "n2n_edge" / "_example" / "digits_teacher.onnx"

_BUDGETS = """
[gate]
max-mb = 2.0
max-latency-ms = 5.0
device = "raspberry-pi-4"
allowed-ops = ["Conv", "Relu"]
max-regression = ["size_mb=5%"]
baseline = "models/a.onnx"
[gate.models."models/*.onnx"]
max-params = 1e6
max-macs = 2e8
input-shape = [3, 8, 8]
accept-expected = true
[gate.models."**/b.onnx"]
max-memory-mb = 3
"""


def make_budgets(random: Random) -> Files:
    return {"n2n-edge.toml": _mutated_toml(_BUDGETS, random), "models/a.onnx": _small_model(), "models/b.onnx": b"x"}


@cache
def _small_model() -> bytes:
    return bytes(_network(Random(3)).SerializeToString())


def read_budgets(folder: Path, random: Random) -> None:
    if random.random() < 0.5:
        command("gate", "--config", folder / "n2n-edge.toml", folder / "models" / "a.onnx", "--static")
    else:
        command("gate", "--config", folder / "n2n-edge.toml", "--static")


_RUN_TOML = """
teacher = "teacher.onnx"
data = "data.npz"
device = "raspberry-pi-4"
max_mb = 0.2
max_latency_ms = 5.0
policy = "random"
effort = "quick"
candidates = 3
epochs = 1
seed = 0
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
threads = 1
bind = ["scale=1.0"]
input_shape = [3, 8, 8]
accept_expected = false
precision = "fp32"
"""


@cache
def _journal() -> bytes:
    from n2n_edge.graph.architecture import Architecture, Vocabulary
    from n2n_edge.metrics.figures import Figure
    from n2n_edge.search.store import Journal
    from n2n_edge.search.trial import Trial, TrialCosts

    profile = tomllib.loads(_profile_texts()[0])
    with TemporaryDirectory() as name:
        path = Path(name) / "journal.sqlite"
        trial = Trial(
            Architecture(frozenset({"conv2"}), (("g1", 8),), Vocabulary((("conv2", ""),))),
            TrialCosts(0.1, 1234, 5678, 0.2, {"raspberry-pi-4": Figure(1.5, "ms", "calibrated", 1.0, 2.0)}),
            reward=0.3, feasible=True, score=0.9, actions=(1, 0, 1),
        )  # fmt: skip
        meta = {"objective": "params", "metric": "accuracy", "profiles": [profile], "search_seconds": 3.0}
        with Journal.create(path, meta) as journal:
            from dataclasses import replace

            for number in range(8):
                stage = "removal" if number < 4 else "shrinkage"
                journal.record_trial(replace(trial, stage=stage, number=number % 4, reward=0.1 * number))
            journal.store("accuracy", "a1", {"accuracy": 0.5, "loss": 1.0})
        return path.read_bytes()


def make_run(random: Random) -> Files:
    """A run's folder in which run.toml or the journal was changed."""
    files = {"run/run.toml": _RUN_TOML.encode(), "run/journal.sqlite": _journal()}
    if random.random() < 0.5:
        files["run/run.toml"] = _mutated_toml(_RUN_TOML, random)
    else:
        files["run/journal.sqlite"] = _mutated_journal(random)
    return files


def _mutated_journal(random: Random) -> bytes:
    import sqlite3

    data = _journal()
    if random.random() < 0.5:
        return mutated_bytes(data, random)
    with TemporaryDirectory() as name:
        path = Path(name) / "journal.sqlite"
        path.write_bytes(data)
        database = sqlite3.connect(path)
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        table = random.choice(tables)
        columns = [(row[1], row[2]) for row in database.execute(f"PRAGMA table_info({table})")]
        column, _ = random.choice(columns)
        rows = [each[0] for each in database.execute(f"SELECT {column} FROM {table}")]
        old = random.choice(rows) if rows else None
        new: Any = random.choice(ODD_NUMBERS)
        if isinstance(old, str) and old[:1] in ("{", "["):
            new = as_json(mutated_value(json.loads(old), random)).decode("utf-8", "replace")
        elif random.random() < 0.3:
            new = random.choice((None, b"\xff", "x", old))
        if isinstance(new, int) and abs(new) >= 2**63:
            new = float(min(new, 10**300))
        try:
            database.execute(f"UPDATE OR IGNORE {table} SET {column} = ? WHERE {column} IS ?", (new, old))
            database.commit()
        except (sqlite3.Error, OverflowError):
            database.rollback()
        database.close()
        return path.read_bytes()


def read_run(folder: Path, random: Random) -> None:
    import n2n_edge

    run = folder / "run"
    if random.random() < 0.5:
        command("pareto", run, *random.choice(([], ["--json"], ["--all"])))
    else:
        found = n2n_edge.Run.open(run)
        _ = found.finished, found.trials, found.resume_command


# --- JSON documents ---------------------------------------------------------------------------------------------------


@cache
def _report() -> Mapping[str, Any]:
    from tests.report.sample import detector, sample_document

    return {"plain": sample_document(30), "detector": detector(sample_document(30))}


def make_report(random: Random) -> Files:
    document = _report()[random.choice(("plain", "detector"))]
    data = as_json(mutated_value(document, random))
    if random.random() < 0.25:
        data = mutated_bytes(json.dumps(document).encode(), random)
    return {
        "run/report.json": data, "run/run.toml": _RUN_TOML.encode(), "run/journal.sqlite": _journal(),
        "run/student.onnx": _small_model(),
    }  # fmt: skip


def read_report(folder: Path, random: Random) -> None:
    import n2n_edge

    run = folder / "run"
    which = random.randrange(3)
    if which == 0:
        command("report", run)
    elif which == 1:
        command("pareto", run, "--json")
    else:
        found = n2n_edge.Run.open(run)
        _ = found.finished, found.verdicts, found.met, found.trials


@cache
def _bench() -> Any:
    return json.loads(Path(__file__).with_name("bench.json").read_text())


def make_bench(random: Random) -> Files:
    data = as_json(mutated_value(_bench(), random))
    if random.random() < 0.2:
        data = mutated_bytes(json.dumps(_bench()).encode(), random)
    return {"bench.json": data}


def read_bench(folder: Path, random: Random) -> None:
    from n2n_edge.report.bench_history import changes_since
    from n2n_edge.report.bench_history import read_bench as read

    if random.random() < 0.5:
        command("report", folder / "bench.json")
    else:
        earlier, now = read(folder / "bench.json"), _bench()
        for change in (*changes_since(earlier, now), *changes_since(now, earlier)):
            assert change.words


def make_metadata(random: Random) -> Files:
    """A model whose metadata, which n2n-edge itself writes and reads, were changed."""
    from n2n_edge.data.preprocessing import Preprocessing
    from n2n_edge.graph.input_shape import PREPROCESSING_KEY
    from n2n_edge.tasks.choice import TASK_KEY

    model = _network(random)
    documents = {
        PREPROCESSING_KEY: Preprocessing((8, 8), channels=3).to_json(),
        TASK_KEY: {"name": "classification", "metric": "accuracy", "classes": ["a", "b", "c"]},
        "n2n_edge.bound": ["scale"],
        "n2n_edge.mean": [0.5, 0.5, 0.5],
        "n2n_edge.std": [0.5, 0.5, 0.5],
    }
    chosen = random.choice(list(documents))
    for key, document in documents.items():
        text = as_json(mutated_value(document, random) if key == chosen else document).decode("utf-8", "replace")
        if key == chosen and random.random() < 0.2:
            text = mutated_text(text, random).decode("utf-8", "replace")
        model.metadata_props.add(key=key, value=text.replace("\ud800", "?"))
    return {"model.onnx": model.SerializeToString()}


def read_metadata(folder: Path, random: Random) -> None:
    import n2n_edge

    path = folder / "model.onnx"
    if random.random() < 0.5:
        n2n_edge.Preprocessing.of(path)
    else:
        command("inspect", path)


# --- weights of torch -------------------------------------------------------------------------------------------------


@cache
def _weights() -> Mapping[str, bytes]:
    import torch
    from safetensors.torch import save

    state = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    stream = io.BytesIO()
    torch.save({"state_dict": state}, stream)
    return {"weights.safetensors": save(state), "weights.pt": stream.getvalue()}


def make_weights(random: Random) -> Files:
    name = random.choice(list(_weights()))
    return {name: mutated_bytes(_weights()[name], random)}


def read_weights(folder: Path, random: Random) -> None:
    import torch

    from n2n_edge.training.torch_teachers import _load_weights

    (path,) = folder.iterdir()
    _load_weights(torch.nn.Linear(3, 2), path)


def read_labels(folder: Path, random: Random) -> None:
    _load_data(folder, random)


def read_code(folder: Path, random: Random) -> None:
    """Run a program: what a fault looks like."""
    exec((folder / "code.py").read_text(), {"folder": folder, "os": __import__("os")})


SUBJECTS: dict[str, Subject] = {
    "onnx": Subject(make_onnx, read_onnx, weight=3),
    "npz": Subject(make_npz, read_npz),
    "images": Subject(make_images, read_images),
    "yolo": Subject(make_yolo, read_labels),
    "coco": Subject(make_coco, read_labels),
    "voc": Subject(make_voc, read_labels),
    "csv": Subject(make_csv, read_labels),
    "masks": Subject(make_masks, read_labels),
    "class names": Subject(make_classes, read_classes),
    "profile": Subject(make_profile, read_profile),
    "budget file": Subject(make_budgets, read_budgets),
    "run folder": Subject(make_run, read_run, (".lock", "-wal", "-shm")),
    "report": Subject(make_report, read_report, (".html", ".lock", "-wal", "-shm")),
    "bench": Subject(make_bench, read_bench, (".html",)),
    "metadata": Subject(make_metadata, read_metadata),
    "weights": Subject(make_weights, read_weights),
}
"""By name."""

CONTROL = Subject(lambda random: {}, read_code)
"""What shows that a hunt sees faults; its name is "code"."""
