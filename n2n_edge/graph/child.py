"""Runs of a model in a child process with limits of time and memory: a file from elsewhere may loop for ever."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from n2n_edge.errors import InputError, LimitExceededError

__all__ = ["RUN_SECONDS", "ChildRun", "open_in_child", "run_in_child"]

Array = np.ndarray[Any, np.dtype[Any]]

RUN_SECONDS = 15.0
"""What one run of a model is given when nothing is known of its work."""

_PATIENCE = 4
"""On a busy machine a run takes longer than its own time on the processor, which is what is limited."""

_OUT_OF_TIME = -24
"""How a process ends whose time on the processor is used up (SIGXCPU)."""

_MEMORY_BYTES = 1_500_000_000
_SCRIPT = Path(__file__).with_name("child_script.py")


@dataclass(frozen=True)
class ChildRun:
    """What came out for one batch: type and shape of every tensor asked for, and some of them whole."""

    types: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]
    arrays: Mapping[str, Array]


def run_in_child(
    model: bytes,
    batches: Iterable[Mapping[str, Array]],
    outputs: Sequence[str],
    whole: Collection[str],
    seconds: float = RUN_SECONDS,
) -> list[ChildRun]:
    """Run a serialised model for each of `batches`, graph optimisation off; arrays come back for `whole` alone.

    Raises:
        InputError: ONNX Runtime can't run it.
        LimitExceededError: it took more time or memory than it is given.
    """
    with tempfile.TemporaryDirectory(prefix="n2n-edge-run-") as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(model)
        names: list[list[str]] = []
        for inputs in batches:
            np.savez(folder / f"inputs-{len(names)}.npz", *inputs.values())
            names.append(list(inputs))
        job = {"model": str(folder / "model.onnx"), "outputs": list(outputs), "whole": list(whole), "inputs": names}
        results = _execute(folder, job, seconds, len(model))["results"]
        runs = []
        for index, result in enumerate(results):
            with np.load(folder / f"outputs-{index}.npz", allow_pickle=False) as arrays:
                kept = {name: arrays[f"arr_{i}"] for i, name in enumerate(result["whole"])}
            types = {name: (np.dtype(kind), tuple(shape)) for name, (kind, shape) in result["types"].items()}
            runs.append(ChildRun(types, kept))
        return runs


def open_in_child(path: Path) -> str:
    """Return what ONNX Runtime says against the model in `path`; '' where it takes it. Nothing is run.

    Raises:
        LimitExceededError: opening it took more time or memory than it is given.
    """
    with tempfile.TemporaryDirectory(prefix="n2n-edge-run-") as name:
        job = {"model": str(path.absolute()), "outputs": [], "whole": [], "inputs": []}
        try:
            _execute(Path(name), job, RUN_SECONDS, path.stat().st_size)
        except InputError as error:
            return str(error)
        return ""


def _command(folder: Path) -> list[str]:
    # -P keeps the script's folder off the import path: its neighbours must not hide other modules
    return [sys.executable, "-P", str(_SCRIPT), str(folder)]


def _execute(folder: Path, job: Mapping[str, Any], seconds: float, model_bytes: int) -> dict[str, Any]:
    memory = _MEMORY_BYTES + 4 * model_bytes
    limits = {"memory_bytes": memory, "seconds": max(1, round(seconds))}
    (folder / "job.json").write_text(json.dumps({**job, **limits}), encoding="utf-8")
    process = subprocess.Popen(
        _command(folder), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        code: int | None = process.wait(_PATIENCE * seconds)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if code in (None, _OUT_OF_TIME):
        raise LimitExceededError(
            f"one run took over {seconds:.0f} s and was stopped; check its loops, or export it with fixed shapes"
        )
    result = folder / "result.json"
    if not result.is_file():
        assert code is not None
        ended = f"signal {-code}" if code < 0 else f"code {code}"
        raise InputError(f"ONNX Runtime can't run the model: its process ended with {ended}; export it again")
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    if "memory" in found:
        raise LimitExceededError(
            f"one run needs over {memory / 1e9:.1f} GB of memory; check the sizes that it computes, or export it with "
            "fixed shapes"
        )
    if "error" in found:
        first = str(found["error"]).split("\n")[0].strip() or "no message"
        raise InputError(f"ONNX Runtime can't run the model: {first}")
    return found
