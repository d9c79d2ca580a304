"""Resize and Upsample: nearest and linear, in every coordinate convention but cropping.

Formulas: ONNX operator Resize, "coordinate_transformation_mode" and "nearest_mode".
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from n2n_edge.training.ops.registry import Kernel, NodeView, register

__all__: list[str] = []

_TRANSFORMS = (
    "half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "asymmetric", "align_corners", "tf_half_pixel_for_nn",
)  # fmt: skip
_NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
_HALF = 1e-6
"""How near a half a place counts as one, as in ONNX Runtime."""


@lru_cache(maxsize=256)
def _coordinates(size: int, resized: int, scale: float, transform: str) -> Tensor:
    """Give the place in the input of each of the `resized` places in the output, in float32 as ONNX Runtime does."""
    x = torch.arange(resized, dtype=torch.float32)
    scales = torch.full_like(x, scale)  # by one number torch multiplies with its inverse, which rounds otherwise
    if transform == "asymmetric":
        return x / scales
    if transform == "align_corners":
        return x * (size - 1) / torch.full_like(x, resized - 1) if resized > 1 else torch.zeros(resized)
    if transform == "pytorch_half_pixel" and resized == 1:
        return torch.zeros(1)
    if transform == "half_pixel_symmetric":
        shift = size / 2 * (1 - resized / (scale * size))
        return shift + (x + 0.5) / scales - 0.5
    if transform == "tf_half_pixel_for_nn":
        return (x + 0.5) / scales
    return (x + 0.5) / scales - 0.5


def _nearest(x: Tensor, axis: int, places: Tensor, rounding: str) -> Tensor:
    whole = places.trunc()
    halves = (places - whole - 0.5).abs() <= _HALF  # below nought all come to the first place
    rounded = (places.double() + 0.5).floor().float()
    chosen = {
        "floor": lambda: places.floor(),
        "ceil": lambda: places.ceil(),
        "truncate": lambda: whole,
        "round_prefer_floor": lambda: torch.where(halves, whole, rounded),
        "round_prefer_ceil": lambda: torch.where(halves, whole + 1, rounded),
    }[rounding]()
    return x.index_select(axis, chosen.clamp(0, x.shape[axis] - 1).to(torch.int64).to(x.device))


def _linear(x: Tensor, axis: int, places: Tensor) -> Tensor:
    places = places.clamp(0, x.shape[axis] - 1)
    low = places.floor().to(torch.int64)
    high = (low + 1).clamp(max=x.shape[axis] - 1)
    share = (places - low).to(x.dtype).reshape(-1, *(1,) * (x.dim() - axis - 1)).to(x.device)
    first, second = x.index_select(axis, low.to(x.device)), x.index_select(axis, high.to(x.device))
    return first + (second - first) * share


def _resizer(mode: str, transform: str, rounding: str) -> Callable[[Tensor, Sequence[int], Sequence[float]], Tensor]:
    def resize(x: Tensor, sizes: Sequence[int], scales: Sequence[float]) -> Tensor:
        if list(x.shape) == list(sizes):  # the runtime copies, whatever the scales
            return x
        for axis, (resized, scale) in enumerate(zip(sizes, scales, strict=True)):
            size = x.shape[axis]
            if resized == size and scale == 1.0:
                continue
            places = _coordinates(size, resized, scale, transform)
            if mode == "nearest":
                # until opset 10 the direction decided: down to the next whole place, up to the one before
                x = _nearest(x, axis, places, rounding or ("ceil" if scale < 1 else "truncate"))
            else:
                x = _linear(x, axis, places)
        return x

    return resize


def _scaled(size: int, scale: float) -> int:
    """Give the size of an enlarged axis, in float32 as ONNX Runtime does: 10 times 0.7 is 7."""
    return int(torch.tensor(float(size)) * torch.tensor(scale, dtype=torch.float32))


def _read_floats(view: NodeView, index: int) -> Callable[[Sequence[Tensor | None]], tuple[float, ...]]:
    known = view.constant(index)
    if not view.has(index):
        return lambda _: ()
    if known is not None:
        baked = tuple(known.reshape(-1).tolist())
        return lambda _: baked

    def read(arguments: Sequence[Tensor | None]) -> tuple[float, ...]:
        value = arguments[index] if index < len(arguments) else None
        return () if value is None else tuple(value.reshape(-1).tolist())

    return read


@register("Resize")
def _resize(view: NodeView) -> Kernel:
    mode = view.get_string("mode", "nearest")
    # opset 10 had neither coordinate nor rounding modes
    transform = view.get_string("coordinate_transformation_mode", "half_pixel") if view.opset > 10 else "asymmetric"
    rounding = view.get_string("nearest_mode", "round_prefer_floor") if view.opset > 10 else ""
    if mode not in ("nearest", "linear") or transform not in _TRANSFORMS or rounding not in (*_NEAREST, ""):
        raise view.unsupported(f"with mode '{mode}', '{transform}', '{rounding}'")
    if view.get_int("antialias", 0) or view.get_string("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise view.unsupported("with antialias or keep_aspect_ratio_policy")
    axes = view.get_ints("axes")
    resize = _resizer(mode, transform, rounding)
    read_scales = _read_floats(view, 2 if view.opset > 10 else 1)
    read_sizes = view.integers("", 3)

    def run(*arguments: Tensor) -> Tensor:
        x = arguments[0]
        chosen = tuple(range(x.dim())) if axes is None else axes
        sizes, scales = list(x.shape), [1.0] * x.dim()
        given = read_sizes(arguments) if len(arguments) > 3 else None
        if given:
            for axis, size in zip(chosen, given, strict=True):
                sizes[axis], scales[axis] = size, size / x.shape[axis]
        else:
            for axis, scale in zip(chosen, read_scales(arguments), strict=True):
                sizes[axis], scales[axis] = _scaled(x.shape[axis], scale), scale
        return resize(x, sizes, scales)

    return run


@register("Upsample")
def _upsample(view: NodeView) -> Kernel:
    mode = view.get_string("mode", "nearest")
    if mode not in ("nearest", "linear"):
        raise view.unsupported(f"with mode '{mode}'")
    attribute = view.get_floats("scales")
    read_scales = _read_floats(view, 1)
    resize = _resizer(mode, "asymmetric", "")

    def run(*arguments: Tensor) -> Tensor:
        x = arguments[0]
        scales = attribute or read_scales(arguments)
        return resize(x, [_scaled(size, scale) for size, scale in zip(x.shape, scales, strict=True)], scales)

    return run


@register("GridSample")
def _grid_sample(view: NodeView) -> Kernel:
    modes = {
        "bilinear": "bilinear",
        "linear": "bilinear",
        "nearest": "nearest",
        "bicubic": "bicubic",
        "cubic": "bicubic",
    }
    mode = view.get_string("mode", "linear")
    padding = view.get_string("padding_mode", "zeros")
    aligned = bool(view.get_int("align_corners", 0))
    if mode not in modes:
        raise view.unsupported(f"with mode '{mode}'")

    def run(*arguments: Tensor) -> Tensor:
        x, grid = arguments
        return torch.nn.functional.grid_sample(x, grid, mode=modes[mode], padding_mode=padding, align_corners=aligned)

    return run
