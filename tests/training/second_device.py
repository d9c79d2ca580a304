"""A second device on machines that have none: tensors that say they are elsewhere, and refuse to meet others."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

__all__ = ["DEVICE", "MixedDevicesError", "second_device"]

DEVICE = torch.device("meta")
"""Stands for a GPU: the one device beside the processor that every build of torch has."""

_READS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default}
_COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}


class MixedDevicesError(AssertionError):
    """An operator was given tensors of two devices."""


class Remote(Tensor):
    """A tensor of the second device; what it holds lies on the processor all the same."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Remote":
        made: Remote = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=DEVICE, requires_grad=inner.requires_grad,
        )  # fmt: skip
        made.inner = inner
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Remote({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _inner(item: Any) -> Any:
    return item.inner if isinstance(item, Remote) else item


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [item for item in tree_iter((args, kwargs)) if isinstance(item, Tensor)]
    remote = [item for item in tensors if isinstance(item, Remote)]
    local = [item for item in tensors if not isinstance(item, Remote)]
    if remote and local and func not in _COPIES and any(item.dim() for item in local):
        raise MixedDevicesError(
            f"{func} on {[tuple(t.shape) for t in remote]} there, {[tuple(t.shape) for t in local]} here"
        )
    wanted = kwargs.get("device")
    there = bool(remote) if wanted is None else torch.device(wanted) == DEVICE
    if func is torch.ops.aten.copy_.default:
        there = isinstance(args[0], Remote)
    inner_args, inner_kwargs = tree_map(_inner, args), tree_map(_inner, kwargs)
    if wanted is not None:
        inner_kwargs["device"] = torch.device("cpu")
    result = func(*inner_args, **inner_kwargs)
    if func in _READS or not there:
        return result
    wrappers = {id(item.inner): item for item in remote}  # what is changed in place stays itself

    def wrapped(item: Any) -> Any:
        return item if not isinstance(item, Tensor) else wrappers[id(item)] if id(item) in wrappers else Remote(item)

    return tree_map(wrapped, result)


class _Mode(TorchDispatchMode):
    """Makes tensors of the second device where they are asked for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


@contextmanager
def second_device() -> Iterator[torch.device]:
    """Let tensors be made on, and moved to, the second device; an operator that meets both devices raises."""
    with _Mode():
        yield DEVICE
