"""Arithmetic: elementwise functions, comparisons and reductions."""

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

from n2n_edge.training.ops.registry import Kernel, NodeView, register, torch_dtype

__all__: list[str] = []


def _plain(function: Callable[..., Tensor]) -> Callable[[NodeView], Kernel]:
    return lambda view: function


def _variadic(function: Callable[..., Tensor]) -> Callable[[NodeView], Kernel]:
    return lambda view: lambda *terms: reduce(function, terms)


_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "Exp": torch.exp,
    "Log": torch.log,
    "Sqrt": torch.sqrt,
    "Abs": torch.abs,
    "Neg": torch.neg,
    "Reciprocal": torch.reciprocal,
    "Erf": torch.erf,
    "Floor": torch.floor,
    "Ceil": torch.ceil,
    "Round": torch.round,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Cos": torch.cos,
    "Tan": torch.tan,
    "IsNaN": torch.isnan,
    "Xor": torch.logical_xor,
    "Not": torch.logical_not,
    "And": torch.logical_and,
    "Or": torch.logical_or,
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Where": torch.where,
}
for _name, _function in _FUNCTIONS.items():
    register(_name, forgets_output=_name == "Add")(_plain(_function))

_PAIRWISE: dict[str, Callable[..., Tensor]] = {"Min": torch.minimum, "Max": torch.maximum, "Sum": torch.add}
for _name, _pairwise in _PAIRWISE.items():
    register(_name)(_variadic(_pairwise))


@register("Mean")
def _mean(view: NodeView) -> Kernel:
    return lambda *terms: reduce(torch.add, terms) / len(terms)


@register("Mod")
def _mod(view: NodeView) -> Kernel:
    return torch.fmod if view.get_int("fmod", 0) else torch.remainder


@register("CumSum")
def _cumulative_sum(view: NodeView) -> Kernel:
    exclusive, backwards = bool(view.get_int("exclusive", 0)), bool(view.get_int("reverse", 0))

    def run(x: Tensor, axis: Tensor) -> Tensor:
        along = int(axis.reshape(-1)[0])
        x = x.flip(along) if backwards else x
        total = x.cumsum(along) - x if exclusive else x.cumsum(along)
        return total.flip(along) if backwards else total

    return run


@register("Div")
def _div(view: NodeView) -> Kernel:
    def run(a: Tensor, b: Tensor) -> Tensor:
        if a.is_floating_point() or b.is_floating_point():
            return a / b
        return torch.div(a, b, rounding_mode="trunc")  # integers divide as in C

    return run


@register("Pow")
def _pow(view: NodeView) -> Kernel:
    known = view.constant(1)
    if known is not None and known.numel() == 1 and known.dim() == 0:
        exponent = known.item()
        return lambda base, _: base.pow(exponent)
    return lambda base, power: base.pow(power).to(base.dtype)


@register("Cast")
def _cast(view: NodeView) -> Kernel:
    dtype = torch_dtype(view.get_int("to", 1))
    if dtype is None:
        raise view.unsupported("to a type that torch does not have")
    return lambda x: x.to(dtype)


def _reduction(function: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> Callable[[NodeView], Kernel]:
    """Build a reduction whose axes are an attribute in old opsets and an input in newer ones."""

    def build(view: NodeView) -> Kernel:
        keep = bool(view.get_int("keepdims", 1))
        nothing_means_nothing = bool(view.get_int("noop_with_empty_axes", 0))
        read_axes = view.integers("axes", 1)

        def run(*arguments: Tensor) -> Tensor:
            x, axes = arguments[0], read_axes(arguments)
            if not axes:
                if nothing_means_nothing:
                    return x
                axes = tuple(range(x.dim()))
            return function(x, axes, keep)

        return run

    return build


_REDUCTIONS: dict[str, Callable[[Tensor, tuple[int, ...], bool], Tensor]] = {
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keepdim=keep),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keepdim=keep),
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keepdim=keep),
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep),
    "ReduceL2": lambda x, axes, keep: x.square().sum(axes, keepdim=keep).sqrt(),
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keepdim=keep),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keepdim=keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: x.logsumexp(axes, keepdim=keep),
    "ReduceProd": lambda x, axes, keep: (
        reduce(lambda y, axis: y.prod(axis, keepdim=True), axes, x)
        if keep
        else reduce(lambda y, axis: y.prod(axis), sorted((axis % x.dim() for axis in axes), reverse=True), x)
    ),
}
for _name, _reduce in _REDUCTIONS.items():
    register(_name)(_reduction(_reduce))


@register("ArgMax", "ArgMin")
def _arg_max(view: NodeView) -> Kernel:
    axis, keep = view.get_int("axis", 0), bool(view.get_int("keepdims", 1))
    choose = torch.argmax if view.node.op_type == "ArgMax" else torch.argmin
    if view.get_int("select_last_index", 0):
        return lambda x: x.shape[axis] - 1 - choose(x.flip(axis), axis, keepdim=keep)
    return lambda x: choose(x, axis, keepdim=keep)
