"""Ops that only change how the elements are arranged, and the ones that make shapes and constants."""

import math

import torch
from torch import Tensor

from n2n_edge.training.ops.registry import Kernel, NodeView, register
from n2n_edge.training.tensors import tensor_from_ir

__all__: list[str] = []


@register("Reshape")
def _reshape(view: NodeView) -> Kernel:
    allow_zero = bool(view.get_int("allowzero", 0))
    read_shape = view.integers("shape", 1)
    known = read_shape(()) if view.constant(1) is not None else None
    if known is not None and (allow_zero or 0 not in known):
        return lambda x, _: x.reshape(known)

    def run(*arguments: Tensor) -> Tensor:
        x, shape = arguments[0], read_shape(arguments) or ()
        if not allow_zero:
            shape = tuple(x.shape[axis] if size == 0 else size for axis, size in enumerate(shape))
        return x.reshape(shape)

    return run


@register("Flatten")
def _flatten(view: NodeView) -> Kernel:
    axis = view.get_int("axis", 1)
    if axis == 1:
        return lambda x: x.flatten(1) if x.dim() > 1 else x.reshape(x.shape[0], -1)

    def run(x: Tensor) -> Tensor:
        split = axis if axis >= 0 else axis + x.dim()
        return x.reshape(math.prod(x.shape[:split]), math.prod(x.shape[split:]))

    return run


@register("Squeeze")
def _squeeze(view: NodeView) -> Kernel:
    read_axes = view.integers("axes", 1)

    def run(*arguments: Tensor) -> Tensor:
        axes = read_axes(arguments)
        return arguments[0].squeeze() if axes is None else arguments[0].squeeze(axes)

    return run


@register("Unsqueeze")
def _unsqueeze(view: NodeView) -> Kernel:
    read_axes = view.integers("axes", 1)

    def run(*arguments: Tensor) -> Tensor:
        x, axes = arguments[0], read_axes(arguments) or ()
        rank = x.dim() + len(axes)
        for axis in sorted(axis % rank for axis in axes):  # axes count in the result
            x = x.unsqueeze(axis)
        return x

    return run


@register("Transpose")
def _transpose(view: NodeView) -> Kernel:
    order = view.get_ints("perm")
    if order is None:
        return lambda x: x.permute(tuple(reversed(range(x.dim()))))
    return lambda x: x.permute(order)


def _broadcast(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    rank = max(len(first), len(second))
    pairs = zip((1,) * (rank - len(first)) + first, (1,) * (rank - len(second)) + second, strict=True)
    return tuple(b if a == 1 else a for a, b in pairs)


@register("Expand")
def _expand(view: NodeView) -> Kernel:
    read_shape = view.integers("shape", 1)

    def run(*arguments: Tensor) -> Tensor:
        x = arguments[0]
        return x.expand(_broadcast(tuple(x.shape), read_shape(arguments) or ()))

    return run


@register("Tile")
def _tile(view: NodeView) -> Kernel:
    read_repeats = view.integers("repeats", 1)

    def run(*arguments: Tensor) -> Tensor:
        return arguments[0].repeat(read_repeats(arguments) or ())

    return run


@register("Concat")
def _concat(view: NodeView) -> Kernel:
    axis = view.get_int("axis", 0)
    return lambda *parts: torch.cat(parts, axis)


@register("Split")
def _split(view: NodeView) -> Kernel:
    axis = view.get_int("axis", 0)
    parts = view.get_int("num_outputs", len(view.node.outputs))
    read_sizes = view.integers("split", 1)

    def run(*arguments: Tensor) -> tuple[Tensor, ...]:
        x, sizes = arguments[0], read_sizes(arguments)
        if sizes is None:
            size = -(-x.shape[axis] // parts)  # all equal but the last, which may be smaller
            return torch.split(x, size, axis)
        return torch.split(x, list(sizes), axis)

    return run


@register("DepthToSpace")
def _depth_to_space(view: NodeView) -> Kernel:
    block = view.get_int("blocksize", 1)
    columns_first = view.get_string("mode", "DCR") == "CRD"

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        depth = c // (block * block)
        if columns_first:
            moved = x.reshape(n, depth, block, block, h, w).permute(0, 1, 4, 2, 5, 3)
        else:
            moved = x.reshape(n, block, block, depth, h, w).permute(0, 3, 4, 1, 5, 2)
        return moved.reshape(n, depth, h * block, w * block)

    return run


@register("SpaceToDepth")
def _space_to_depth(view: NodeView) -> Kernel:
    block = view.get_int("blocksize", 1)

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        moved = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
        return moved.reshape(n, c * block * block, h // block, w // block)

    return run


@register("Identity")
def _identity(view: NodeView) -> Kernel:
    return lambda x: x


@register("Dropout")
def _dropout(view: NodeView) -> Kernel:
    """Pass the input on: a graph exported for inference drops nothing, and short fine-tuning needs no noise."""
    view.only_first_output()
    return lambda x, *_: x


@register("Shape")
def _shape(view: NodeView) -> Kernel:
    start, attribute = view.get_int("start", 0), view.node.attributes.get("end")
    end = None if attribute is None else attribute.as_int()
    return lambda x: torch.tensor(x.shape[start:end], dtype=torch.int64, device=x.device)


@register("Constant")
def _constant(view: NodeView) -> Kernel:
    for name, attribute in view.node.attributes.items():
        if name == "value":
            value = tensor_from_ir(attribute.as_tensor())
        elif name in ("value_int", "value_ints"):
            value = torch.tensor(attribute.value, dtype=torch.int64)
        elif name in ("value_float", "value_floats"):
            value = torch.tensor(attribute.value, dtype=torch.float32)
        else:
            raise view.unsupported(f"with the attribute '{name}'")
        return lambda: value
    raise view.unsupported("without a value")


@register("ConstantOfShape")
def _constant_of_shape(view: NodeView) -> Kernel:
    attribute = view.node.attributes.get("value")
    fill = torch.zeros(1) if attribute is None else tensor_from_ir(attribute.as_tensor())
    read_shape = view.integers("", 0)

    def run(shape: Tensor) -> Tensor:
        return torch.full(read_shape((shape,)) or (), fill.item(), dtype=fill.dtype, device=shape.device)

    return run


@register("Range")
def _range(view: NodeView) -> Kernel:
    def run(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
        return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype, device=start.device)

    return run
