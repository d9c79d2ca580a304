"""Does a network's time on this host say more of a board than its kernels do? Judged on networks left out.

``python -m benchmarks.latency_prediction.host_transfer DATA`` from the repository's root, on an idle machine, times
ncnn's networks here with ONNX Runtime and writes ``host_transfer.json`` and ``host_transfer.md``. Some three minutes.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.latency_prediction.classifiers import CLASSIFIERS
from benchmarks.latency_prediction.detectors import DETECTORS
from benchmarks.latency_prediction.fit import start_of, terms_of, values_of
from benchmarks.latency_prediction.judge import judge
from benchmarks.latency_prediction.tables import read_ncnn
from n2n_edge.calibration.fitting import leave_out
from n2n_edge.graph.load import save_model
from n2n_edge.measure.bench import WarmWorker
from n2n_edge.measure.measurement import MeasurementError
from n2n_edge.measure.options import BenchOptions

HERE = Path(__file__).parent
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of the host's time in the geometric mean of both predictors: 0 is the kernels alone, 1 the host alone."""


def main() -> None:
    """Time, mix, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    options = parser.parse_args()
    file = HERE / "host_transfer.json"
    times = json.loads(file.read_text())["host_ms"] if file.exists() else time_networks()
    lines = ["| table | " + " | ".join(_NAMES) + " |", "| --- " * (len(_NAMES) + 1) + "|"]
    judged: dict[str, dict[str, float]] = {}
    for table in read_ncnn(options.data / "ncnn.csv"):
        if "Vulkan" in table.runtime or table.precision == "int8":
            continue
        guess, stiffness = start_of(table, {})
        known = [index for index, row in enumerate(table.rows) if row.model in times]
        errors = leave_out(terms_of(table.rows), values_of(table.rows), guess, stiffness=stiffness)[known]
        values = values_of(table.rows)[known]
        threads = "1" if table.threads == 1 else "2"
        ratios = np.log([times[table.rows[index].model][threads] for index in known]) - np.log(values)
        by_host = np.array([ratios[i] - np.median(np.delete(ratios, i)) for i in range(len(ratios))])
        found = [judge((1 - weight) * errors + weight * by_host, values) for weight in WEIGHTS]
        judged[table.key] = {name: round(each.median_error, 4) for name, each in zip(_NAMES, found, strict=True)}
        cells = [f"{each.median_error:.1%}, {each.p90_error:.0%}" for each in found]
        lines.append(f"| {table.key.replace('latency, ', '')} | " + " | ".join(cells) + " |")
    means = [np.mean([row[name] for row in judged.values()]) for name in _NAMES]
    lines += ["| mean of the medians | " + " | ".join(f"{mean:.1%}" for mean in means) + " |", ""]
    lines.append("Median and p90 error of networks left out; the host's one scalar is fitted without them, too.")
    file.write_text(json.dumps({"host_ms": times, "median_error": judged}, indent=1) + "\n")
    (HERE / "host_transfer.md").write_text("\n".join(lines) + "\n")


def time_networks() -> dict[str, dict[str, float]]:
    """Return ms of each of ncnn's networks here, with 1 and 2 threads; what the runtime can't run is left out."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder, WarmWorker() as worker:
        for name, make in {**CLASSIFIERS, **DETECTORS}.items():
            model = make()
            last = model.graph[-1]
            if last.domain == "ncnn":  # picks boxes: give what it reads
                values = [value for value in last.inputs if value is not None]
                model.graph.outputs[:] = values
                model.graph.remove(last, safe=True)
            path = Path(folder) / f"{name}.onnx"
            save_model(model, path)
            try:
                found[name] = {
                    str(threads): worker.measure(path, BenchOptions(threads=threads, max_time_s=3.0)).p50_ms
                    for threads in (1, 2)
                }
            except MeasurementError as error:
                print(f"{name}: {error}")
            path.unlink()
    return found


_NAMES = tuple({0.0: "kernels alone", 1.0: "host alone"}.get(weight, f"{weight:.0%} host") for weight in WEIGHTS)

if __name__ == "__main__":
    main()
