"""What it costs to take large activations from the kernel at every training step, and to keep them instead.

    python benchmarks/allocator/run.py [--rounds 2] [--batch 128] [--at-once 32] [--steps 3]

Steps of training a half-width MobileNetV2 at 224 px in the executor, on one thread, in fresh processes by turns: all
images of a batch at once, as glibc does and with buffers kept, and `--at-once` of them at a time, as a run chooses by
itself. `results.json` and `results.md` are written beside this.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "engine"))
WAYS = ("as glibc does", "kept", "kept, in parts")


def child(way: str, batch: int, at_once: int, steps: int) -> None:
    """Train for some steps and print what they took, the first left out."""
    import torch
    from mobilenet import half_width

    from n2n_edge.tasks.classification import Classification
    from n2n_edge.training.allocator import large_buffers_kept
    from n2n_edge.training.compute import Engine
    from n2n_edge.training.executor import GraphModule
    from n2n_edge.training.optimiser import Lesson, Optimiser
    from n2n_edge.training.settings import DistillSettings

    torch.set_num_threads(1)
    module = GraphModule(half_width(224))
    engine = Engine(torch.device("cpu"))
    optimiser = Optimiser(module, DistillSettings(), steps=steps, task=Classification(), engine=engine)
    lesson = Lesson(torch.randn(batch, 3, 224, 224), None, (torch.randn(batch, 100),))
    size = at_once if way == "kept, in parts" else batch
    parts = [
        Lesson(lesson.inputs[start : start + size], None, (lesson.teacher[0][start : start + size],))
        for start in range(0, batch, size)
    ]
    module.train()
    with large_buffers_kept() if way.startswith("kept") else nullcontext():
        optimiser.step(0, parts, batch)
        before, start, seconds = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter(), []
        for index in range(1, steps):
            begun = time.perf_counter()
            optimiser.step(index, parts, batch)
            seconds.append(time.perf_counter() - begun)
        after = resource.getrusage(resource.RUSAGE_SELF)
    each = steps - 1
    print(
        json.dumps(
            {
                "step_s": statistics.median(seconds),
                "wall_s": (time.perf_counter() - start) / each,
                "user_s": (after.ru_utime - before.ru_utime) / each,
                "system_s": (after.ru_stime - before.ru_stime) / each,
                "page_faults": (after.ru_minflt - before.ru_minflt) / each,
                "peak_rss_mb": after.ru_maxrss * 1024 / 1e6,
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--child")
    options = parser.parse_args()
    if options.child:
        child(options.child, options.batch, options.at_once, options.steps)
        return
    rows: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    loads = []
    for turn in range(options.rounds):
        for way in WAYS if turn % 2 == 0 else reversed(WAYS):
            loads.append(os.getloadavg()[0])
            words = [
                sys.executable,
                __file__,
                "--child",
                way,
                "--batch",
                str(options.batch),
                "--at-once",
                str(options.at_once),
                "--steps",
                str(options.steps),
            ]
            done = subprocess.run(
                words, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
            )
            rows[way].append(json.loads(done.stdout))
    median = {
        way: {key: statistics.median(row[key] for row in found) for key in found[0]} for way, found in rows.items()
    }
    for row in median.values():
        row["processor_s"] = row["user_s"] + row["system_s"]
    base = median["as glibc does"]
    ratio = {way: {key: median[way][key] / base[key] for key in base} for way in WAYS[1:]}
    found = {
        "processor": platform.processor() or platform.machine(),
        "libc": " ".join(platform.libc_ver()),
        "options": vars(options),
        "loads": loads,
        "rounds": rows,
        "median": median,
        "ratio": ratio,
    }
    (HERE / "results.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    lines = [
        f"Half-width MobileNetV2, 224 px, batch {options.batch}, one thread; medians over {options.rounds} rounds. "
        f"Load average meanwhile {min(loads):.1f} to {max(loads):.1f}.",
        "",
        f"| a step takes | as glibc does | kept | ratio | kept, {options.at_once} at once | ratio |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for key, name in (
        ("processor_s", "seconds of processor time"), ("user_s", "of which user"), ("system_s", "of which kernel"),
        ("page_faults", "page faults"), ("peak_rss_mb", "peak memory, MB"),
    ):  # fmt: skip
        cells = [f"{base[key]:,.4g}"]
        for way in WAYS[1:]:
            cells += [f"{median[way][key]:,.4g}", f"{median[way][key] / base[key]:.2f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    (HERE / "results.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
