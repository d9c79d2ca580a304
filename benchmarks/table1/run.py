"""Time and memory of a deep network against a shallow one on this CPU: the table that the project's seed opens with.

``python benchmarks/table1/run.py`` writes ``results.json`` and prints the ratios. Each figure comes from workers of its
own, one network at a time, in turns.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
DEEP, SHALLOW = "resnet200", "resnet18"
BATCH, SIZE, STEPS, ROUNDS = 8, 224, 3, 3
SEED_RATIOS = {"train_s": 22.4 / 2.2, "test_s": 8.6 / 0.8, "memory_mb": 5052 / 612}
"""What the article measured, on a CPU of its own and with another batch."""


def main() -> None:
    """Measure both networks in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", choices=[DEEP, SHALLOW], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(measure(options.worker)))
        return
    found: dict[str, list[dict[str, float]]] = {DEEP: [], SHALLOW: []}
    for turn in range(ROUNDS):
        for name in (DEEP, SHALLOW) if turn % 2 == 0 else (SHALLOW, DEEP):
            command = [sys.executable, __file__, "--worker", name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[name].append(json.loads(done.stdout.strip().splitlines()[-1]))
    figures = {
        name: {key: statistics.median(row[key] for row in rows) for key in SEED_RATIOS} for name, rows in found.items()
    }
    ratios = {
        key: {
            "measured": round(figures[DEEP][key] / figures[SHALLOW][key], 2),
            "of_each_round": [
                round(deep[key] / flat[key], 2) for deep, flat in zip(found[DEEP], found[SHALLOW], strict=True)
            ],
            "seed_article": round(SEED_RATIOS[key], 1),
        }
        for key in SEED_RATIOS
    }
    document = {"batch": BATCH, "size": SIZE, "rounds": ROUNDS, "medians": figures, "ratios": ratios}
    (HERE / "results.json").write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(ratios, indent=1))


def measure(name: str) -> dict[str, float]:
    """Return median seconds of a training step and of a test pass, and the growth of the peak memory, in MB."""
    import torch
    from pytorchcv.models import resnet

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    torch.manual_seed(0)
    network = getattr(resnet, name)()
    images, labels = torch.randn(BATCH, 3, SIZE, SIZE), torch.randint(0, 1000, (BATCH,))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)

    def train() -> None:
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    def test() -> None:
        with torch.inference_mode():
            network(images)

    found = {"train_s": timed(train)}
    network.eval()
    found["test_s"] = timed(test)
    found["memory_mb"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3
    return found


def timed(step: object) -> float:
    """Return the median of a few runs after one to warm up."""
    assert callable(step)
    step()
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
