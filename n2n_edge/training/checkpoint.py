"""The state of a distillation after an epoch, written so that a kill at any instant leaves a whole file."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from n2n_edge.data.dataset import Data
from n2n_edge.errors import InputError
from n2n_edge.training.executor import GraphModule
from n2n_edge.training.reports import EpochReport
from n2n_edge.training.settings import DistillSettings, Format

__all__ = ["Checkpoint", "fingerprint", "last_checkpoint", "load_checkpoint", "save_checkpoint"]


_DECIDES_NOTHING = ("threads", "precision", "device")
"""Settings that say how, not what, is calculated; the number format that comes of them does count."""


@dataclass(frozen=True)
class Checkpoint:
    """Where a distillation stands; `fingerprint` says which one it belongs to.

    `best` is what is kept so far, `highest` the highest metric that any epoch had. `optimiser` has momentum and the
    scale of float16's losses; the order of images follows from seed and epoch.
    """

    fingerprint: str
    epoch: int
    learned: dict[str, Tensor]
    optimiser: dict[str, Any]
    best: dict[str, Tensor]
    best_epoch: int
    best_validation: float
    highest: float
    history: tuple[EpochReport, ...]


def fingerprint(
    student: ir.Model,
    module: GraphModule,
    data: Data,
    settings: DistillSettings,
    number_format: Format,
    hints: Sequence[str],
) -> str:
    """Give a digest of what decides the result: student as it starts, settings, size of the data, names of hints."""
    digest = hashlib.sha256()
    chosen = {name: value for name, value in asdict(settings).items() if name not in _DECIDES_NOTHING}
    nodes = [(node.op_type, len(node.inputs)) for node in student.graph]
    sizes = (len(data.train), len(data.validation), data.input_shape, data.preprocessing)
    digest.update(repr((sorted(chosen.items()), number_format, nodes, sizes, tuple(hints))).encode())
    for name, tensor in sorted(module.learned().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint beside `path`, then put it in its place in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {name: _on_processor(getattr(checkpoint, name)) for name in Checkpoint.__dataclass_fields__}
    content["history"] = [asdict(report) for report in checkpoint.history]
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _on_processor(item: Any) -> Any:
    """Return tensors as the processor has them, so that any machine can read them."""
    if isinstance(item, Tensor):
        return item.detach().cpu()
    if isinstance(item, dict):
        return {key: _on_processor(value) for key, value in item.items()}
    return [_on_processor(value) for value in item] if isinstance(item, list) else item


def load_checkpoint(path: Path, expected: str) -> Checkpoint | None:
    """Read the checkpoint of the distillation with this fingerprint, None where there is none yet.

    Raises InputError for a file that isn't a checkpoint, or belongs to another distillation.
    """
    if not path.exists():
        return None
    checkpoint = last_checkpoint(path)
    if checkpoint.fingerprint != expected:
        raise InputError(f"checkpoint '{path}' belongs to another student, data or settings: remove it to start anew")
    return checkpoint


def last_checkpoint(path: Path) -> Checkpoint:
    """Read the checkpoint there, on the processor; raises InputError for a file that isn't one."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        content["history"] = tuple(EpochReport(**report) for report in content["history"])
        return Checkpoint(**content)
    except Exception as error:
        raise InputError(
            f"checkpoint '{path}' can't be read ({type(error).__name__}): remove it to start anew"
        ) from error
