"""Medians beside those of ONNX Runtime's own way of timing, the sum over operators, and three kinds of memory.

``python -m benchmarks.measurement.agreement MODEL...`` from the repository's root writes ``agreement.json`` and
``agreement.md``. ``onnxruntime_perf_test`` isn't in the Python package: its way (inputs made once, one run to warm up,
a clock around each run) is repeated by `perf_loop.c` with the same session options through the same library's C
interface, in turns with n2n-edge's.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

import onnxruntime

from n2n_edge.graph.costs import costs
from n2n_edge.graph.load import load_model
from n2n_edge.graph.shape_run import DEFAULT_SPATIAL_SIZE
from n2n_edge.measure.bench import bench
from n2n_edge.measure.options import BenchOptions
from n2n_edge.metrics.figures import MB

HERE = Path(__file__).parent
TURNS = 5
TYPES = {"tensor(float)": "float", "tensor(int8)": "int8"}


def build_loop(folder: Path) -> Path:
    """Compile the C program against the library inside the Python package."""
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    program = folder / "perf_loop"
    (folder / "libonnxruntime.so.1").symlink_to(library)  # the name that a program looks for when it starts
    command = ["cc", "-O2", "-o", program, HERE / "perf_loop.c", library, f"-Wl,-rpath,{folder}"]
    subprocess.run(command, check=True)
    return program


def by_perf_loop(program: Path, model: Path, threads: int) -> float:
    """Return the median (ms) of two seconds of runs in C, in a process of its own."""
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, quiet, providers=["CPUExecutionProvider"])
    outputs = ",".join(value.name for value in session.get_outputs())
    inputs = []
    for value in session.get_inputs():
        sizes = [
            size if isinstance(size, int) else DEFAULT_SPATIAL_SIZE if axis else 1
            for axis, size in enumerate(value.shape)
        ]
        inputs.append(f"{value.name}:{TYPES[value.type]}:" + ",".join(map(str, sizes)))
    command = [program, model, str(threads), "2", outputs, *inputs]
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    return float(subprocess.run(command, capture_output=True, check=True, env=environment).stdout)


def main() -> None:
    """Measure every model and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    file = HERE / "agreement.json"
    rows = json.loads(file.read_text()) if file.exists() else {}
    program = build_loop(Path(tempfile.mkdtemp()))
    for path in options.models:
        ours, theirs = [], []
        for _ in range(TURNS):
            found = bench(path, BenchOptions(threads=options.threads, min_time_s=2.0))
            ours.append(found.measurement.p50_ms)
            theirs.append(by_perf_loop(program, path, options.threads))
        measured, profile = found.measurement, found.profile
        assert profile is not None
        rows[path.name] = {
            "n2n_edge_ms": statistics.median(ours),
            "perf_test_ms": statistics.median(theirs),
            "ratios": [own / other for own, other in zip(ours, theirs, strict=True)],
            "kernels": len(profile.kernels),
            "kernels_ms": sum(kernel.latency_ms for kernel in profile.kernels),
            "profiled_run_ms": profile.run_ms,
            "plain_run_ms": profile.plain_ms,
            "overhead_us": profile.overhead_us,
            "memory_bound_mb": costs(load_model(path)).memory_bound_bytes / MB,
            "arena_mb": None if measured.arena_bytes is None else measured.arena_bytes / MB,
            "arena_in_use_mb": None if measured.arena_in_use_bytes is None else measured.arena_in_use_bytes / MB,
            "rss_growth_mb": None if measured.rss_growth_bytes is None else measured.rss_growth_bytes / MB,
        }
        print(path.name, rows[path.name], flush=True)
        file.write_text(json.dumps(rows, indent=1) + "\n")
    write_tables(rows)


def write_tables(rows: dict[str, dict[str, float]]) -> None:
    """Write times and memory as two tables."""
    lines = [
        "| model | n2n-edge, ms | perf_test's way, ms | ratio | kernels | profiled run, ms | profiler's us a kernel "
        "| kernels' sum of a plain run |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in rows.items():
        lines.append(
            f"| {name} | {row['n2n_edge_ms']:.3f} | {row['perf_test_ms']:.3f} | "
            f"{row['n2n_edge_ms'] / row['perf_test_ms']:.3f} | {row['kernels']} | {row['profiled_run_ms']:.3f} | "
            f"{row['overhead_us']:.1f} | {row['kernels_ms'] / row['plain_run_ms']:.0%} |"
        )
    lines += [
        "",
        "| model | memory bound, MB | arena, MB | in use at most, MB | RSS growth, MB |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, row in rows.items():
        cells = [row[key] for key in ("memory_bound_mb", "arena_mb", "arena_in_use_mb", "rss_growth_mb")]
        lines.append(
            f"| {name} | " + " | ".join("not told" if cell is None else f"{cell:.2f}" for cell in cells) + " |"
        )
    (HERE / "agreement.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
