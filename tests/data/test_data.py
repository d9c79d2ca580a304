"""Data from every source, and one clear line for each way it can be wrong."""

import builtins
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from n2n_edge.data import samples
from n2n_edge.data.dataset import Data, load_data
from n2n_edge.errors import InputError

RGB = (3, 8, 8)
GREY = (1, 8, 8)


def pixels(seed: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)


def make_folder(root: Path, classes: dict[str, int], *, suffix: str = ".png", size: tuple[int, int] = (8, 8)) -> Path:
    for kind, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(pixels(100 * kind + index, *size)).save(root / name / f"{index:03}{suffix}")
    return root


def split_names(data: Data) -> list[list[bytes]]:
    return [[image.tobytes() for image in part.images] for part in (data.train, data.validation, data.test)]


def test_folder_with_train_and_test(tmp_path: Path) -> None:
    make_folder(tmp_path / "train", {"dog": 20, "cat": 30})
    make_folder(tmp_path / "test", {"cat": 3, "dog": 4})
    data = load_data(str(tmp_path), input_shape=RGB, classes=2, mean=(0.5,), validation_fraction=0.2)
    assert data.class_names == ("cat", "dog")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [40, 10, 7]
    assert data.test.labels is not None
    assert data.test.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    np.testing.assert_array_equal(data.test.images[0], pixels(0))
    assert data.validation.labels is not None
    assert np.bincount(data.validation.labels).tolist() == [6, 4]  # of each class alike
    assert (data.mean, data.std) == ((0.5, 0.5, 0.5), (1.0, 1.0, 1.0))


def test_folder_without_splits_is_cut_by_seed(tmp_path: Path) -> None:
    make_folder(tmp_path, {"a": 30, "b": 30})
    one, again, other = (load_data(str(tmp_path), input_shape=RGB, classes=2, seed=seed) for seed in (0, 0, 1))
    assert split_names(one) == split_names(again)
    assert split_names(one) != split_names(other)
    train, validation, test = (set(part) for part in split_names(one))
    assert len(train | validation | test) == 60
    assert [len(test), len(validation)] == [6, 6]


def test_val_is_the_test_split_unless_there_is_a_test_split(tmp_path: Path) -> None:
    make_folder(tmp_path / "train", {"a": 10, "b": 10})
    make_folder(tmp_path / "val", {"a": 2, "b": 2})
    data = load_data(str(tmp_path), input_shape=RGB, classes=2)
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 2, 4)
    make_folder(tmp_path / "test", {"a": 3, "b": 3})
    data = load_data(str(tmp_path), input_shape=RGB, classes=2)
    assert (len(data.train), len(data.validation), len(data.test)) == (20, 4, 6)


def test_images_without_class_folders_have_no_labels(tmp_path: Path) -> None:
    make_folder(tmp_path, {"all": 20}, suffix=".jpg")
    (tmp_path / "all" / "notes.txt").write_text("not an image")
    data = load_data(str(tmp_path / "all"), input_shape=RGB, classes=10)
    assert not data.labelled
    assert data.class_names == ()
    assert len(data.train) + len(data.validation) + len(data.test) == 20


def test_single_images_take_the_teachers_channels_and_all_its_size(tmp_path: Path) -> None:
    make_folder(tmp_path, {"a": 5, "b": 5}, size=(40, 24))
    first = tmp_path / "a" / "000.png"
    Image.open(first).convert("L").save(first)  # a grey photograph among coloured ones
    data = load_data(str(tmp_path), input_shape=RGB, classes=2)
    assert data.train.images.shape[1:] == (8, 8, 3)
    assert data.input_shape == RGB


def test_images_that_all_have_other_channels_are_refused(tmp_path: Path) -> None:
    make_folder(tmp_path, {"a": 5, "b": 5})
    with pytest.raises(InputError, match=r"have 3 channel\(s\), but the teacher takes 1"):
        load_data(str(tmp_path), input_shape=GREY, classes=2)


