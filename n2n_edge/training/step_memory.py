"""Memory of a training step, foreseen from what autograd saves, and how many images go through at once."""

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import psutil
import torch
from torch import Tensor

from n2n_edge.data.dataset import Data
from n2n_edge.graph.costs import costs
from n2n_edge.tasks.outputs import as_tuple
from n2n_edge.training.batches import evaluation_batches
from n2n_edge.training.compute import Engine

__all__ = ["StepMemory", "free_bytes", "images_at_once", "step_memory"]

_FEW, _MORE = 2, 4
"""Images in the two passes whose difference is what one more image takes; BatchNorm needs two at least."""

_COPIES = 5
"""Float32 copies of a student's weights: themselves, gradients, momentum, the best so far, and the one before."""

_GRADIENTS = 2
"""Gradients of the largest activation that are alive at a time on the way back."""

_ROOM = 1.3
"""What the allocator holds in all, in units of what is alive: pieces between large buffers, room of kernels."""

_LEAST = 2

_CPU_BYTES = 1_200_000_000
"""What a step may take on a processor, where larger batches train no faster."""

_CPU_SHARE, _GPU_SHARE = 1 / 3, 0.8
"""Parts of the free memory that a step may take: a processor's is for the images, the search and others, too."""

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class StepMemory:
    """Peak memory of a step: `fixed_bytes` whatever the batch, and `image_bytes` for every image at once."""

    fixed_bytes: int
    image_bytes: int

    def of(self, images: int) -> int:
        """Return the bytes that a step with so many images at once takes."""
        return self.fixed_bytes + images * self.image_bytes


class _Saved:
    """Counts what autograd saves in a forward pass, each storage once, and the largest of it."""

    def __init__(self, weights: set[int]) -> None:
        self._seen = weights
        self.bytes, self.largest = 0, 0

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
            self.largest = max(self.largest, storage.nbytes())
        return tensor


def step_memory(student: ir.Model, teacher: ir.Model, data: Data, engine: Engine) -> StepMemory:
    """Return what a step of training `student` towards `teacher` takes in the engine's number format.

    What autograd saves is counted in two small forward passes; on the way back gradients join it. The teacher's live
    activations come from its graph (`Costs`).
    """
    module = engine.module(student)
    module.train()
    known = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())}
    images = engine.moved(next(evaluation_batches(data, data.train, _MORE)).inputs)
    images = torch.cat([images] * -(-_MORE // len(images)))
    passes = []
    for count in (_FEW, _MORE):
        saved = _Saved(set(known))
        with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor), engine.autocast():
            outputs = as_tuple(module(images[:count].clone()))
        del outputs
        passes.append(saved)
    each = (passes[1].bytes - passes[0].bytes) / (_MORE - _FEW)
    largest = passes[1].largest / _MORE
    counted = costs(teacher)
    alive = max(0, counted.memory_bound_bytes - 4 * counted.params)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in module.parameters())
    fixed = _COPIES * weights + 4 * counted.params
    return StepMemory(int(fixed), int(_ROOM * (each + _GRADIENTS * largest + alive)) + 1)


def free_bytes(device: torch.device) -> int:
    """Return the memory that is free on a device: of a processor, what the machine and its control group leave."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    try:
        limit = (_CGROUP / "memory.max").read_text(encoding="utf-8").strip()
        used = int((_CGROUP / "memory.current").read_text(encoding="utf-8"))
        cache = next(
            int(line.split()[1])
            for line in (_CGROUP / "memory.stat").read_text(encoding="utf-8").splitlines()
            if line.startswith("inactive_file ")
        )
    except (OSError, ValueError, StopIteration):
        return free
    return free if limit == "max" else min(free, max(0, int(limit) - used + cache))


def images_at_once(memory: StepMemory, batch_size: int, device: torch.device) -> int:
    """Return how many images of a batch go through at once: all of it halved until a step fits into free memory."""
    free = free_bytes(device)
    limit = _GPU_SHARE * free if device.type == "cuda" else min(_CPU_BYTES, _CPU_SHARE * free)
    images = batch_size
    while images > _LEAST and memory.of(images) > limit:
        images = -(-images // 2)
    return images
