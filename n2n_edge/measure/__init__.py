"""Timing one model in an isolated worker, and what the numbers are worth."""

from n2n_edge.measure.bench import WarmWorker, bench, file_size_bytes
from n2n_edge.measure.environment import environment, usable_cores
from n2n_edge.measure.measurement import Measurement, MeasurementError, Quantiles, summarise

__all__ = [
    "Measurement",
    "MeasurementError",
    "Quantiles",
    "WarmWorker",
    "bench",
    "environment",
    "file_size_bytes",
    "summarise",
    "usable_cores",
]