def test_scaling_keeps_the_centre_of_a_larger_image(tmp_path: Path) -> None:
    wide = np.zeros((16, 64, 3), np.uint8)
    wide[:, 24:40] = 200  # the middle square
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(3):
            Image.fromarray(wide).save(tmp_path / name / f"{index}.png")
    data = load_data(str(tmp_path), input_shape=RGB, classes=2)
    assert (data.train.images == 200).all()


@pytest.mark.parametrize(
    ("images", "shape"),
    [
        (np.random.RandomState(0).randint(0, 256, (40, 8, 8)).astype(np.uint8), GREY),
        (np.random.RandomState(0).randint(0, 256, (40, 8, 8, 1)), GREY),
        (np.random.RandomState(0).randint(0, 256, (40, 8, 8, 3)).astype(np.uint8), RGB),
        (np.random.RandomState(0).randint(0, 256, (40, 3, 8, 8)).astype(np.uint8), RGB),
        (np.random.RandomState(0).rand(40, 8, 8, 3).astype(np.float32), RGB),
        (np.random.RandomState(0).randint(0, 256, (40, 9, 12, 3)).astype(np.uint8), RGB),
    ],
    ids=["hw", "integers", "hwc", "chw", "floats", "other size"],
)
def test_npz_layouts(tmp_path: Path, images: np.ndarray, shape: tuple[int, int, int]) -> None:
    labels = np.arange(40) % 4
    np.savez(tmp_path / "data.npz", x_train=images, y_train=labels, x_test=images[:5], y_test=labels[:5, None])
    data = load_data(str(tmp_path / "data.npz"), input_shape=shape, classes=4)
    assert data.test.images.shape == (5, 8, 8, shape[0])
    assert data.test.images.dtype == np.uint8
    assert data.test.labels is not None
    assert data.test.labels.tolist() == [0, 1, 2, 3, 0]
    assert data.class_names == ("0", "1", "2", "3")
    if images.shape[1:] == (3, 8, 8):
        np.testing.assert_array_equal(data.test.images[1], images[1].transpose(1, 2, 0))
    if images.dtype == np.float32:
        np.testing.assert_array_equal(data.test.images, np.rint(images[:5] * 255))


@pytest.mark.parametrize("names", [("x", "y"), ("images", "labels"), ("X", "y")])
def test_npz_of_one_pair(tmp_path: Path, names: tuple[str, str]) -> None:
    arrays = {names[0]: np.zeros((50, 8, 8), np.uint8), names[1]: np.arange(50) % 5}
    np.savez(tmp_path / "data.npz", **arrays)
    data = load_data(str(tmp_path / "data.npz"), input_shape=GREY, classes=5)
    assert (len(data.train), len(data.validation), len(data.test)) == (40, 5, 5)


class Coins(torch.utils.data.Dataset[tuple[object, int]]):
    def __init__(self, count: int, *, as_tensor: bool = False, labelled: bool = True) -> None:
        self.count, self.as_tensor, self.labelled = count, as_tensor, labelled

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> object:
        image: object = Image.fromarray(pixels(index))
        if self.as_tensor:
            image = torch.from_numpy(pixels(index)).permute(2, 0, 1) / 255
        return (image, index % 2) if self.labelled else image


def test_a_function_that_gives_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("coins")
    module.__dict__.update(
        one=lambda: Coins(30),
        both=lambda: (Coins(30, as_tensor=True), Coins(6, as_tensor=True)),
        unlabelled=lambda: Coins(30, labelled=False),
        broken=lambda: 1 / 0,
        number=lambda: 3,
    )
    monkeypatch.setitem(sys.modules, "coins", module)
    assert len(load_data("coins:one", input_shape=RGB, classes=2).train) == 23
    both = load_data("coins:both", input_shape=RGB, classes=2)
    np.testing.assert_array_equal(both.test.images[3], pixels(3))
    assert not load_data("coins:unlabelled", input_shape=RGB, classes=2).labelled
    for spec, words in (
        ("coins:broken", "ZeroDivisionError"),
        ("coins:number", "gives a int"),
        ("coins:missing", "no function 'missing'"),
        ("no_such_module_here:f", "can't be imported"),
    ):
        with pytest.raises(InputError, match=words):
            load_data(spec, input_shape=RGB, classes=2)


