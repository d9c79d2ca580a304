"""Analysis and `build()` against the number of nodes: residual networks of growing depth, exported once each.

Writes ``speed.json``: seconds of analysis (from the loaded file to `Teacher`), of the first build of an architecture
with a third of its removable layers gone, and of the builds after it, which is what a search repeats.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from families import Family
from zoo import export

from n2n_edge.graph import Architecture, Teacher, build, load_model

HERE = Path(__file__).parent
ANALYSES = 5
NETWORKS = (
    *(Family(name, "classification", name, (32, 32)) for name in ("resnet20_cifar10", "resnet56_cifar10")),
    *(Family(name, "classification", name, (32, 32)) for name in ("resnet110_cifar10", "resnet272bn_cifar10")),
    *(Family(name, "classification", name, (224, 224)) for name in ("resnet18", "resnet50", "resnet101", "resnet152")),
    Family("densenet201", "classification", "densenet201", (224, 224)),
)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zoo", type=Path, help="folder where exported networks are kept; default: a temporary one")
    parser.add_argument("--builds", type=int, default=5)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        zoo = options.zoo or Path(folder)
        zoo.mkdir(parents=True, exist_ok=True)
        for network in NETWORKS:
            path = zoo / f"speed-{network.name}.onnx"
            if not path.exists():
                export(network, path)
            rows.append({"network": network.name, "input": list(network.size), **measure(path, options.builds)})
            print(json.dumps(rows[-1]), flush=True)
    (HERE / "speed.json").write_text(json.dumps(rows, indent=1) + "\n")


def measure(path: Path, builds: int) -> dict[str, float]:
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
        "build": _timed(teacher, full, builds),
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
