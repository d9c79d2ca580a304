"""Ops that pick or add elements along axes: Slice, Gather, Pad, TopK and their like."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from n2n_edge.training.ops.registry import Kernel, NodeView, register

__all__: list[str] = []

_FAR = 2**31 - 1


def _slice_axes(
    x: Tensor, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int], steps: Sequence[int]
) -> Tensor:
    pieces = [slice(None)] * x.dim()
    backwards: list[tuple[int, Tensor]] = []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step > 0:
            pieces[axis] = slice(start, end, step)
        else:
            # torch has no negative steps; python's own rules for them are ONNX's, with a far end clamped to "all"
            size = x.shape[axis]
            stop = None if end < -size else end
            chosen = list(range(size))[start:stop:step]
            backwards.append((axis % x.dim(), torch.tensor(chosen, dtype=torch.int64, device=x.device)))
    x = x[tuple(pieces)]
    for axis, chosen_indices in backwards:
        x = x.index_select(axis, chosen_indices)
    return x


@register("Slice")
def _slice(view: NodeView) -> Kernel:
    readers = [view.integers(name, index) for name, index in (("starts", 1), ("ends", 2), ("axes", 3), ("steps", 4))]

    def run(*arguments: Tensor) -> Tensor:
        starts, ends, axes, steps = (read(arguments) for read in readers)
        starts, ends = starts or (), ends or ()
        axes = tuple(range(len(starts))) if axes is None else axes
        return _slice_axes(arguments[0], starts, ends, axes, steps or (1,) * len(starts))

    known = all(not view.has(index) or view.constant(index) is not None for index in range(1, 5))
    if not known:
        return run
    starts, ends, axes, steps = (read(()) for read in readers)
    starts, ends = starts or (), ends or ()
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = steps or (1,) * len(starts)
    if any(step < 0 for step in steps) or any(axis < 0 for axis in axes):
        return run
    pieces = [slice(None)] * (max(axes, default=-1) + 1)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        pieces[axis] = slice(start, None if end >= _FAR else end, step)
    picked = tuple(pieces)
    return lambda x, *_: x[picked]


@register("Gather")
def _gather(view: NodeView) -> Kernel:
    axis = view.get_int("axis", 0)
    known = view.constant(1)
    if known is not None and known.dim() == 0:
        position = int(known)
        return lambda x, _: x.select(axis, position)

    def run(x: Tensor, indices: Tensor) -> Tensor:
        size = x.shape[axis]
        flat = indices.reshape(-1).to(torch.int64)
        picked = x.index_select(axis, torch.where(flat < 0, flat + size, flat))
        start = axis % x.dim()
        return picked.reshape(*x.shape[:start], *indices.shape, *x.shape[start + 1 :])

    return run


def _mirror(size: int, before: int, after: int, mode: str) -> Tensor:
    """Give the source position of every element of an axis padded by `before` and `after`."""
    positions = torch.arange(-before, size + after)
    if mode == "edge":
        return positions.clamp(0, size - 1)
    if mode == "wrap":
        return positions % size
    period = max(2 * (size - 1), 1)
    folded = positions % period
    return torch.where(folded < size, folded, period - folded)


_IN_TORCH = {"reflect": "reflect", "edge": "replicate"}


def _pads_maps(x: Tensor, amounts: list[tuple[int, int]]) -> bool:
    """Tell whether torch's own padding does: of rows and columns, by less than there are; on CUDA it isn't repeatable.

    It is some twenty times as fast as picking rows and columns, and leaves channels last.
    """
    if x.dim() != 4 or x.device.type != "cpu" or not x.is_floating_point() or any(map(any, amounts[:2])):
        return False
    return all(0 <= side < x.shape[axis] for axis in (2, 3) for side in amounts[axis])


@register("Pad")
def _pad(view: NodeView) -> Kernel:
    mode = view.get_string("mode", "constant")
    if mode not in ("constant", "reflect", "edge", "wrap"):
        raise view.unsupported(f"with mode '{mode}'")
    read_pads, read_axes = view.integers("pads", 1), view.integers("axes", 3)
    known_value = view.constant(2)
    value = view.get_float("value", 0.0) if known_value is None else float(known_value)
    dynamic_value = view.has(2) and known_value is None

    def run(*arguments: Tensor) -> Tensor:
        x, pads, axes = arguments[0], read_pads(arguments) or (), read_axes(arguments)
        axes = tuple(range(x.dim())) if axes is None else axes
        amounts = [(0, 0)] * x.dim()
        for place, axis in enumerate(axes):
            amounts[axis] = (pads[place], pads[place + len(axes)])
        if mode == "constant":
            fill = float(arguments[2]) if dynamic_value else value
            return F.pad(x, [side for pair in reversed(amounts) for side in pair], value=fill)
        if mode in _IN_TORCH and _pads_maps(x, amounts):
            return F.pad(x, (*amounts[3], *amounts[2]), mode=_IN_TORCH[mode])
        for axis, (before, after) in enumerate(amounts):
            if before or after:
                x = x.index_select(axis, _mirror(x.shape[axis], before, after, mode).to(x.device))
        return x

    return run


@register("TopK")
def _top_k(view: NodeView) -> Kernel:
    axis = view.get_int("axis", -1)
    largest = bool(view.get_int("largest", 1))
    attribute = view.get_int("k", 1)  # until opset 9

    def run(x: Tensor, count: Tensor | None = None) -> tuple[Tensor, Tensor]:
        # of equals ONNX takes the one that comes first, which a stable sort keeps
        values, places = torch.sort(x, dim=axis, descending=largest, stable=True)
        taken = attribute if count is None else int(count.reshape(-1)[0])
        values, places = values.narrow(axis, 0, taken), places.narrow(axis, 0, taken)
        return values, places

    return run


@register("GatherElements")
def _gather_elements(view: NodeView) -> Kernel:
    axis = view.get_int("axis", 0)

    def run(x: Tensor, places: Tensor) -> Tensor:
        return x.gather(axis, torch.where(places < 0, places + x.shape[axis], places).to(torch.int64))

    return run


@register("GatherND")
def _gather_nd(view: NodeView) -> Kernel:
    batched = view.get_int("batch_dims", 0)

    def run(x: Tensor, places: Tensor) -> Tensor:
        lead = x.shape[:batched]
        rows = x.reshape(-1, *x.shape[batched:])
        picked = places.reshape(len(rows), -1, places.shape[-1]).to(torch.int64)
        batch = torch.arange(len(rows), device=x.device).reshape(-1, 1)
        found = rows[(batch, *picked.unbind(-1))]
        return found.reshape(*lead, *places.shape[batched:-1], *rows.shape[1 + places.shape[-1] :])

    return run


@register("NonZero")
def _non_zero(view: NodeView) -> Kernel:
    return lambda x: x.nonzero().T


@register("Trilu")
def _triangle(view: NodeView) -> Kernel:
    keep = torch.triu if view.get_int("upper", 1) else torch.tril
    return lambda x, *shift: keep(x, int(shift[0].reshape(-1)[0]) if shift else 0)


@register("ScatterND")
def _scatter_nd(view: NodeView) -> Kernel:
    mode = view.get_string("reduction", "none")
    if mode not in ("none", "add"):
        raise view.unsupported(f"with reduction '{mode}'")

    def run(x: Tensor, places: Tensor, updates: Tensor) -> Tensor:
        chosen = tuple(places.to(torch.int64).unbind(-1))
        return x.index_put(chosen, updates.to(x.dtype), accumulate=mode == "add")

    return run
