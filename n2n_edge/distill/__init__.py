"""Training engine: an ONNX graph executed in torch, real data, and distillation from a teacher to a student."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from n2n_edge.distill.augmentation import augment, normalise
    from n2n_edge.distill.batches import subset
    from n2n_edge.distill.channels import ChannelScale, channel_scales
    from n2n_edge.distill.compute import native_bf16
    from n2n_edge.distill.corruptions import CORRUPTIONS, SEVERITIES, corrupted
    from n2n_edge.distill.data import Data, Split, load_data
    from n2n_edge.distill.evaluation import Evaluation, MetricName, evaluate, evaluate_onnx, metric_name, outputs_of
    from n2n_edge.distill.executor import GraphModule, load_student, write_back
    from n2n_edge.distill.losses import distillation_loss, normalised_error, tempered_kl
    from n2n_edge.distill.op_registry import OPS, UnsupportedOpError
    from n2n_edge.distill.outputs import (
        OutputKind,
        OutputsChoice,
        OutputsName,
        choose_outputs,
        class_count,
        output_kind,
    )
    from n2n_edge.distill.reconstruct import Kept, reconstructed
    from n2n_edge.distill.reports import EpochReport, StepReport
    from n2n_edge.distill.settings import DistillSettings
    from n2n_edge.distill.short import Judgement, ShortDistiller
    from n2n_edge.distill.teaching import affordable_epochs
    from n2n_edge.distill.torch_teachers import is_torch_teacher, torch_teacher
    from n2n_edge.distill.training import DistillResult, distill

__all__ = [
    "CORRUPTIONS",
    "OPS",
    "SEVERITIES",
    "ChannelScale",
    "Data",
    "DistillResult",
    "DistillSettings",
    "EpochReport",
    "Evaluation",
    "GraphModule",
    "Judgement",
    "Kept",
    "MetricName",
    "OutputKind",
    "OutputsChoice",
    "OutputsName",
    "ShortDistiller",
    "Split",
    "StepReport",
    "UnsupportedOpError",
    "affordable_epochs",
    "augment",
    "channel_scales",
    "choose_outputs",
    "class_count",
    "corrupted",
    "distill",
    "distillation_loss",
    "evaluate",
    "evaluate_onnx",
    "is_torch_teacher",
    "load_data",
    "load_student",
    "metric_name",
    "native_bf16",
    "normalise",
    "normalised_error",
    "output_kind",
    "outputs_of",
    "reconstructed",
    "subset",
    "tempered_kl",
    "torch_teacher",
    "write_back",
]

_HOMES = {
    "augmentation": (
        "augment",
        "normalise",
    ),
    "batches": ("subset",),
    "channels": (
        "ChannelScale",
        "channel_scales",
    ),
    "compute": ("native_bf16",),
    "corruptions": (
        "CORRUPTIONS",
        "SEVERITIES",
        "corrupted",
    ),
    "data": (
        "Data",
        "Split",
        "load_data",
    ),
    "evaluation": (
        "Evaluation",
        "MetricName",
        "evaluate",
        "evaluate_onnx",
        "metric_name",
        "outputs_of",
    ),
    "executor": (
        "GraphModule",
        "load_student",
        "write_back",
    ),
    "losses": (
        "distillation_loss",
        "normalised_error",
        "tempered_kl",
    ),
    "op_registry": (
        "OPS",
        "UnsupportedOpError",
    ),
    "outputs": (
        "OutputKind",
        "OutputsChoice",
        "OutputsName",
        "choose_outputs",
        "class_count",
        "output_kind",
    ),
    "reconstruct": (
        "Kept",
        "reconstructed",
    ),
    "reports": (
        "EpochReport",
        "StepReport",
    ),
    "settings": ("DistillSettings",),
    "short": (
        "Judgement",
        "ShortDistiller",
    ),
    "teaching": ("affordable_epochs",),
    "torch_teachers": (
        "is_torch_teacher",
        "torch_teacher",
    ),
    "training": (
        "DistillResult",
        "distill",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import a name when it is first used: data can be read, and files evaluated, without torch."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'n2n_edge.distill' has no attribute {name!r}")
    return getattr(import_module(f"n2n_edge.distill.{_HOME_OF[name]}"), name)
