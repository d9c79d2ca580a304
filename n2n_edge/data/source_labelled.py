"""Images with labels that are more than a class: boxes, points, masks or numbers, in all formats that are read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from n2n_edge.data.annotations import Annotations
from n2n_edge.data.folder_layout import find_layout
from n2n_edge.data.labels.checks import Checks
from n2n_edge.data.labels.reading import kinds_of, read_annotations
from n2n_edge.data.labels.values import Annotated, Numbers, Split
from n2n_edge.data.loading import Loading, quiet
from n2n_edge.data.pixels import Conversions
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.data.samples import Samples, Source
from n2n_edge.data.source_folder import AT_ONCE_BYTES, FileReader
from n2n_edge.data.streaming import Pictures
from n2n_edge.errors import InputError
from n2n_edge.foreign import printable

__all__ = ["holds_labels", "holds_masks", "read"]

_FILES = frozenset({".yaml", ".yml", ".json", ".csv", ".tsv"})


def holds_labels(path: Path) -> bool:
    """Tell whether a file, or what lies in a folder, is labels that are more than the names of folders.

    A table in a folder of classes is taken for one of something else.
    """
    if not path.is_dir():
        return path.suffix.lower() in _FILES
    kinds = kinds_of(path)
    if not kinds:
        return False
    return set(kinds) != {"CSV"} or not _is_of_classes(path)


def holds_masks(path: Path) -> bool:
    """Tell whether the labels of a folder are masks."""
    return path.is_dir() and "masks" in kinds_of(path)


def _is_of_classes(path: Path) -> bool:
    try:
        return bool(find_layout(path, None).class_names)
    except InputError:
        return False


def read(
    path: Path,
    preprocessing: Preprocessing,
    classes: int | Sequence[str] | None = None,
    loading: Loading | None = None,
    more: int = 0,
) -> Source:
    """Read labelled images, converted to the teacher's channels and size; their labels follow them there.

    `classes` is how many the teacher has, or their names. Numbers become targets, NaN where an image has none.
    Without a test split of its own the validation split is that, as for folders. `more` images will join them for
    training; where there are no others, a single split is halved into validation and test images.

    Raises:
        InputError: what can't be read, or labels that can't be; the message says where and why.
    """
    loading = loading or Loading()
    annotated = read_annotations(path, classes=classes)
    with quiet():
        sizes = Checks("").sizes(annotated.images)
        reader = FileReader(preprocessing, loading, Conversions())
        rows = np.array([row for row, image in enumerate(annotated.images) if image in sizes], np.int64)
        if not len(rows):
            raise InputError(f"data '{printable(path)}' hold no images: give some")
        streams = (len(rows) + more) * int(np.prod(preprocessing.input_shape)) > AT_ONCE_BYTES
        samples, kept = _samples(annotated, rows, reader, streams)
    reader.conversions.refuse_unused_bits()
    own = np.array([sizes[annotated.images[row]] for row in kept], np.int64).reshape(-1, 2)
    files = [annotated.images[row] for row in kept]
    labels = Annotations([annotated.labels[row] for row in kept], own, preprocessing, files, annotated.flip_index)
    whole = _with_labels(samples, labels)
    splits: list[Split | None] = [annotated.splits[row] for row in kept]
    parts = {name: _part(whole, splits, name) for name in ("train", "validation", "test")}
    validation, test = parts["validation"], parts["test"]
    if test is None:
        validation, test = None, validation
    train = parts["train"]
    if train is None and not more:
        raise InputError(
            f"data '{printable(path)}' have no images to train with: {annotated.summary}; add some, which need no "
            "labels, by ‹unlabelled›"
        )
    if train is None:  # others are to learn from: a single split gives both what is held out
        train = whole.take(np.zeros(0, np.int64))
        if validation is None and test is not None:
            halves = np.arange(len(test.images))
            validation, test = test.take(halves[::2]), test.take(halves[1::2])
    names = annotated.names if not labels.kinds <= {Numbers} else ()
    return Source(train, validation, test, names, reader.conversions, annotated.notices, annotated.summary)


def _samples(
    annotated: Annotated, rows: "np.typing.NDArray[np.int64]", reader: FileReader, streams: bool
) -> "tuple[Samples, np.typing.NDArray[np.int64]]":
    """Return the images of these rows that can be read, and which rows they are."""
    paths = [annotated.images[row] for row in rows]
    if not streams:
        images, good = reader.decode_all(paths)
        return Samples(images, None), rows[good]
    # an image stands for another that can't be read only where neither has a label
    kinds = np.array([0 if annotated.labels[row] is None else 1 + row for row in rows], np.int64)
    store, good = reader.look_at(paths, kinds)
    return Samples(Pictures(store), None), rows[good]


def _with_labels(samples: Samples, labels: Annotations) -> Samples:
    if labels.kinds != {Numbers}:
        return Samples(samples.images, None, None, labels)
    told = labels.labelled
    values = np.stack([each.values for each in labels if isinstance(each, Numbers)])
    targets = np.full((len(told), values.shape[1]), np.nan, np.float32)
    targets[told] = values
    return Samples(samples.images, None, targets)


def _part(whole: Samples, splits: "Sequence[Split | None]", name: Split) -> Samples | None:
    """Return the images of a split; those that are for none are for training."""
    wanted = (name, None) if name == "train" else (name,)
    rows = np.array([row for row, split in enumerate(splits) if split in wanted], np.int64)
    return whole.take(rows) if len(rows) else None
