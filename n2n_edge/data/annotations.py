"""Labels of images that are more than a class, in pixels of a network's input."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from n2n_edge.data.labels.geometry import following, transformed
from n2n_edge.data.labels.run_lengths import RunLengths
from n2n_edge.data.labels.values import Label, Mask, MaskFile, Numbers, Objects, Points, Shape
from n2n_edge.data.preprocessing import Preprocessing

__all__ = ["Annotations", "kinds_in"]


class Annotations(Sequence["Label | None"]):
    """Labels of images of `sizes` ``(N, 2)`` (height, width), given in pixels of the network's input.

    They are moved as `preprocessing` moves the images. Masks of files are decoded when they are asked for. Indexing by
    a number gives a label, or None where an image has none; by a slice or by numbers, the labels of some. `names` are
    what errors call the images. `flip_index` says which point each becomes in a mirrored image, None where that isn't
    known.
    """

    def __init__(
        self,
        labels: Sequence[Label | None],
        sizes: NDArray[np.int64],
        preprocessing: Preprocessing | None,
        names: Sequence[str],
        flip_index: tuple[int, ...] | None = None,
    ) -> None:
        self._labels, self._sizes, self._preprocessing = tuple(labels), sizes, preprocessing
        self.names, self.flip_index = tuple(names), flip_index

    @classmethod
    def in_place(cls, labels: Sequence[Label | None], names: Sequence[str]) -> "Annotations":
        """Return labels that are in pixels of the network's input already."""
        return cls(labels, np.ones((len(labels), 2), np.int64), None, names)

    def __len__(self) -> int:
        return len(self._labels)

    @overload
    def __getitem__(self, chosen: int) -> Label | None: ...
    @overload
    def __getitem__(self, chosen: "slice | NDArray[np.integer] | NDArray[np.bool_]") -> "Annotations": ...
    def __getitem__(
        self, chosen: "int | slice | NDArray[np.integer] | NDArray[np.bool_]"
    ) -> "Label | Annotations | None":
        if isinstance(chosen, slice | np.ndarray):
            rows = np.arange(len(self))[chosen]
            return Annotations(
                [self._labels[row] for row in rows],
                self._sizes[rows],
                self._preprocessing,
                [self.names[row] for row in rows],
                self.flip_index,
            )
        label = self._labels[chosen]
        if label is None or self._preprocessing is None:
            return label
        height, width = (int(size) for size in self._sizes[chosen])
        return transformed(label, following(self._preprocessing, (height, width)), self._preprocessing.size)

    def __iter__(self) -> Iterator[Label | None]:
        return (self[place] for place in range(len(self)))

    def extended(self, count: int) -> "Annotations":
        """Return them with so many unlabelled images behind."""
        sizes = np.concatenate([self._sizes, np.ones((count, 2), np.int64)])
        names = [*self.names, *[""] * count]
        labels = [*self._labels, *[None] * count]
        return Annotations(labels, sizes, self._preprocessing, names, self.flip_index)

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Which images have a label, ``(N,)``."""
        return np.array([label is not None for label in self._labels], np.bool_)

    @property
    def kinds(self) -> frozenset[type]:
        """The types of the labels that there are (see `kinds_in`)."""
        return kinds_in(self._labels)

    def parts(self) -> Iterator[bytes]:
        """Give what tells the labels from others, for a digest; of masks in files those, and what their values mean."""
        yield repr(self._preprocessing).encode()
        if self.flip_index is not None:
            yield repr(self.flip_index).encode()
        yield np.ascontiguousarray(self._sizes).tobytes()
        for label in self._labels:
            match label:
                case Objects():
                    yield from (np.ascontiguousarray(label.boxes, np.float64).tobytes(), label.classes.tobytes())
                    for part in (label.keypoints, label.crowd):
                        yield b"-" if part is None else np.ascontiguousarray(part, np.float64).tobytes()
                    for shape in label.shapes or ():
                        yield _shape_print(shape)
                case Points():
                    yield np.ascontiguousarray(label.points, np.float64).tobytes()
                case None:
                    yield b"-"
                case _:
                    yield _mask_print(label)


def kinds_in(labels: "Sequence[Label | None]") -> frozenset[type]:
    """Return the types of the labels that there are; a mask in a file, which isn't decoded, counts as a mask."""
    if isinstance(labels, Annotations):
        return labels.kinds
    return frozenset(Mask if isinstance(each, MaskFile) else type(each) for each in labels if each is not None)


def _mask_print(label: Label) -> bytes:
    if isinstance(label, MaskFile):
        meaning = repr((label.colours, label.binary)).encode()  # which class a colour is stands outside of the file
        return hashlib.sha256(Path(label.path).read_bytes() + meaning).digest()
    if isinstance(label, Mask):
        return label.pixels.tobytes()
    return np.ascontiguousarray(label.values, np.float64).tobytes() if isinstance(label, Numbers) else b""


def _shape_print(shape: Shape | None) -> bytes:
    if shape is None:
        return b"-"
    if isinstance(shape, RunLengths):
        return np.array([*shape.size, *shape.counts], np.int64).tobytes()
    return b"".join(
        len(each).to_bytes(8, "little") + np.ascontiguousarray(each, np.float64).tobytes() for each in shape
    )
