"""Pools over the spatial axes: MaxPool, AveragePool, LpPool and the global ones."""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from n2n_edge.training.convolution import RANKS, convolve
from n2n_edge.training.ops.registry import Kernel, NodeView, register
from n2n_edge.training.ops.window import Window, pad_spatial, read_window

__all__: list[str] = []

_MAX_POOL: dict[int, Callable[..., Tensor]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVG_POOL: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _pool_window(view: NodeView) -> tuple[Window, bool]:
    """Read the window, and tell whether torch's own pool takes its padding (at most half a kernel)."""
    window = read_window(view)
    if len(window.kernel) not in RANKS:
        raise view.unsupported(f"over {len(window.kernel)} spatial axes")
    native = window.symmetric and not window.ceil_mode
    return window, native and all(2 * pad <= size for pad, size in zip(window.begin, window.kernel, strict=True))


def _window_sums(x: Tensor, window: Window) -> Tensor:
    """Sum `x` (already padded) over each window."""
    flat = x.reshape(-1, 1, *x.shape[2:])
    ones = torch.ones(1, 1, *window.kernel, dtype=x.dtype, device=x.device)
    sums = convolve(flat, ones, None, window.strides, (0,) * len(window.kernel), window.dilations)
    return sums.reshape(*x.shape[:2], *sums.shape[2:])


@register("MaxPool")
def _max_pool(view: NodeView) -> Kernel:
    window, native = _pool_window(view)
    pool = _MAX_POOL[len(window.kernel)]
    kernel, strides, dilations, padding = window.kernel, window.strides, window.dilations, window.begin
    if native and not view.get_int("storage_order", 0) and view.gives(1):

        def with_places(x: Tensor) -> tuple[Tensor, Tensor]:
            values, places = pool(x, kernel, strides, padding, dilations, return_indices=True)
            planes = torch.arange(x.shape[0] * x.shape[1], device=x.device) * x[0, 0].numel()
            return values, places + planes.reshape(*x.shape[:2], *(1,) * len(kernel))  # ONNX counts through all planes

        return with_places
    view.only_first_output()
    if native:
        return lambda x: pool(x, kernel, strides, padding, dilations)

    def run(x: Tensor) -> Tensor:
        before, after = window.amounts(x.shape[2:])
        extra = window.overhang(x.shape[2:], before, after)
        lowest = float("-inf") if x.is_floating_point() else float(torch.iinfo(x.dtype).min)
        padded = pad_spatial(x, before, [a + e for a, e in zip(after, extra, strict=True)], lowest)
        return pool(padded, kernel, strides, 0, dilations)

    return run


@register("AveragePool")
def _average_pool(view: NodeView) -> Kernel:
    window, native = _pool_window(view)
    include = bool(view.get_int("count_include_pad", 0))
    kernel, strides, padding = window.kernel, window.strides, window.begin
    if native and all(dilation == 1 for dilation in window.dilations):
        pool = _AVG_POOL[len(kernel)]
        return lambda x: pool(x, kernel, strides, padding, False, include)

    def run(x: Tensor) -> Tensor:
        spatial = x.shape[2:]
        before, after = window.amounts(spatial)
        extra = window.overhang(spatial, before, after)
        ones = torch.ones(1, 1, *spatial, dtype=x.dtype, device=x.device)
        ends = [a + e for a, e in zip(after, extra, strict=True)]
        # what ceil_mode adds never counts; explicit padding counts where the node says so
        counted = pad_spatial(pad_spatial(ones, before, after, float(include)), [0] * len(extra), extra)
        return _window_sums(pad_spatial(x, before, ends), window) / _window_sums(counted, window)

    return run


@register("LpPool")
def _lp_pool(view: NodeView) -> Kernel:
    window, _ = _pool_window(view)
    power = view.get_int("p", 2)

    def run(x: Tensor) -> Tensor:
        before, after = window.amounts(x.shape[2:])
        extra = window.overhang(x.shape[2:], before, after)
        ends = [a + e for a, e in zip(after, extra, strict=True)]
        return _window_sums(pad_spatial(x.abs().pow(power), before, ends), window).pow(1.0 / power)

    return run


def _spatial_axes(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.dim()))


@register("GlobalAveragePool")
def _global_average_pool(view: NodeView) -> Kernel:
    return lambda x: x.mean(_spatial_axes(x), keepdim=True)


@register("GlobalMaxPool")
def _global_max_pool(view: NodeView) -> Kernel:
    return lambda x: x.amax(_spatial_axes(x), keepdim=True)
