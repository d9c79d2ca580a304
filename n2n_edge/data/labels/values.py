"""Labels of an image that are more than a class, and the labels of many images as they were read."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from n2n_edge.data.labels.run_lengths import RunLengths
from n2n_edge.metrics.notices import Notice

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "HIDDEN", "IGNORED", "NOT_LABELLED", "SPLITS", "VISIBLE", "Annotated", "Floats", "Label", "Mask", "MaskFile",
    "Numbers", "Objects", "Points", "Shape", "Split", "flip_index_of", "highest_class", "mask_values",
]  # fmt: skip

Floats = NDArray[np.floating[Any]]
Split = Literal["train", "validation", "test"]

SPLITS: Mapping[str, Split] = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
"""What people call splits."""

Shape = tuple[Floats, ...] | RunLengths
"""Outline of an object: polygons `(m, 2)` in pixels, which belong together, or a mask as run lengths."""

IGNORED = 255
"""What a mask holds where nothing is said of a pixel, as in Pascal VOC and Cityscapes."""

NOT_LABELLED, HIDDEN, VISIBLE = 0, 1, 2
"""Visibility of a point, as in COCO."""

_SIDE = re.compile(r"(?<![a-z])(?:left|right|[lr](?![a-z]))", re.IGNORECASE)
_OTHER_SIDE = {"left": "right", "right": "left", "l": "r", "r": "l"}


@dataclass(frozen=True, eq=False)
class Objects:
    """What is in one image, in pixels of it after it was turned upright by its EXIF orientation.

    `boxes` are ``(n, 4)``: left, top, right, bottom, edges of pixels, so a box over the whole image is
    ``(0, 0, width, height)``; `classes` ``(n,)`` count from 0. What is marked in `crowd` ``(n,)`` counts neither as
    found nor as missed. `keypoints` are ``(n, K, 3)``: x, y and visibility (0 not labelled, 1 hidden, 2 visible).
    `shapes` are the outlines of the objects, None for one that has a box alone.
    """

    boxes: Floats
    classes: NDArray[np.int64]
    crowd: NDArray[np.bool_] | None = None
    keypoints: Floats | None = None
    shapes: tuple[Shape | None, ...] | None = None

    def __len__(self) -> int:
        return len(self.classes)

    def take(self, chosen: NDArray[Any]) -> "Objects":
        """Return some of the objects, by index or mask."""
        rows = np.arange(len(self))[chosen]
        return Objects(
            self.boxes[rows],
            self.classes[rows],
            None if self.crowd is None else self.crowd[rows],
            None if self.keypoints is None else self.keypoints[rows],
            None if self.shapes is None else tuple(self.shapes[row] for row in rows),
        )


@dataclass(frozen=True, eq=False)
class Points:
    """The points of one image, `points` ``(K, 3)``: x and y in pixels, and visibility as in `Objects`."""

    points: Floats


@dataclass(frozen=True, eq=False)
class Mask:
    """The class of every pixel, `pixels` ``(H, W)`` as uint8; 255 is ignored."""

    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class MaskFile:
    """A mask of `size` (height, width) in a file, which is decoded when it is read.

    `colours` are pairs of a colour ``r << 16 | g << 8 | b`` and its class; without them values are classes. In a
    `binary` mask 255 is class 1.
    """

    path: str
    size: tuple[int, int]
    colours: tuple[tuple[int, int], ...] | None = None
    binary: bool = False

    def read(self) -> Mask:
        """Decode the file; raises OSError where it has gone, ValueError where it isn't any more what was looked at."""
        from PIL import Image

        with Image.open(self.path) as image:
            pixels = mask_values(image, self.colours)
        if pixels.shape != self.size:
            raise ValueError(f"the mask has {pixels.shape[1]}x{pixels.shape[0]} pixels now")
        return Mask(np.where(pixels == IGNORED, np.uint8(1), pixels) if self.binary else pixels)


@dataclass(frozen=True, eq=False)
class Numbers:
    """What is to be estimated of one image, `values` ``(K,)``."""

    values: Floats


Label = Objects | Points | Mask | MaskFile | Numbers


