"""How often a latency gate errs while other programs come and go.

``python -m benchmarks.gate.run [--equal 200] [--slower 60]`` from the repository's root writes ``results.json`` and
``results.md``; gates that are there are kept, so it can be stopped and started again. Each gate asks
``--max-regression latency_ms=5%`` of a chain of 40 equal convolutions, or of one with 10% more of them, against the
chain of 40, as ``n2n-edge gate --baseline`` does with one thread. Beside each the way of a plain loop: 100 runs of one
model, then 100 of the other, fail if the ratio of their means exceeds 1.05.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from benchmarks.measurement.differences import Load, by_naive_loop, write_model
from n2n_edge.gating.latency_ratio import LatencyRatio
from n2n_edge.gating.run import GateJob, gate_models
from n2n_edge.gating.settings import settings_of
from n2n_edge.gating.unanswered import Unanswered

HERE = Path(__file__).parent
LIMIT = "5%"
LAYERS = {"the same": 40, "10% slower": 44}


def by_gate(baseline: Path, model: Path) -> dict[str, object]:
    """Return what the gate says of the latency of `model` against `baseline`."""
    settings = settings_of(
        [("benchmark", {"baseline": baseline, "max_regression": f"latency_ms={LIMIT}", "threads": 1}, None)]
    )

    def no_images(*_: object) -> None:
        raise AssertionError("no accuracy is asked for")

    (gated,) = gate_models([GateJob(model, settings)], no_images)  # type: ignore[arg-type]
    check = next(check for check in gated.checks if isinstance(check, LatencyRatio | Unanswered))
    if isinstance(check, Unanswered):
        return {"outcome": check.outcome, "reason": check.reason}
    found, floor = check.comparison, check.floor
    return {
        "outcome": check.outcome,
        "ratio": found.ratio,
        "low": found.low,
        "high": found.high,
        "rounds": found.rounds,
        "floor": None if floor is None else [floor.low, floor.high],
    }


def main() -> None:
    """Fill in the gates that are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--equal", type=int, default=200, help="gates of a model against itself")
    parser.add_argument("--slower", type=int, default=60, help="gates of a slower model against it")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    options = parser.parse_args()
    rows = json.loads(options.out.read_text()) if options.out.exists() else {}
    counts = {"the same": options.equal, "10% slower": options.slower}
    with tempfile.TemporaryDirectory() as folder:
        models = {name: write_model(Path(folder) / f"{layers}.onnx", layers) for name, layers in LAYERS.items()}
        for repeat in range(max(counts.values())):
            with Load(repeat):
                for name, path in models.items():
                    key = f"{name} | {repeat}"
                    if repeat >= counts[name] or key in rows:
                        continue
                    start = time.perf_counter()
                    row = by_gate(models["the same"], path)
                    row["s"] = round(time.perf_counter() - start, 1)
                    row["naive_ratio"] = by_naive_loop(models["the same"], path)["ratio"]
                    rows[key] = row
            options.out.write_text(json.dumps(rows, indent=1) + "\n")
            write_table(rows, options.out.with_suffix(".md"))


def write_table(rows: dict[str, dict[str, object]], path: Path) -> None:
    """Write how often each way gave each verdict."""
    lines = ["| true change | way | gates | pass | fail | inconclusive | s a gate, median |", "| --- |" + " --- |" * 6]
    for name in LAYERS:
        found = [row for key, row in rows.items() if key.startswith(f"{name} | ")]
        if not found:
            continue
        seconds = sorted(float(row["s"]) for row in found)[len(found) // 2]  # type: ignore[arg-type]
        failed = [float(row["naive_ratio"]) > 1.05 for row in found]  # type: ignore[arg-type]
        for way, outcomes, time_s in (
            ("n2n-edge gate", [str(row["outcome"]) for row in found], f"{seconds:.0f}"),
            ("plain loop of 100", ["fail" if one else "pass" for one in failed], "0.4"),
        ):
            shares = [outcomes.count(outcome) for outcome in ("pass", "fail", "inconclusive")]
            cells = " | ".join(f"{count} ({count / len(found):.1%})" for count in shares)
            lines.append(f"| {name} | {way} | {len(found)} | {cells} | {time_s} |")
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
