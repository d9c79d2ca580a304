"""Analysis and `build()` against the number of nodes: residual networks of growing depth, exported once each.

Writes ``speed.json``: seconds of analysis (from the loaded file to `Teacher`, median of five), of the first build of an
architecture with a third of its removable layers gone, and of the builds after it, which is what a search repeats.
Every network is measured in a process of its own, which like `n2n-edge inspect` never imports torch.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.load import load_model
from n2n_edge.graph.teacher import Teacher, build

HERE = Path(__file__).parent
ANALYSES, BUILDS = 5, 5
NETWORKS = {
    **dict.fromkeys(("resnet20_cifar10", "resnet56_cifar10", "resnet110_cifar10", "resnet272bn_cifar10"), (32, 32)),
    **dict.fromkeys(("resnet18", "resnet50", "resnet101", "resnet152", "densenet201"), (224, 224)),
}


def main() -> None:
    """Export, measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zoo", type=Path, help="folder where exported networks are kept; default: a temporary one")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        zoo = options.zoo or Path(folder)
        zoo.mkdir(parents=True, exist_ok=True)
        for name, size in NETWORKS.items():
            path = zoo / f"speed-{name}.onnx"
            if not path.exists():
                export_to(path, name, size)
            command = [sys.executable, "-W", "ignore", __file__, "--one", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append({"network": name, "input": list(size), **json.loads(done.stdout.strip().splitlines()[-1])})
            print(json.dumps(rows[-1]), flush=True)
    (HERE / "speed.json").write_text(json.dumps(rows, indent=1) + "\n")


def export_to(path: Path, name: str, size: tuple[int, int]) -> None:
    """Export a network of pytorchcv."""
    sys.path.insert(0, str(HERE.parents[1]))
    from families import Family
    from zoo import export

    export(Family(name, "classification", name, size), path)


def measure(path: Path) -> dict[str, float]:
    """Return seconds and, per 1,000 nodes, the same."""
    teacher = Teacher(load_model(path))  # imports and caches
    times = []
    for _ in range(ANALYSES):
        source = load_model(path)
        start = time.perf_counter()
        teacher = Teacher(source)
        times.append(time.perf_counter() - start)
    nodes = len(list(teacher.model.graph))
    shallow, full = _architecture(teacher, remove=True), _architecture(teacher, remove=False)
    seconds = {
        "analysis": statistics.median(times),
        "first_build": _timed(teacher, shallow, 1),
        "build": _timed(teacher, full, BUILDS),
    }
    row: dict[str, float] = {"nodes": nodes}
    for name, value in seconds.items():
        row[f"{name}_s"] = round(value, 4)
        row[f"{name}_s_per_1000_nodes"] = round(1000 * value / nodes, 3)
    return row


def _architecture(teacher: Teacher, *, remove: bool) -> Architecture:
    chooser = random.Random(0)
    removable = [layer.name for layer in teacher.layers if layer.removable] if remove else []
    gone = frozenset(chooser.sample(removable, len(removable) // 3))
    architecture = teacher.full.remove(*teacher.repaired(gone))
    for group in teacher.groups:
        if group.shrinkable:
            architecture = architecture.resize(group.name, max(1, group.width // 2))
    return architecture


def _timed(teacher: Teacher, architecture: Architecture, builds: int) -> float:
    times = []
    for _ in range(builds):
        start = time.perf_counter()
        build(teacher, architecture)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main()