@dataclass(frozen=True)
class Annotated:
    """Labels of images as they were read.

    `images` are paths, `labels` what each is labelled with (None: it isn't), `splits` what each is for (None: that
    isn't said). `flip_index` says which point each becomes in a mirrored image, None where that isn't known. `names`
    are those of classes, or of numbers.
    """

    format: str
    images: tuple[str, ...]
    labels: tuple[Label | None, ...]
    splits: tuple[Split | None, ...]
    names: tuple[str, ...] = ()
    keypoint_names: tuple[str, ...] = ()
    flip_index: tuple[int, ...] | None = None
    notices: tuple[Notice, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.images)

    def members(self, split: Split | None) -> NDArray[np.int64]:
        """Return which images are for `split`."""
        return np.array([index for index, each in enumerate(self.splits) if each == split], np.int64)

    @property
    def summary(self) -> str:
        """What was read, on one line."""
        kinds = Counter(self.splits)
        words: dict[Split | None, str] = {
            "train": "training", "validation": "validation", "test": "test", None: "unsplit",
        }  # fmt: skip
        images = ", ".join(f"{kinds[split]:,} {word}" for split, word in words.items() if kinds[split])
        unlabelled = sum(label is None for label in self.labels)
        text = f"{self.format}: {images} images"
        if unlabelled:
            text += f", {unlabelled:,} of them unlabelled"
        objects = [label for label in self.labels if isinstance(label, Objects)]
        if objects:
            text += f"; {sum(map(len, objects)):,} objects of {len(self.names)} classes"
            outlines = sum(shape is not None for label in objects for shape in label.shapes or ())
            text += f", {outlines:,} with outlines" if outlines else ""
        if any(isinstance(label, Mask | MaskFile) for label in self.labels):
            text += f"; masks of {len(self.names)} classes"
        if any(isinstance(label, Numbers) for label in self.labels):
            text += f"; {len(self.names)} numbers each"
        return text + (f"; {len(self.keypoint_names)} points each" if self.keypoint_names else "")


def highest_class(label: Label | None) -> int:
    """Return the highest class of an image's objects or pixels, 0 where it has none."""
    if isinstance(label, Objects):
        return int(label.classes.max(initial=0))
    if isinstance(label, MaskFile):
        label = label.read()
    return int(label.pixels[label.pixels != IGNORED].max(initial=0)) if isinstance(label, Mask) else 0


def flip_index_of(names: Sequence[str]) -> tuple[int, ...] | None:
    """Return which point each becomes in a mirrored image, by left and right (or l and r) in their names.

    None where no name has a side, or one has no counterpart.
    """
    mirrored = [_SIDE.sub(_swapped, name) for name in names]
    if list(names) == mirrored or len(set(names)) < len(names) or set(mirrored) != set(names):
        return None
    return tuple(list(names).index(name) for name in mirrored)


def _swapped(side: re.Match[str]) -> str:
    text = _OTHER_SIDE[side[0].lower()]
    if side[0].isupper():
        return text.upper()
    return text.capitalize() if side[0][0].isupper() else text


def mask_values(image: "Image.Image", colours: tuple[tuple[int, int], ...] | None) -> NDArray[np.uint8]:
    """Return the classes `(H, W)` that a picture holds, by its colours or as values.

    Raises:
        ValueError: more than 8 bits are used, or there is a colour that stands for nothing.
    """
    if image.mode == "PA" or (image.mode in ("P", "RGB", "RGBA") and (colours is not None or image.mode != "P")):
        # Pillow warns of a palette with transparency on the direct way to RGB
        rgb = np.asarray(image.convert("RGBA"), np.uint32)[..., :3]
        if colours is None:
            if (rgb != rgb[..., :1]).any():
                raise ValueError("is in colour, and no table says which colour is which class")
            return rgb[..., 0].astype(np.uint8)
        packed = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
        values, valid = _tables(colours)
        if not valid[packed].all():
            first = int(packed[~valid[packed]][0])
            raise ValueError(
                f"holds the colour {first >> 16},{first >> 8 & 255},{first & 255}, which isn't in the table"
            )
        found: NDArray[np.uint8] = values[packed]
        return found
    values = np.asarray(image.getchannel(0) if image.mode == "LA" else image)
    if values.dtype == np.bool_:
        return values.astype(np.uint8)
    if values.dtype.kind not in "ui" or values.ndim != 2:
        raise ValueError(f"is a picture of type {image.mode}")
    if values.size and (values.max() > 255 or values.min() < 0):
        raise ValueError(f"holds the value {values.max() if values.max() > 255 else values.min()}")
    return values.astype(np.uint8)


@lru_cache(maxsize=2)
def _tables(colours: tuple[tuple[int, int], ...]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the class of each of 2^24 colours, and whether it has one."""
    values, valid = np.zeros(1 << 24, np.uint8), np.zeros(1 << 24, np.bool_)
    for colour, kind in colours:
        values[colour], valid[colour] = kind, True
    return values, valid
