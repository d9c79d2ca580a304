"""The data of a run: three splits of images held as bytes, and how they are normalised."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from n2n_edge.data import source_digits, source_folder, source_function, source_labelled, source_npz
from n2n_edge.data.annotations import Annotations, kinds_in
from n2n_edge.data.loading import Loading
from n2n_edge.data.pixels import Conversions
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.data.samples import Samples, Source
from n2n_edge.data.splits import choose_members, split_warnings
from n2n_edge.data.streaming import Images, Pictures, join_pictures
from n2n_edge.errors import InputError
from n2n_edge.foreign import printable
from n2n_edge.importing import is_function_name
from n2n_edge.metrics.notices import Notice
from n2n_edge.reading import exists, expanded, is_file

if TYPE_CHECKING:
    from n2n_edge.data.labels.values import Label
    from n2n_edge.tasks.task import Task

__all__ = ["NOT_LABELLED_CLASS", "Data", "Split", "load_data"]

TEST_FRACTION = 0.1
"""Share of the images that becomes the test split when the data has none."""

_LEAST_VALIDATION, _MOST_HELD_OUT = 32, 0.25
"""Images to validate on at least, up to that share of them, where there are others to learn from: fewer choose between
candidates by chance."""

NOT_LABELLED_CLASS = -1
"""The class number of a training image without a label, where others have one."""

_HASHED_AT_ONCE = 1024


@dataclass(frozen=True)
class Split:
    """Images `(N, H, W, C)` as uint8 and labels `(N,)` as int64, or None where there are none.

    `targets` `(N, K)` are labels that are values, such as coordinates, `annotations` boxes, points and masks, by image
    and in pixels of the network's input. Of training images some may not be labelled: their label is -1, their targets
    are NaN, their annotation is None. Images of many files are `Pictures`, decoded where they are indexed.
    """

    images: Images
    labels: NDArray[np.int64] | None
    targets: NDArray[np.float32] | None = None
    annotations: "Sequence[Label | None] | None" = None

    def __len__(self) -> int:
        return len(self.images)

    def take(self, chosen: NDArray[np.int64]) -> "Split":
        """Give the chosen images with their labels."""
        return Split(
            self.images.at(chosen) if isinstance(self.images, Pictures) else self.images[chosen],
            None if self.labels is None else self.labels[chosen],
            None if self.targets is None else self.targets[chosen],
            _chosen(self.annotations, chosen),
        )

    def even_rows(self, most: int) -> NDArray[np.int64]:
        """Return the rows of at most `most` images, evenly chosen."""
        return np.unique(np.linspace(0, len(self) - 1, min(most, len(self))).round().astype(np.int64))

    def held(self, chosen: NDArray[np.int64] | None = None) -> "Split":
        """Return the same, of images in files the chosen ones (None: all) decoded and the others gone."""
        if not isinstance(self.images, Pictures):
            return self
        return replace(self, images=self.images.held(np.arange(len(self)) if chosen is None else chosen))

    def annotated(self, kind: type) -> "Sequence[Label | None] | None":
        """Return the annotations where some are of this kind of label, else None."""
        return self.annotations if kind in kinds_in(self.annotations or ()) else None


def _chosen(annotations: "Sequence[Label | None] | None", chosen: NDArray[np.int64]) -> "Sequence[Label | None] | None":
    if annotations is None or isinstance(annotations, Annotations):
        return None if annotations is None else annotations[chosen]
    return [annotations[row] for row in np.arange(len(annotations))[chosen]]


@dataclass(frozen=True)
class Data:
    """Training, validation and test images in RGB at the network's size, and how they become its input.

    `task` is what a model does on them; None goes by the model's graph.
    """

    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    task: "Task | None" = None
    conversions: str = ""
    """What was converted and passed over while the images were read, in words."""
    warnings: tuple[Notice, ...] = ()
    summary: str = ""
    """What was read of labels that are more than a class, in words."""

    @property
    def labelled(self) -> bool:
        """Whether the training and validation images carry labels."""
        return self.train.labels is not None

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape `(C, H, W)` of one image as the model takes it."""
        height, width, channels = self.train.images.shape[1:]
        return channels, height, width

    @property
    def streams(self) -> bool:
        """Whether images are decoded when they are needed."""
        return isinstance(self.train.images, Pictures)

    def unreadable(self) -> tuple[Notice, ...]:
        """Say which files couldn't be read since the run began, and were replaced by others of their class."""
        if not isinstance(self.train.images, Pictures):
            return ()
        names = [printable(name) for name in self.train.images.store.unreadable]
        if not names:
            return ()
        text = f"{len(names):,} images couldn't be read, others of their class stood for them: {', '.join(names[:3])}"
        return (Notice("unreadable-images", text + (", ..." if len(names) > 3 else ""), "repair or remove them"),)

    @property
    def counts(self) -> str:
        """What was read, converted and passed over, on one line."""
        labels, values = "without labels", self.validation.targets
        if self.labelled or values is not None:
            labels = f"{len(self.class_names)} classes" if values is None else f"{values.shape[1]:,} numbers each"
        text = (
            f"{len(self.train):,} training, {len(self.validation):,} validation, {len(self.test):,} test images, "
            f"{self.summary or labels}"
        )
        return f"{text}; {self.conversions}" if self.conversions else text

    def inputs(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn images `(N, H, W, C)` into a model's input `(N, C, H, W)` as floats, whatever its layout and type."""
        return self.preprocessing.batch(images).astype(np.float32, copy=False)

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean per channel, in the network's order, on pixels in 0..1."""
        return self.preprocessing.unit_mean_and_std[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation per channel, likewise."""
        return self.preprocessing.unit_mean_and_std[1]

    def normalised(self, mean: tuple[float, ...], std: tuple[float, ...]) -> "Data":
        """Return the same images with another mean and std, on pixels in 0..1."""
        return replace(self, preprocessing=self.preprocessing.normalised("0..1", mean, std))

    def digest(self) -> str:
        """Return a hash of all images and labels as they are split; equal data give the same, wherever they lie.

        Of images that stream it takes the files' fingerprints instead of pixels (see `scan`).
        """
        found = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            found.update(repr((split.images.shape, split.labels is None, split.targets is None)).encode())
            hashed = split.images.fingerprints if isinstance(split.images, Pictures) else split.images
            for start in range(0, len(split), _HASHED_AT_ONCE):
                found.update(np.ascontiguousarray(hashed[start : start + _HASHED_AT_ONCE]).data)
            for labels in (split.labels, split.targets):
                if labels is not None:
                    found.update(np.ascontiguousarray(labels).data)
            if isinstance(split.annotations, Annotations):
                for part in split.annotations.parts():
                    found.update(part)
        return found.hexdigest()


def _check_labels(spec: str, source: Source, classes: int | None, *, may_be_values: bool) -> None:
    """Refuse labels that are no classes of the teacher, and data of a single class."""
    labels = source.train.labels
    if classes is None:
        return
    if source.train.targets is not None and not may_be_values:
        raise InputError(
            f"data '{spec}' has labels that are no whole numbers and not one-hot: give class numbers from 0"
        )
    if labels is None:
        return
    parts = [part.labels for part in (source.train, source.validation, source.test) if part and part.labels is not None]
    low, high = min(int(part.min()) for part in parts), max(int(part.max()) for part in parts)
    if low < 0:
        raise InputError(f"data '{spec}' has the label {low}: labels must be numbered from 0")
    found = len(source.class_names) or high + 1
    if len(np.unique(labels)) < 2:
        raise InputError(f"data '{spec}' holds one class only: give images of at least two classes")
    if high >= classes:
        raise InputError(
            f"data '{spec}' has labels up to {high}, but the teacher has {classes} outputs: labels must be below that; "
            "outputs that aren't scores of classes need ‹task› regression"
        )
    if found != classes:
        raise InputError(
            f"data '{spec}' has {found} classes, but the teacher has {classes} outputs: give the data it was trained "
            "on; outputs that aren't scores of classes need ‹task› regression"
        )


def _read(
    spec: str,
    preprocessing: Preprocessing,
    class_names: Sequence[str] | None,
    object_classes: Callable[[], int | None],
    loading: Loading,
    more: int,
) -> Source:
    if spec.startswith("builtin:"):
        return source_digits.read(spec, preprocessing.input_shape)
    path = expanded(spec)
    try:
        if exists(path) and source_labelled.holds_labels(path):
            count = None if source_labelled.holds_masks(path) else object_classes()  # masks are of no objects
            return source_labelled.read(path, preprocessing, class_names or count, loading, more)
        if exists(path) and path.is_dir():
            return source_folder.read(path, preprocessing, class_names, loading, more)
        if is_file(path) or path.suffix == ".npz":
            return source_npz.read(path, preprocessing, lambda: class_names or object_classes())
    except OSError as error:
        raise InputError(f"data '{printable(spec)}' can't be read ({error.strerror}): give what can be") from error
    if is_function_name(spec):
        return source_function.read(spec, preprocessing, lambda: class_names or object_classes())
    raise InputError(
        f"no data '{spec}': give a folder of images, a data.yaml or other labels, an .npz file, or "
        "package.module:function"
    )


def _split(source: Source, validation_fraction: float, seed: int, more: int) -> tuple[Split, Split, Split]:
    """Return training, validation and test images; what the source doesn't split is split by the seed.

    `more` images will join the first.
    """
    train, left = source.train, np.arange(len(source.train.images))
    parts = [source.validation, source.test]
    for index, usual, own_seed in ((1, TEST_FRACTION, seed + 1), (0, validation_fraction, seed)):
        if parts[index] is None:
            ready = left[np.isin(left, train.labelled)]  # figures come from labelled images, where some are
            least = 0.0 if index or not more else min(_MOST_HELD_OUT, _LEAST_VALIDATION / max(1, len(ready)))
            fraction = max(usual, least)
            labels = None if train.labels is None else train.labels[ready]
            chosen = ready[choose_members(labels, len(ready), fraction, own_seed)]
            parts[index] = train.take(chosen)
            left = left[~np.isin(left, chosen)]
    if len(left) < len(train.images):
        train = train.take(left)
    validation, test = cast("list[Samples]", parts)
    return tuple(Split(part.images, part.labels, part.targets, part.annotations) for part in (train, validation, test))  # type: ignore[return-value]


def _folder_of_unlabelled(spec: str) -> Path:
    path = expanded(spec)
    if not (exists(path) and path.is_dir()):
        raise InputError(f"‹unlabelled› {printable(spec)}: no such folder; give one of images")
    return path


def _joined(
    train: Split,
    folders: Sequence[Sequence[str]],
    preprocessing: Preprocessing,
    loading: Loading,
    conversions: Conversions,
) -> Split:
    """Return the training images with those of folders, which have no labels, behind them."""
    own = train.images
    reader = source_folder.FileReader(preprocessing, loading, conversions)
    more = [source_folder.unlabelled(paths, reader, streams=isinstance(own, Pictures)) for paths in folders]
    count = sum(map(len, more))
    images: Images = join_pictures([own, *more]) if isinstance(own, Pictures) else np.concatenate([own, *more])
    labels = None if train.labels is None else np.concatenate([train.labels, np.full(count, NOT_LABELLED_CLASS)])
    annotations, targets = train.annotations, train.targets
    if targets is not None:
        targets = np.concatenate([targets, np.full((count, targets.shape[1]), np.nan, np.float32)])
    if isinstance(annotations, Annotations):
        annotations = annotations.extended(count)
    return Split(images, labels, targets, annotations)


def _order_warnings(names: tuple[str, ...]) -> tuple[Notice, ...]:
    """Say how classes are numbered where people would count otherwise than names are sorted."""
    natural = sorted(names, key=lambda name: [(part.isdecimal(), int(part) if part.isdecimal() else 0, part)
                                              for part in re.split(r"(\d+)", name)])  # fmt: skip
    if list(names) == natural or list(names) != sorted(names):
        return ()
    first = next(index for index, (one, other) in enumerate(zip(names, natural, strict=True)) if one != other)
    shown = ", ".join(printable(name) for name in names[: first + 2])
    text = f"classes are numbered as their folders' names are sorted: {shown}, ... (as torchvision's ImageFolder does)"
    return (Notice("class-order", text, "where the teacher counts otherwise, give --classes FILE"),)


def load_data(
    spec: str,
    *,
    input_shape: tuple[int, int, int] | None = None,
    preprocessing: Preprocessing | None = None,
    classes: int | None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    validation_fraction: float = 0.1,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
    may_be_values: bool = False,
    loading: Loading | None = None,
    object_classes: Callable[[], int | None] = lambda: None,
    unlabelled: Sequence[str] = (),
) -> Data:
    """Load images for a teacher that tells `classes` apart (None: no classifier), brought to its size.

    It takes them as `preprocessing` says; or `input_shape` `(C, H, W)`, and the centre part that fits, with pixels in
    0..1, of which `mean` is taken off and the rest divided by `std`, both per channel; None leaves these as they are.

    `spec` is a folder (of images per class, or of images; with or without ``train/`` and ``test/``), an ``.npz`` file,
    ``package.module:function`` that gives a torch Dataset (or a training and a test one), or ``builtin:digits``. A
    Dataset and an ``.npz`` may give boxes, masks or points, too (see `Targets` and `packed`). What
    has no validation or test split gets one, cut by `seed`, of each class alike; the digits are always split the same.
    It may also be labels that are more than a class (see `read_annotations`): a data.yaml, a JSON or CSV file, or a
    folder that holds such; `object_classes` tells how many classes the teacher has then. Where only some images are
    labelled the others are for training, and so are those of the folders `unlabelled`; with these, up to a quarter of
    the images validate where a tenth is less than 32.
    `class_names` are the classes in the order of the teacher's outputs; by default a folder's are sorted by name.
    Labels of values are taken where there are no `classes`, or with `may_be_values`. `loading` says how the files of a
    folder are read; those of more than 256 MB when decoded are read when they are needed. Raises InputError.
    """
    if not 0 < validation_fraction < 1:
        raise InputError(f"validation fraction {validation_fraction}: must lie between 0 and 1")
    if preprocessing is None:
        if input_shape is None:
            raise InputError(f"data '{spec}': of which size? give input_shape, or preprocessing")
        preprocessing = Preprocessing(input_shape[1:], channels=input_shape[0])
        preprocessing = preprocessing.normalised("0..1", mean or preprocessing.mean, std or preprocessing.std)
    if class_names is not None and classes is not None and len(class_names) != classes:
        raise InputError(
            f"‹classes› names {len(class_names)} classes, but the teacher has {classes} outputs: name each"
        )
    loading = loading or Loading()
    folders = [source_folder.pictures_of(_folder_of_unlabelled(each)) for each in unlabelled]
    more = sum(map(len, folders))
    source = _read(spec, preprocessing, class_names, object_classes, loading, more)
    if class_names is not None:
        source = replace(source, class_names=tuple(class_names))
    _check_labels(spec, source, classes, may_be_values=may_be_values)
    if len(source.train.images) + more < 3:
        raise InputError(
            f"data '{spec}' holds {len(source.train.images) + more} images: too few to train, validate and test with"
        )
    train, validation, test = _split(source, validation_fraction, seed, more)
    if folders:
        train = _joined(train, folders, preprocessing, loading, source.conversions)
    names = source.class_names
    if not names and train.labels is not None:
        names = tuple(str(kind) for kind in range(classes or int(train.labels.max()) + 1))
    held_out = {"validation": (len(validation), validation.labels), "test": (len(test), test.labels)}
    return Data(
        train=train,
        validation=validation,
        test=test,
        class_names=names,
        preprocessing=preprocessing,
        conversions=source.conversions.words(),
        summary=source.summary,
        warnings=(*source.notices, *_order_warnings(source.class_names), *split_warnings(held_out, len(names))),
    )
