"""What a candidate of a search costs before anything is trained: `build()` against exporting it from torch.

For a CIFAR ResNet-56, in one process and in turns: `build()`, serialisation and an ONNX Runtime session for a random
architecture, against `torch.onnx.export` of an equal torch module with both exporters. Writes ``results.json``.
"""

import argparse
import io
import json
import os
import platform
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from resnet import CifarResNet

from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.costs import costs
from n2n_edge.graph.load import serialize
from n2n_edge.graph.teacher import Teacher, build

HERE = Path(__file__).parent
GOALS = {"torch_dynamo": 100, "torchscript": 20, "torchscript_one_thread": None}
"""How many times faster a candidate should be; where torch is held to one thread, its exporter is quicker."""

STEPS = ("build", "serialise", "session", "candidate", *GOALS)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="exports with each exporter")
    parser.add_argument("--candidates", type=int, default=20, help="candidates per round")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    options = parser.parse_args()
    torch.manual_seed(0)
    module = CifarResNet().eval()
    teacher = teacher_of(module)
    check_equal(module, teacher)
    chooser = random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in STEPS}
    for _ in range(options.rounds):
        times["torchscript"].append(timed(lambda: export(module, dynamo=False)))
        times["torchscript_one_thread"].append(timed(lambda: with_one_thread(module)))
        times["torch_dynamo"].append(timed(lambda: export(module, dynamo=True)))
        for _ in range(options.candidates):
            for name, seconds in time_candidate(teacher, random_architecture(teacher, chooser)).items():
                times[name].append(seconds)
    report(times, options.rounds, teacher, options.out)


def time_candidate(teacher: Teacher, architecture: Architecture) -> dict[str, float]:
    """Return the seconds of each step."""
    start = time.perf_counter()
    student = build(teacher, architecture)
    built = time.perf_counter()
    data = serialize(student)
    serialised = time.perf_counter()
    session(data)
    ready = time.perf_counter()
    return {
        "build": built - start,
        "serialise": serialised - built,
        "session": ready - serialised,
        "candidate": ready - start,
    }


def random_architecture(teacher: Teacher, chooser: random.Random) -> Architecture:
    """Every width at random; like stage 2 of a search, on top of one choice of layers that was made before."""
    architecture = teacher.full
    for group in teacher.groups:
        if group.shrinkable:
            architecture = architecture.resize(group.name, chooser.randint(max(1, group.width // 4), group.width))
    return architecture


def session(data: bytes) -> onnxruntime.InferenceSession:
    """Make a session with one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def export(module: torch.nn.Module, *, dynamo: bool) -> bytes:
    """Export `module` with the exporter's default settings and return the file."""
    example = torch.zeros(1, 3, 32, 32)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            if dynamo:
                torch.onnx.export(module, (example,), path, dynamo=True, external_data=False)
            else:
                torch.onnx.export(module, (example,), path, dynamo=False)
            return path.read_bytes()


def with_one_thread(module: torch.nn.Module) -> None:
    """Export by TorchScript while torch may use one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    export(module, dynamo=False)
    torch.set_num_threads(threads)


def teacher_of(module: torch.nn.Module) -> Teacher:
    """Export once, with BatchNorms kept and a free batch axis."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "teacher.onnx"
        torch.onnx.export(
            module,
            (torch.zeros(1, 3, 32, 32),),
            path,
            dynamo=False,
            input_names=["x"],
            dynamic_axes={"x": {0: "batch"}},
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
        return Teacher.load(path)


def check_equal(module: torch.nn.Module, teacher: Teacher) -> None:
    """Refuse to compare unless both are the same network."""
    params = sum(parameter.numel() for parameter in module.parameters())
    assert params == costs(teacher.model).params, (params, costs(teacher.model).params)
    batch = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = module(batch).numpy()
    name = str(teacher.model.graph.inputs[0].name)
    (actual,) = session(serialize(build(teacher, teacher.full))).run(None, {name: batch.numpy()})
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4)


def timed(step: Callable[[], object]) -> float:
    """Return the seconds that `step` takes."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def report(times: dict[str, list[float]], rounds: int, teacher: Teacher, out: Path) -> None:
    """Write the medians and ratios, and print them."""
    medians = {name: 1000 * statistics.median(values) for name, values in times.items()}
    results = {
        "network": "CIFAR ResNet-56, padded shortcuts",
        "params": costs(teacher.model).params,
        "machine": {"architecture": platform.machine(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        "rounds": rounds,
        "candidates": len(times["candidate"]),
        "median_ms": {name: round(value, 3) for name, value in medians.items()},
        "ratio": {
            name: {"times_faster": round(medians[name] / medians["candidate"], 1), "goal": goal}
            for name, goal in GOALS.items()
        },
    }
    out.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
