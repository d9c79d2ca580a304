"""Timing of models in isolated workers, on this machine or a board, and the uncertainty of what they give."""

from n2n_edge.graph.model_file import file_size_bytes, is_ort, model_files
from n2n_edge.measure.bench import Bench, Throughput, WarmWorker, bench, run_throughput, twice, with_profile
from n2n_edge.measure.board import BoardState, environment, refuse_throttled, usable_cores
from n2n_edge.measure.comparison import Compared, Comparison, Standing, compare
from n2n_edge.measure.measurement import (
    ConnectionLostError,
    Measurement,
    MeasurementError,
    MeasurementWarning,
    Quantiles,
    summarise,
)
from n2n_edge.measure.options import BenchOptions, parse_providers
from n2n_edge.measure.per_op import Kernel, OpProfile
from n2n_edge.measure.ssh import SshAddress, SshTarget, open_target
from n2n_edge.measure.target import HostTarget, MemoryLimit, Target

__all__ = [
    "Bench",
    "BenchOptions",
    "BoardState",
    "Compared",
    "Comparison",
    "ConnectionLostError",
    "HostTarget",
    "Kernel",
    "Measurement",
    "MeasurementError",
    "MeasurementWarning",
    "MemoryLimit",
    "OpProfile",
    "Quantiles",
    "SshAddress",
    "SshTarget",
    "Standing",
    "Target",
    "Throughput",
    "WarmWorker",
    "bench",
    "compare",
    "environment",
    "file_size_bytes",
    "is_ort",
    "model_files",
    "open_target",
    "parse_providers",
    "refuse_throttled",
    "run_throughput",
    "summarise",
    "twice",
    "usable_cores",
    "with_profile",
]
