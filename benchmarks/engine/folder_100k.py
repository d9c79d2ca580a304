"""A folder of 100,000 photographs through `n2n-edge compress`: time to the first training step, memory, time in all.

    python benchmarks/engine/folder_100k.py [--images 100000] [--minutes 20] [--folder FOLDER]

Makes JPEGs of about 400 x 300 in 20 classes and a MobileNetV2 of 224 pixels with a head fitted to some of them, then
runs `n2n-edge compress --effort quick --minutes 20` on them in a process of its own. Memory is the sum of the
proportional set sizes of that process and all that it starts, looked at twice a second. Writes `folder_100k.json` and
`folder_100k.md` beside this.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
from photographs import MEAN, STD, make_folder, make_teacher

HERE = Path(__file__).resolve().parent
LOOK_S = 0.5
NOTES = "N2N_BENCHMARK_NOTES"


def child(arguments: list[str]) -> None:
    """Run the command line, and note when what first happens."""
    started = float(os.environ["N2N_BENCHMARK_START"])
    notes: dict[str, float] = {}

    def note(what: str) -> None:
        if what not in notes:
            notes[what] = time.time() - started
            Path(os.environ[NOTES]).write_text(json.dumps(notes), encoding="utf-8")

    from n2n_edge.cli.app import main as command
    from n2n_edge.training import proxy_evaluation, reconstruct, teacher_outputs
    from n2n_edge.training.optimiser import Optimiser

    step = Optimiser.step

    def noted_step(self: Optimiser, *given: object) -> float:
        what = "timed step" if sys._getframe(1).f_globals["__name__"].endswith("schedule") else "step"
        note(what)
        try:
            return step(self, *given)  # type: ignore[arg-type]
        finally:
            note(f"{what} done")

    Optimiser.step = noted_step  # type: ignore[method-assign, assignment]
    refit = reconstruct.reconstruct

    def noted_refit(*given: object) -> int:
        note("refitting of weights")
        return refit(*given)  # type: ignore[arg-type]

    proxy_evaluation.reconstruct = noted_refit  # type: ignore[assignment]
    epoch = teacher_outputs.Teaching.epoch

    def noted_epoch(self: teacher_outputs.Teaching, number: int) -> object:
        note("final distillation")
        return epoch(self, number)

    teacher_outputs.Teaching.epoch = noted_epoch  # type: ignore[method-assign, assignment]
    sys.argv = ["n2n-edge", *arguments]
    command()


def bytes_of(process: psutil.Process) -> int:
    """Return what a process and all that it started take, pages that are shared counted once."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            text = Path(f"/proc/{each.pid}/smaps_rollup").read_text(encoding="utf-8")
        except OSError:
            continue
        total += 1024 * int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1])  # type: ignore[index]
    return total


def forget(folder: Path) -> None:
    """Take the files of a folder out of the page cache."""
    os.sync()
    for path in folder.rglob("*.jpg"):
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def shown(process: "subprocess.Popen[str]", started: float) -> None:
    """Show what a process says, and when."""
    assert process.stdout is not None
    for line in process.stdout:
        print(f"{time.time() - started:6.0f} s  {line}", end="", flush=True)


def run(folder: Path, teacher: Path, out: Path, minutes: float, more: list[str]) -> dict[str, Any]:
    normalisation = [
        f"--{name}={','.join(f'{x:.3f}' for x in values)}" for name, values in (("mean", MEAN), ("std", STD))
    ]
    asked = ["compress", str(teacher), "--data", str(folder), *normalisation, "--effort", "quick"]
    asked += ["--minutes", f"{minutes:g}", "--out", str(out), *more]
    notes = out.parent / "notes.json"
    started = time.time()
    environment = {**os.environ, NOTES: str(notes), "N2N_BENCHMARK_START": str(started)}
    words = [sys.executable, str(Path(__file__).resolve()), "--child", *asked]
    process = subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
    )
    reading = Thread(target=shown, args=(process, started))
    reading.start()
    watched, memory, loads = psutil.Process(process.pid), list[tuple[float, float]](), []
    while process.poll() is None:
        memory.append((bytes_of(watched) / 1e9, time.time() - started))
        loads.append(os.getloadavg()[0])
        time.sleep(LOOK_S)
    seconds = time.time() - started
    reading.join()
    peak, at = max(memory)
    first = json.loads(notes.read_text(encoding="utf-8"))
    return {
        "command": ["n2n-edge", *(Path(word).name if word.startswith("/") else word for word in asked)],
        "exit": process.returncode, "seconds": seconds, "first_s": first, "peak_gb": peak, "peak_at_s": at,
        "memory_gb": [(round(gb, 2), round(second)) for gb, second in memory[::20]],
        "left_of_decoded_images": (out / ".decoded").exists(), "load_average": sum(loads) / max(1, len(loads)),
    }  # fmt: skip


def write(found: dict[str, Any], name: str) -> None:
    """Write the files of results."""
    (HERE / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    first, minutes = found["first_s"], found["minutes"]
    rows = [
        ("first refitting of weights, s", first.get("refitting of weights"), ""),
        ("first step of gradient descent on a candidate begins, s", first.get("step"), "60"),
        ("that step is done, s", first.get("step done"), ""),
        ("final distillation begins, s", first.get("final distillation"), ""),
        ("peak of memory, all processes, GB", found["peak_gb"], "4"),
        ("the whole run, min", found["seconds"] / 60, f"{minutes:g}"),
        ("exit code", found["exit"], "0"),
    ]
    lines = [
        f"{found['images']:,} JPEGs of about 400 x 300 ({found['folder_gb']:.1f} GB), MobileNetV2 at 224 px, "
        f"{found['cores']} cores, mean load average {found['load_average']:.1f}: `n2n-edge compress --effort quick "
        f"--minutes {minutes:g}`.",
        "",
        "| | measured | limit |",
        "| --- | --- | --- |",
        *(f"| {what} | {'-' if value is None else f'{value:.4g}'} | {limit} |" for what, value, limit in rows),
    ]
    (HERE / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--folder", type=Path, help="where the images are made, and kept")
    parser.add_argument("--teacher", type=Path, help="an earlier run's teacher")
    parser.add_argument("--name", default="folder_100k", help="of the files of results")
    options, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "photographs"
        make_folder(folder, options.images)
        teacher = options.teacher or Path(temporary) / "mobilenet_v2.onnx"
        if options.teacher is None:
            make_teacher(teacher, folder)
        size = sum(path.stat().st_size for each in folder.iterdir() for path in each.iterdir())
        forget(folder)
        found = run(folder, teacher, Path(temporary) / "run", options.minutes, more)
    found |= {"images": options.images, "minutes": options.minutes, "folder_gb": size / 1e9, "cores": os.cpu_count()}
    write(found, options.name)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
    else:
        main()
