"""Do a network's times under one runtime tell those under another? Ratios on this host, by processor time.

python benchmarks/runtimes/transfer.py MODEL... --out benchmarks/runtimes/transfer.json

Processor time of one thread, the smallest of many runs in turns, is what a busy machine disturbs least.
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev

from benchmarks.runtimes.measure import RUNTIMES, kernel_models
from n2n_edge.errors import N2NError
from n2n_edge.measure.conversion import converted, reference
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.worker import RefusedError
from n2n_edge.measure.worker.runtimes import ENGINES, read_arrays

SECONDS = 4.0
LEAST_RUNS = 10
NINE_OF_TEN = 1.645

Row = dict[str, dict[str, object]]


def runs_of(model: Path, row: Row) -> dict[str, Callable[[], object]]:
    """Return what runs a model once under each runtime that it can be converted for; `row` gets why it can't."""
    runs: dict[str, Callable[[], object]] = {}
    with reference(model, BenchOptions()) as made:
        first = [array[0] for array in read_arrays(str(made.samples), "in")]
        for runtime in RUNTIMES:
            try:
                files = [model] if runtime == RUNTIMES[0] else converted(made, runtime).files
                runs[runtime] = ENGINES[runtime]([str(file) for file in files], 1).prepared(first)
                runs[runtime]()
            except (N2NError, RefusedError) as error:
                row[runtime] = {"error": str(error).split(": ", 1)[-1]}
    return runs


def timed(model: Path) -> Row:
    """Return the processor time of a run under each runtime, in ms: the smallest, and the first quartile."""
    row: Row = {}
    runs = runs_of(model, row)
    times: dict[str, list[float]] = {runtime: [] for runtime in runs}
    end = time.process_time() + SECONDS
    while time.process_time() < end or min(map(len, times.values())) < LEAST_RUNS:
        for runtime, run in runs.items():
            for _ in range(2):
                start = time.process_time()
                run()
                times[runtime].append((time.process_time() - start) * 1e3)
    for runtime, taken in times.items():
        taken.sort()
        row[runtime] = {"min_ms": taken[0], "low_ms": taken[len(taken) // 4], "n": len(taken)}
    return row


def spread(found: dict[str, Row], other: str) -> dict[str, float]:
    """Return the geometric mean of the ratios to ONNX Runtime, and the factor around it that holds nine of ten."""
    ratios = [
        math.log(float(str(row[other]["min_ms"])) / float(str(row[RUNTIMES[0]]["min_ms"])))
        for row in found.values()
        if all("min_ms" in row.get(runtime, {}) for runtime in (RUNTIMES[0], other))
    ]
    return {
        "networks": len(ratios),
        "mean_ratio": math.exp(fmean(ratios)),
        "nine_of_ten": math.exp(NINE_OF_TEN * stdev(ratios)),
    }


def main() -> None:
    """Write the results after each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("transfer.json"))
    given = parser.parse_args()
    found: dict[str, dict[str, Row]] = {"models": {}, "kernels": {}}
    with tempfile.TemporaryDirectory() as folder:
        for kind, models in (("models", given.models), ("kernels", kernel_models(Path(folder)))):
            for model in models:
                found[kind][model.stem] = timed(model)
                document = {**found, "spread": {other: spread(found["models"], other) for other in RUNTIMES[1:]}}
                given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