def test_digits_are_split_once_and_for_all() -> None:
    one, other = (load_data("builtin:digits", input_shape=(1, 16, 16), classes=10, seed=seed) for seed in (0, 7))
    assert split_names(one) == split_names(other)
    sizes = [len(part) for part in (one.train, one.validation, one.test)]
    assert sum(sizes) == 1797
    assert sizes == pytest.approx([0.7 * 1797, 0.1 * 1797, 0.2 * 1797], abs=10)
    train, validation, test = (set(part) for part in split_names(one))
    assert not train & validation
    assert not train & test
    assert not validation & test
    assert one.test.labels is not None
    assert np.bincount(one.test.labels).min() >= 34
    assert one.train.images.shape[1:] == (16, 16, 1)


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def refuse(name: str, *arguments: object, **options: object) -> ModuleType:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real_import(name, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(InputError, match=r'pip install "n2n-edge\[example\]"'):
        load_data("builtin:digits", input_shape=(1, 16, 16), classes=10)


def test_large_data_is_kept_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path, {"a": 10, "b": 10})
    small = load_data(str(tmp_path), input_shape=RGB, classes=2)
    monkeypatch.setattr(samples, "IN_MEMORY_BYTES", 1000)
    large = load_data(str(tmp_path), input_shape=RGB, classes=2)
    assert isinstance(large.train.images, np.memmap)
    assert split_names(small) == split_names(large)


def folder_problem(tmp_path: Path, name: str) -> tuple[str, tuple[int, int, int], int | None]:
    """Make the bad data of this name and give how to load it."""
    root = tmp_path / "data"
    root.mkdir()
    if name == "one class":
        make_folder(root, {"only": 5})
    elif name == "empty class":
        make_folder(root, {"a": 5, "b": 0})
    elif name == "empty classes":
        make_folder(root, {"a": 0, "b": 0})
    elif name == "unknown test class":
        make_folder(root / "train", {"a": 5, "b": 5})
        make_folder(root / "test", {"a": 1, "zebra": 1})
    elif name == "unreadable":
        make_folder(root, {"a": 5, "b": 5})
        (root / "b" / "003.png").write_bytes((root / "b" / "003.png").read_bytes()[:60])
    elif name == "no image":
        make_folder(root, {"a": 5, "b": 5})
        (root / "a" / "zzz.jpg").write_text("no image")
    elif name in ("class count", "five channels"):
        make_folder(root, {"a": 5, "b": 5, "c": 5})
    return str(root), (5, 8, 8) if name == "five channels" else RGB, 10


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty", "holds no images"),
        ("empty classes", "holds no images"),
        ("one class", "one class only.*only"),
        ("empty class", "b' holds no images"),
        ("unknown test class", "zebra"),
        ("unreadable", r"003\.png' can't be read"),
        ("no image", r"zzz\.jpg' can't be read"),
        ("class count", "3 classes.*10 outputs"),
        ("five channels", "5 channels"),
    ],
)
def test_a_bad_folder_gets_one_line(tmp_path: Path, name: str, words: str) -> None:
    spec, shape, classes = folder_problem(tmp_path, name)
    with pytest.raises(InputError, match=words) as caught:
        load_data(spec, input_shape=shape, classes=classes)
    assert "\n" not in str(caught.value)


X = np.zeros((20, 8, 8, 3), np.uint8)
Y = np.arange(20) % 4


