"""Rates of a board that nobody timed, from one fit over all boards that somebody did.

`benchmarks/latency_prediction` wrote ``pool.json`` beside this file; docs/prediction.md tells the method and how well
it holds for boards that were left out.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from n2n_edge.devices.profile import Calibration, Profile
from n2n_edge.devices.terms import TERMS, Rates
from n2n_edge.latency.data_sheet import data_sheet_rates
from n2n_edge.metrics.precisions import Precision

__all__ = ["FEATURES", "GROUPS", "POOLED", "Pooled", "features_of", "group_of", "pooled", "reference_terms"]

GROUPS = ("mac", "byte", "launch")
FEATURES = ("threads", "surplus", "clock", "bandwidth", "width")

POOLED = "all-boards"
"""What the evidence of a pooled prediction names as the timed device."""

_FILE = Path(__file__).with_name("pool.json")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pooled:
    """Rates from the pool, the evidence for them, their precision, and whether boards with the core were in."""

    rates: Rates
    evidence: Calibration
    precision: Precision
    core_known: bool
    boards: int


def group_of(term: str) -> str:
    """Return the kind of a term: ``mac``, ``byte`` or ``launch``."""
    kind = term.split("_")[0]
    return kind if kind in GROUPS else "mac"


def features_of(profile: Profile, threads: int) -> Floats:
    """Return a device's features, as logarithms, in the order of `FEATURES`.

    Threads, how many more than by default (slower cores then), clock, bandwidth, and arithmetic a cycle and core.
    """
    gpu = profile.compute_unit == "gpu"
    cycle = profile.peak_gflops * 1000 / profile.clock_mhz / (100 if gpu else profile.default_threads)
    logarithms: Floats = np.log(
        [
            1.0 if gpu else threads,
            1.0 if gpu else max(threads / profile.default_threads, 1.0),
            profile.clock_mhz / (800.0 if gpu else 1800.0),
            profile.bandwidth_gb_s / 15.0,
            cycle / 8.0,
        ]
    )
    return logarithms


def pooled(profile: Profile, threads: int, precision: Precision) -> Pooled:
    """Return the rates that the pool gives a device, in `precision` or in the one that boards with its core have."""
    kind = _kind(profile, precision)
    pool = _pools()[kind]
    told: Precision = "fp32" if kind == "gpu" else kind
    sheet = data_sheet_rates(profile, threads, told)
    by_group = dict(zip(GROUPS, np.array(pool["features"]) @ features_of(profile, threads), strict=True))
    core = pool["cores"].get(profile.core)
    shift = dict(zip(TERMS, core or [0.0] * len(TERMS), strict=True))
    common = dict(zip(TERMS, pool["terms"], strict=True))
    rates = {term: sheet[term] * float(np.exp(common[term] + by_group[group_of(term)] + shift[term])) for term in TERMS}
    found = pool["core_known" if core is not None else "core_unknown"]
    evidence = Calibration(
        measured_on=POOLED,
        runtime="ncnn, Vulkan" if kind == "gpu" else "ncnn",
        threads=threads,
        precisions=("fp32", "fp16") if kind == "gpu" else (told,),
        models=pool["models"],
        median_error=found["median_error"],
        p90_error=found["p90_error"],
        low_ratio=found["low_ratio"],
        high_ratio=found["high_ratio"],
        macs=tuple(pool["macs"]),
        input_pixels=tuple(pool["input_pixels"]),
        source=pool["source"],
        rates=rates,
    )
    return Pooled(rates, evidence, told, core is not None, pool["boards"])


def reference_terms() -> Floats:
    """Return the terms of usual networks, `(networks, terms)`: those of the boards' table."""
    return np.array(_pools()["reference"], dtype=float)


def _kind(profile: Profile, precision: Precision) -> Any:
    """Return which pool speaks for a device: of floats, the one in which boards with its core are."""
    if profile.compute_unit == "gpu":
        return "gpu"
    if precision == "fp16" and profile.peak_fp16_gflops is None:
        precision = "fp32"
    other = {"fp32": "fp16", "fp16": "fp32"}.get(precision)
    if other is None or profile.core in _pools()[precision]["cores"] or profile.core not in _pools()[other]["cores"]:
        return precision
    return other


@cache
def _pools() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    return found
