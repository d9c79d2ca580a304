"""Predicts real models on this machine after `device calibrate --host`, beside `bench` in the same run.

``python -m benchmarks.latency_prediction.host MODEL...`` from the repository's root, on an otherwise idle machine,
calibrates into a folder of its own and writes ``host.json`` and ``host.md``. Some eight minutes.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
from pathlib import Path

import numpy as np

from n2n_edge.calibration.calibrate import calibrate
from n2n_edge.calibration.own_profiles import profile_to_calibrate, save_calibrations
from n2n_edge.devices.registry import load_profile
from n2n_edge.graph.load import load_model
from n2n_edge.latency.prediction import predict_latency
from n2n_edge.measure.bench import bench
from n2n_edge.measure.board import environment
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.target import HostTarget

HERE = Path(__file__).parent
ROUNDS = 3
"""How often `bench` times every model, in random order: the median of its medians counts, as in the calibration."""


def main() -> None:
    """Calibrate, predict, time, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder, HostTarget() as target:
        os.environ["XDG_CONFIG_HOME"] = folder
        source = profile_to_calibrate(None, None)
        profile = source.profile
        counts = sorted({1, profile.default_threads})
        found = calibrate(target, profile, counts)
        save_calibrations(source, found.calibrations)
        profile = load_profile("cpu")
        medians: dict[tuple[Path, int], list[float]] = {}
        jobs = [(path, threads) for path in options.models for threads in counts]
        for round_ in range(ROUNDS):
            for path, threads in random.Random(round_).sample(jobs, len(jobs)):
                timed = bench(path, BenchOptions(threads=threads, max_time_s=2.0), profiled=False).measurement
                medians.setdefault((path, threads), []).append(timed.p50_ms)
        for path, threads in jobs:
            predicted = predict_latency(load_model(path), profile, threads)
            rows.append(
                {
                    "model": path.name,
                    "threads": threads,
                    "measured_ms": statistics.median(medians[path, threads]),
                    "rounds_ms": medians[path, threads],
                    **{f"predicted_{name}": getattr(predicted, name) for name in ("value", "low", "high")},
                }
            )
    pack = {str(count): dict(zip(("before", "now"), found.errors(count), strict=True)) for count in counts}
    document = {"environment": dict(environment()), "pack": pack, "models": rows}
    (HERE / "host.json").write_text(json.dumps(document, indent=1) + "\n")
    write_table(rows, pack, HERE / "host.md")


def write_table(rows: list[dict[str, object]], pack: dict[str, dict[str, float]], path: Path) -> None:
    """Write the comparison."""
    lines = ["| model | threads | measured, ms | predicted, ms | interval | error |", "| --- " * 6 + "|"]
    errors: dict[object, list[float]] = {}
    held = []
    for row in rows:
        measured, value, low, high = (float(row[name]) for name in _FIGURES)  # type: ignore[arg-type]
        error = value / measured - 1
        errors.setdefault(row["threads"], []).append(abs(error))
        held.append(low <= measured <= high)
        lines.append(
            f"| {row['model']} | {row['threads']} | {measured:.3g} | {value:.3g} | {low:.3g} to {high:.3g} "
            f"| {error:+.0%} |"
        )
    lines.append("")
    for threads, found in errors.items():
        of_pack = pack[str(threads)]
        lines.append(
            f"{threads} threads: median error {np.median(found):.1%} of {len(found)} models; of the pack's own models, "
            f"each by a fit without it, {of_pack['now']:.1%} (before the calibration {of_pack['before']:.0%})."
        )
    lines.append(f"Inside the interval: {sum(held)} of {len(held)}.")
    path.write_text("\n".join(lines) + "\n")


_FIGURES = ("measured_ms", "predicted_value", "predicted_low", "predicted_high")

if __name__ == "__main__":
    main()
