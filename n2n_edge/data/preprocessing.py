"""What an image goes through on its way into a network, as one value that is recorded wherever the network is."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

from n2n_edge.data.pixel_scale import check_mean_and_std, per_channel
from n2n_edge.errors import InputError
from n2n_edge.graph.input_shape import PREPROCESSING_KEY, Layout, in_layout
from n2n_edge.reading import parse_json

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "METADATA_KEY", "ChannelOrder", "DType", "Interpolation", "PadPosition", "Pixels", "Preprocessing", "Resize",
    "recorded_preprocessing",
]  # fmt: skip

Resize = Literal["center-crop", "squash", "letterbox"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "area"]
PadPosition = Literal["center", "top-left"]
ChannelOrder = Literal["rgb", "bgr"]
Pixels = Literal["0..1", "0..255", "-1..1"]
DType = Literal["float32", "uint8"]

_RANGES: Mapping[Pixels, tuple[float, float]] = {"0..1": (255.0, 0.0), "0..255": (1.0, 0.0), "-1..1": (127.5, 127.5)}
"""What a byte is divided by, and what is taken off it before, for pixels of this range."""


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a network's input.

    An image is turned upright by its EXIF orientation, converted to `channels` (1: grey, 3: RGB), and brought to `size`
    (height, width) in pixels:

    - ``center-crop`` with a `crop_ratio`: its shorter side is scaled to the size divided by the ratio (rounded down),
      and the centre is cut out, as torchvision and timm do for evaluation. Without a ratio the centre part that has the
      input's proportions is cut out first and then scaled, so all of the shorter side is seen.
    - ``squash``: scaled to the size whatever its proportions.
    - ``letterbox``: scaled to fit, the rest filled with `pad_color`; the image is in the ``center`` (as Ultralytics has
      it) or ``top-left`` (YOLOX).

    `antialias` scales down over all pixels, as Pillow and torchvision do; without it, as OpenCV does, between the
    nearest ones. Then channels are put in `channel_order`, bytes are scaled to the range `pixels`, `mean` is taken off
    and the rest divided by `std`, both per channel in that order and in the unit of that range. The array is
    ``(N, C, H, W)`` or, in `layout` ``nhwc``, ``(N, H, W, C)``, of type `dtype`; ``uint8`` takes bytes as they are.

    Raises:
        InputError: values that can't be, or that contradict each other.

    >>> preprocessing = n2n_edge.Preprocessing((224, 224), crop_ratio=0.875, mean=(0.485, 0.456, 0.406))
    >>> preprocessing.input_shape, preprocessing.std
    ((3, 224, 224), (1.0, 1.0, 1.0))
    """

    size: tuple[int, int]
    channels: int = 3
    resize: Resize = "center-crop"
    crop_ratio: float | None = None
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    pad_color: tuple[int, ...] = (114,)
    pad_position: PadPosition = "center"
    channel_order: ChannelOrder = "rgb"
    pixels: Pixels = "0..1"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    dtype: DType = "float32"
    layout: Layout = "nchw"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                shown = "channels" if name == "channel_order" else name
                raise InputError(f"‹{shown}› {getattr(self, name)}: give one of {', '.join(choices)}")
        if len(self.size) != 2 or min(self.size) < 1 or self.channels < 1:
            raise InputError(f"an input of {self.channels} channels and size {self.size}: both must be at least 1")
        if self.crop_ratio is not None and not (isfinite(self.crop_ratio) and 0.05 <= self.crop_ratio <= 1):
            raise InputError(f"‹crop_ratio› {self.crop_ratio:g}: the part that is kept must lie in 0.05..1, as 0.875")
        if self.crop_ratio is not None and self.resize != "center-crop":
            raise InputError(f"‹crop_ratio› belongs to center-crop, and ‹resize› is {self.resize}: leave one out")
        if not self.antialias and self.interpolation == "lanczos":
            raise InputError("‹antialias›: lanczos scales over all pixels; give bilinear or bicubic, or antialias")
        if self.channel_order == "bgr" and self.channels != 3:
            raise InputError(f"‹channels› bgr: the network takes {self.channels} channels, not 3; leave it out")
        color = self.pad_color * self.channels if len(self.pad_color) == 1 else self.pad_color
        if len(color) != self.channels or not all(0 <= value <= 255 for value in color):
            raise InputError(f"‹pad_color› {','.join(map(str, color))}: give a value from 0 to 255 for each channel")
        object.__setattr__(self, "pad_color", color)
        for name in ("mean", "std"):
            values = per_channel(name, getattr(self, name), self.channels)
            object.__setattr__(self, name, values)
        check_mean_and_std(self.mean, self.std, pixels=self.pixels)
        if self.dtype == "uint8" and (self.pixels != "0..255" or any(self.mean) or set(self.std) != {1.0}):
            raise InputError("the network takes bytes: its pixels are in 0..255, without ‹mean› and ‹std›")

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape `(C, H, W)` of one image, whatever the layout."""
        return (self.channels, *self.size)

    @property
    def array_shape(self) -> tuple[int, int, int]:
        """Shape of one image as the network takes it, without the batch: `(C, H, W)` or `(H, W, C)`."""
        return (*self.size, self.channels) if self.layout == "nhwc" else self.input_shape

    @property
    def offset_and_scale(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What is taken off a byte, and what the rest is divided by, per channel in the network's order."""
        divisor, offset = (np.float32(value) for value in _RANGES[self.pixels])
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        return (divisor * mean + offset).astype(np.float32), (divisor * std).astype(np.float32)

    @property
    def unit_mean_and_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std per channel that do the same to pixels in 0..1."""
        if self.pixels == "0..1":
            return self.mean, self.std
        divisor, offset = _RANGES[self.pixels]
        return (
            tuple((divisor * value + offset) / 255 for value in self.mean),
            tuple(divisor * value / 255 for value in self.std),
        )

    def normalised(self, pixels: Pixels, mean: tuple[float, ...], std: tuple[float, ...]) -> "Preprocessing":
        """Return the same with another range of pixels, mean and std; one value of these holds for all channels."""
        return replace(self, pixels=pixels, mean=mean, std=std)

    @property
    def of_pixels(self) -> "Preprocessing":
        """What decides the bytes of an image at the network's size, the rest as it is by default."""
        return replace(
            self, channel_order="rgb", pixels="0..1", mean=(0.0,), std=(1.0,), dtype="float32", layout="nchw"
        )

    def inputs(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        """Turn images of the right size, `(N, H, W, C)` in RGB, into the network's input."""
        return in_layout(self.batch(images), self.layout)

    def batch(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        """Turn images of the right size, `(N, H, W, C)` in RGB, into `(N, C, H, W)`, whatever the layout."""
        if self.channel_order == "bgr":
            images = images[..., ::-1]
        values: NDArray[Any] = images
        if self.dtype != "uint8":
            offset, scale = self.offset_and_scale
            values = (images.astype(np.float32) - offset) / scale
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))

    def resized(self, image: "str | Path | Image.Image | NDArray[np.uint8]") -> NDArray[np.uint8]:
        """Return a file, a Pillow image or an array `(H, W, C)` of bytes in RGB at the input's size, `(H, W, C)`.

        Raises InputError for a file that can't be read, or an array with other channels.
        """
        from n2n_edge.data.pictures import read_picture
        from n2n_edge.data.resizing import resized_array

        if isinstance(image, np.ndarray):
            return resized_array(image, self)
        return read_picture(image, self)

    def apply(self, image: "str | Path | Image.Image | NDArray[np.uint8]") -> NDArray[Any]:
        """Return the network's input for one image: a file, a Pillow image or an array `(H, W, C)` of bytes in RGB.

        The array has a batch axis: ``session.run(None, {name: preprocessing.apply("photo.jpg")})``.

        Raises InputError for a file that can't be read, or an array with other channels.
        """
        return self.inputs(self.resized(image)[np.newaxis])

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON has them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, document: object, where: str = "preprocessing") -> "Preprocessing":
        """Return what `to_json` gave; raises InputError, which calls it `where`, for anything else."""
        if not isinstance(document, Mapping) or not isinstance(document.get("size"), list):
            raise InputError(f"{where} isn't what n2n-edge writes: an object with 'size' and the like")
        names = {item.name for item in fields(cls)}
        try:
            values: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in cast("Mapping[str, Any]", document).items()
                if name in names
            }
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise InputError(f"{where} isn't what n2n-edge writes ({error})") from error

    @classmethod
    def of(cls, model: str | Path) -> "Preprocessing":
        """Return what is recorded in the metadata of an ONNX file, as `compress` writes it into every student.

        Raises InputError for a file that isn't ONNX or records nothing.
        """
        from n2n_edge.graph.load import load_model

        recorded = recorded_preprocessing(load_model(Path(model)).metadata_props)
        if recorded is None:
            raise InputError(f"{model} records no preprocessing: no `{METADATA_KEY}` in its metadata")
        return recorded

    def words(self) -> str:
        """Return all of it in one line."""
        height, width = self.size
        scaled = f"{self.interpolation}{'' if self.antialias else ' without antialiasing'}"
        if self.resize == "squash":
            how = f"squashed to {height}x{width} ({scaled})"
        elif self.resize == "letterbox":
            spot = "in the centre" if self.pad_position == "center" else "top left"
            color = ",".join(map(str, self.pad_color if len(set(self.pad_color)) > 1 else self.pad_color[:1]))
            how = f"letterboxed into {height}x{width} ({scaled}, {spot}, padded with {color})"
        elif self.crop_ratio is None:
            how = f"centre part that fits, scaled to {height}x{width} ({scaled})"
        else:
            how = f"centre {height}x{width} at ratio {self.crop_ratio:g} ({scaled})"
        order = {1: "grey", 3: self.channel_order.upper()}.get(self.channels, f"{self.channels} channels")
        if self.dtype == "uint8":
            values = "bytes"
        else:
            values = f"pixels in {self.pixels}"
            if any(self.mean) or set(self.std) != {1.0}:
                values += f", less mean {_numbers(self.mean)}, divided by std {_numbers(self.std)}"
        return f"{how}; {order}; {values}; {self.layout.upper()}"


METADATA_KEY = PREPROCESSING_KEY
"""Metadata of an ONNX file: JSON of `Preprocessing.to_json`."""

_CHOICES: Mapping[str, tuple[str, ...]] = {
    name: get_args(hint) for name, hint in get_type_hints(Preprocessing).items() if get_args(hint)
    and all(isinstance(choice, str) for choice in get_args(hint))
}  # fmt: skip


def recorded_preprocessing(metadata: Mapping[str, str]) -> Preprocessing | None:
    """Return what a model's metadata records, None where they record nothing.

    Raises InputError where it is damaged.
    """
    text = metadata.get(METADATA_KEY)
    if text is None:
        return None
    try:
        document = parse_json(text)
    except ValueError as error:
        raise InputError(f"the model's metadata {METADATA_KEY} isn't JSON; remove it, or restore it") from error
    return Preprocessing.from_json(document, f"the model's metadata {METADATA_KEY}")


def _numbers(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:.4g}" for value in (values if len(set(values)) > 1 else values[:1]))