@pytest.mark.parametrize(
    ("arrays", "shape", "words"),
    [
        ({"x": X, "y": Y}, GREY, "3 channels.*takes 1"),
        ({"x": X[..., 0], "y": Y}, RGB, "1 channels.*takes 3"),
        ({"x": X.transpose(0, 3, 1, 2), "y": Y}, GREY, "3 channels.*takes 1"),
        ({"x": X, "y": Y + 2}, RGB, "up to 5.*4 outputs"),
        ({"x": X, "y": Y - 1}, RGB, "label -1"),
        ({"x": X, "y": Y % 3}, RGB, "3 classes.*4 outputs"),
        ({"x": X, "y": Y * 0}, RGB, "one class only"),
        ({"x": X, "y": Y[:5]}, RGB, "one label per image"),
        ({"x": X, "y": Y + 0.5}, RGB, "whole numbers"),
        ({"x": X, "y": np.array(["a"] * 20)}, RGB, "class numbers"),
        ({"x": X - 0.5, "y": Y}, RGB, "floats from 0 to 1"),
        ({"x": np.full(X.shape, np.nan), "y": Y}, RGB, "floats from 0 to 1"),
        ({"x": X[0, 0], "y": Y}, RGB, "must be"),
        ({"x": X[:0], "y": Y[:0]}, RGB, "no images"),
        ({"pictures": X}, RGB, "holds the arrays pictures"),
        ({"x_train": X, "y_train": Y, "x_test": X}, RGB, "for some of"),
        ({"x": X[:2], "y": np.array([0, 3])}, RGB, "too few"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_arrays_get_one_line(
    tmp_path: Path, arrays: dict[str, np.ndarray], shape: tuple[int, int, int], words: str
) -> None:
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(InputError, match=words) as caught:
        load_data(str(tmp_path / "data.npz"), input_shape=shape, classes=4)
    assert "\n" not in str(caught.value)


def test_a_broken_or_missing_file_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 not a zip")
    np.savez(tmp_path / "objects.npz", x=np.array([{}, []], dtype=object))
    for spec, words in (
        (tmp_path / "broken.npz", "can't be read"),
        (tmp_path / "objects.npz", "can't be read"),
        (tmp_path / "missing.npz", "no such file"),
        (tmp_path / "missing", "no data"),
        ("builtin:letters", "builtin:digits"),
    ):
        with pytest.raises(InputError, match=words):
            load_data(str(spec), input_shape=RGB, classes=4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mean": (0.1, 0.2)}, "mean has 2 values"),
        ({"std": (0.1, 0.0, 0.2)}, "std has the value 0"),
        ({"validation_fraction": 1.0}, "between 0 and 1"),
    ],
)
def test_bad_options_get_one_line(tmp_path: Path, options: dict[str, object], words: str) -> None:
    make_folder(tmp_path, {"a": 5, "b": 5})
    with pytest.raises(InputError, match=words):
        load_data(str(tmp_path), input_shape=RGB, classes=2, **options)  # type: ignore[arg-type]


def test_labels_to_judge_with_alone_go_with_unlabelled_images_to_learn_from(tmp_path: Path) -> None:
    for index in range(6):
        for kind, picture in (("images", pixels(index)), ("masks", np.full((8, 8), index % 2, np.uint8))):
            (tmp_path / "own" / "val" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(tmp_path / "own" / "val" / kind / f"{index}.png")
    make_folder(tmp_path, {"others": 9})
    with pytest.raises(InputError, match="no images to train with"):
        load_data(str(tmp_path / "own"), input_shape=RGB, classes=None)
    data = load_data(str(tmp_path / "own"), input_shape=RGB, classes=None, unlabelled=[str(tmp_path / "others")])
    assert [len(part) for part in (data.train, data.validation, data.test)] == [9, 3, 3]
    for part, labelled in ((data.train, False), (data.validation, True), (data.test, True)):
        assert part.annotations is not None
        assert all((label is not None) == labelled for label in part.annotations)
