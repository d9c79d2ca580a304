"""False alarms and missed slowdowns of three ways to compare two models, while other programs come and go.

``python -m benchmarks.measurement.differences [--repeats 60]`` from the repository's root writes
``differences.json`` and ``differences.md``; repeats that are there are kept. Each repeat times the same pair in three
ways one after the other: n2n-edge's comparison, a loop of 100 runs of one model and then of the other, and the way of
hyperfine: one command after the other, warmed up, for two seconds each. Whoever says that the ratio exceeds 5%
reports a difference.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from n2n_edge.measure.comparison import compare
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.target import HostTarget

HERE = Path(__file__).parent
THRESHOLD = 0.05
LAYERS = {"the same": 40, "5% slower": 42, "10% slower": 44}
BURN = "import numpy as np\na = np.ones((700, 700), np.float32)\nwhile True:\n    a @ a\n"
MEAN_SPELL_S = 3.0
ONE_COMMAND = """
import json, sys, time
from benchmarks.measurement.differences import session, timed
run = session(sys.argv[1])
for _ in range(3):
    run()
samples, end = [], time.perf_counter() + 2.0
while time.perf_counter() < end:
    samples += timed(run, 1)
print(json.dumps(samples))
"""


class Load:
    """Other programs: nought to two of them at a time, each spell of random length, from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._come_and_go, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _come_and_go(self) -> None:
        while not self._over.is_set():
            burners = [
                subprocess.Popen([sys.executable, "-c", BURN], env={"OPENBLAS_NUM_THREADS": "1"})
                for _ in range(self._random.choice((0, 0, 1, 2)))
            ]
            self._over.wait(self._random.expovariate(1 / MEAN_SPELL_S))
            for burner in burners:
                burner.kill()
                burner.wait()


def write_model(path: Path, layers: int) -> Path:
    """Write a chain of equal 3x3 convolutions on (1, 16, 32, 32), so that layers are proportional to time."""
    generator = np.random.default_rng(0)
    nodes, weights, value = [], [], "x"
    for layer in range(layers):
        weight = (generator.standard_normal((16, 16, 3, 3)) / 12).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{layer}"))
        nodes.append(helper.make_node("Conv", [value, f"w{layer}"], [f"c{layer}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]))
        value = f"r{layer}"
    shape = [1, 16, 32, 32]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def session(path: str):  # type: ignore[no-untyped-def]
    """Return a function that runs a model once, with the same options that n2n-edge uses."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    opened = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 16, 32, 32)).astype(np.float32)}
    return lambda: opened.run(None, feeds)


def timed(run, count: int) -> list[float]:  # type: ignore[no-untyped-def]
    """Return the seconds of so many runs."""
    samples = []
    for _ in range(count):
        start = time.perf_counter()
        run()
        samples.append(time.perf_counter() - start)
    return samples


def by_naive_loop(first: Path, second: Path) -> dict[str, object]:
    """Compare the means of 100 runs each, one model after the other, in this process."""
    means = [statistics.mean(timed(session(str(path)), 100)) for path in (first, second)]
    return _judged(means[1] / means[0])


def by_sequential_commands(first: Path, second: Path) -> dict[str, object]:
    """Compare the means of two seconds each, one command after the other."""
    means = []
    for path in (first, second):
        done = subprocess.run(
            [sys.executable, "-c", ONE_COMMAND, str(path)], capture_output=True, check=True, cwd=HERE.parents[1]
        )
        means.append(statistics.mean(json.loads(done.stdout)))
    return _judged(means[1] / means[0])


def by_n2n_edge(first: Path, second: Path) -> dict[str, object]:
    """Compare as ``n2n-edge bench first second --threads 1`` does."""
    found = compare([first, second], BenchOptions(threads=1), HostTarget(), threshold=THRESHOLD).comparisons[1]
    assert found is not None
    return {
        "ratio": found.ratio,
        "low": found.low,
        "high": found.high,
        "rounds": found.rounds,
        "verdict": found.verdict,
    }


WAYS = {
    "n2n-edge": by_n2n_edge,
    "naive loop of 100": by_naive_loop,
    "one command after the other": by_sequential_commands,
}


def _judged(ratio: float) -> dict[str, object]:
    verdict = "slower" if ratio > 1 + THRESHOLD else "faster" if ratio < 1 / (1 + THRESHOLD) else "same"
    return {"ratio": ratio, "verdict": verdict}


def main() -> None:
    """Fill in the repeats that are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=60, help="of a model against itself")
    parser.add_argument("--slower-repeats", type=int, default=40, help="of a model against a slower one")
    parser.add_argument("--out", type=Path, default=HERE / "differences.json")
    options = parser.parse_args()
    rows = json.loads(options.out.read_text()) if options.out.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        models = {name: write_model(Path(folder) / f"{layers}.onnx", layers) for name, layers in LAYERS.items()}
        if "quiet" not in rows:
            rows["quiet"] = {name: by_n2n_edge(models["the same"], path) for name, path in models.items()}
        for repeat in range(options.repeats):
            with Load(repeat):
                for name, path in models.items():
                    if name != "the same" and repeat >= options.slower_repeats:
                        continue
                    for way, judge in WAYS.items():
                        key = f"{way} | {name} | {repeat}"
                        if key not in rows:
                            start = time.perf_counter()
                            rows[key] = {**judge(models["the same"], path), "s": round(time.perf_counter() - start, 2)}
            options.out.write_text(json.dumps(rows, indent=1) + "\n")
            write_table(rows, options.out.with_suffix(".md"))


def write_table(rows: dict[str, dict[str, object]], path: Path) -> None:
    """Write how often each way gave each verdict."""
    lines = [
        "| true change | way | repeats | same | slower | faster | inconclusive | ratio, 5th to 95th percentile "
        "| s a repeat |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in LAYERS:
        for way in WAYS:
            found = [row for key, row in rows.items() if key.startswith(f"{way} | {name} | ")]
            if not found:
                continue
            counts = [sum(row["verdict"] == verdict for row in found) for verdict in ("same", "slower", "faster")]
            unsure = len(found) - sum(counts)
            ratios = np.quantile([float(row["ratio"]) for row in found], [0.05, 0.95])  # type: ignore[arg-type]
            seconds = statistics.median(float(row["s"]) for row in found)  # type: ignore[arg-type]
            shares = " | ".join(f"{count} ({count / len(found):.0%})" for count in (*counts, unsure))
            lines.append(
                f"| {name} | {way} | {len(found)} | {shares} | {ratios[0]:.3f} to {ratios[1]:.3f} | {seconds:.1f} |"
            )
    quiet = rows.get("quiet", {})
    said = [f"{name}: {row['ratio']:.3f} ({row['low']:.3f} to {row['high']:.3f})" for name, row in quiet.items()]  # type: ignore[index]
    lines += ["", "On the quiet machine n2n-edge says: " + "; ".join(said)]
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
