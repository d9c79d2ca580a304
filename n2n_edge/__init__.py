"""n2n-edge: make a trained neural network fit a real embedded board.

>>> from n2n_edge import Teacher, build, costs
>>> teacher = Teacher.load(example_teacher)
>>> costs(build(teacher, teacher.full.resize("g3", 24))).params < costs(teacher.model).params
True
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

# Builds of ONNX Runtime report usage over the network unless told otherwise before their import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Torch's worker threads wait for each other by spinning; where another program wants the core too, that makes training
# many times slower. Sleep soon instead. Has to be set before torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

if TYPE_CHECKING:
    from n2n_edge.calibration.timings import Timing, parse_timing, with_timings
    from n2n_edge.data.preprocessing import Preprocessing
    from n2n_edge.devices.profile import Profile
    from n2n_edge.devices.registry import load_profile
    from n2n_edge.errors import N2NError
    from n2n_edge.gating.check import Gated
    from n2n_edge.graph.architecture import Architecture
    from n2n_edge.graph.costs import Costs, costs
    from n2n_edge.graph.groups import ChannelGroup
    from n2n_edge.graph.layers import Layer
    from n2n_edge.graph.op import Op, Weight, counted_op, register_op
    from n2n_edge.graph.teacher import Teacher, build
    from n2n_edge.latency.estimate import Estimate
    from n2n_edge.latency.predict import predict
    from n2n_edge.measure.bench import bench
    from n2n_edge.measure.measurement import Measurement
    from n2n_edge.measure.options import BenchOptions
    from n2n_edge.measure.ssh import SshTarget
    from n2n_edge.measure.target import HostTarget
    from n2n_edge.metrics.budget import Budget
    from n2n_edge.metrics.figures import Figure
    from n2n_edge.metrics.verdict import Verdict
    from n2n_edge.quantize.undo import dequantize
    from n2n_edge.runs.callbacks import RunCallback
    from n2n_edge.runs.export import Export, Exported, export
    from n2n_edge.runs.front import RunTrial
    from n2n_edge.runs.gate import gate
    from n2n_edge.runs.inspection import Inspection, inspect
    from n2n_edge.runs.quantization import quantize_model
    from n2n_edge.runs.quantization_report import QuantizationReport
    from n2n_edge.runs.run import Run, compress
    from n2n_edge.runs.settings import CompressSettings
    from n2n_edge.runs.shipping_several import NotShippedError
    from n2n_edge.search.trial import Trial
    from n2n_edge.tasks.conformance import check_task
    from n2n_edge.tasks.losses import LabelLoss
    from n2n_edge.tasks.metrics import Evaluation
    from n2n_edge.tasks.task import JoinedTask, Meter, Task
    from n2n_edge.training.distillation import distill
    from n2n_edge.training.executor import load_student
    from n2n_edge.training.settings import DistillSettings

    __version__: str

__all__ = [
    "Architecture",
    "BenchOptions",
    "Budget",
    "ChannelGroup",
    "CompressSettings",
    "Costs",
    "DistillSettings",
    "Estimate",
    "Evaluation",
    "Export",
    "Exported",
    "Figure",
    "Gated",
    "HostTarget",
    "Inspection",
    "JoinedTask",
    "LabelLoss",
    "Layer",
    "Measurement",
    "Meter",
    "N2NError",
    "NotShippedError",
    "Op",
    "Preprocessing",
    "Profile",
    "QuantizationReport",
    "Run",
    "RunCallback",
    "RunTrial",
    "SshTarget",
    "Task",
    "Teacher",
    "Timing",
    "Trial",
    "Verdict",
    "Weight",
    "__version__",
    "bench",
    "build",
    "check_task",
    "compress",
    "costs",
    "counted_op",
    "dequantize",
    "distill",
    "export",
    "gate",
    "inspect",
    "load_profile",
    "load_student",
    "parse_timing",
    "predict",
    "quantize_model",
    "register_op",
    "with_timings",
]

_HOMES = {
    "data.preprocessing": ("Preprocessing",),
    "devices.profile": ("Profile",),
    "calibration.timings": ("Timing", "parse_timing", "with_timings"),
    "devices.registry": ("load_profile",),
    "errors": ("N2NError",),
    "graph.architecture": ("Architecture",),
    "graph.costs": (
        "Costs",
        "costs",
        "counted_op",
    ),
    "graph.groups": ("ChannelGroup",),
    "graph.layers": ("Layer",),
    "graph.op": ("Op", "Weight", "counted_op", "register_op"),
    "graph.teacher": (
        "Teacher",
        "build",
    ),
    "measure.bench": ("bench",),
    "measure.measurement": ("Measurement",),
    "measure.options": ("BenchOptions",),
    "metrics.budget": ("Budget",),
    "metrics.figures": ("Figure",),
    "metrics.verdict": ("Verdict",),
    "runs.callbacks": ("RunCallback",),
    "runs.export": ("Export", "Exported", "export"),
    "runs.front": ("RunTrial",),
    "search.trial": ("Trial",),
    "runs.run": ("Run", "compress"),
    "runs.quantization": ("quantize_model",),
    "runs.quantization_report": ("QuantizationReport",),
    "runs.settings": ("CompressSettings",),
    "runs.shipping_several": ("NotShippedError",),
    "gating.check": ("Gated",),
    "latency.predict": ("predict",),
    "latency.estimate": ("Estimate",),
    "measure.ssh": ("SshTarget",),
    "measure.target": ("HostTarget",),
    "runs.gate": ("gate",),
    "runs.inspection": (
        "Inspection",
        "inspect",
    ),
    "quantize.undo": ("dequantize",),
    "training.distillation": ("distill",),
    "training.settings": ("DistillSettings",),
    "training.executor": ("load_student",),
    "tasks.conformance": ("check_task",),
    "tasks.losses": ("LabelLoss",),
    "tasks.metrics": ("Evaluation",),
    "tasks.task": ("JoinedTask", "Meter", "Task"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that ``import n2n_edge`` costs nothing and needs no torch."""
    if name == "__version__":  # looking for it takes as long as everything else that the command does before its help
        from n2n_edge.versions import own_version

        return own_version()
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'n2n_edge' has no attribute {name!r}")
    return getattr(import_module(f"n2n_edge.{home}"), name)
