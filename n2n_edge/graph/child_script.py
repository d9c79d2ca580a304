"""One run of a model in a process of its own, within limits of time and memory.

Started as a script by ``child.py``; needs numpy and ONNX Runtime alone. Its one argument is a folder: `job.json` and
`inputs-0.npz`, ... say what to run, `result.json` and `outputs-0.npz`, ... what came out.
"""

import json
import sys
from pathlib import Path
from typing import Any


def main(folder: Path) -> None:
    """Run the job in `folder`."""
    job: dict[str, Any] = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    _limit(int(job["memory_bytes"]), int(job["seconds"]))
    try:
        result = _run(folder, job)
    except MemoryError:
        result = {"memory": True}
    except Exception as error:  # onnxruntime's exceptions share no public base class
        text = str(error).strip()
        short_of_memory = any(sign in text for sign in ("bad_alloc", "Failed to allocate memory", "bad allocation"))
        result = {"memory": True} if short_of_memory else {"error": text}
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


def _limit(memory_bytes: int, seconds: int) -> None:
    """Let the system end this process: the parent may be gone. Systems without such limits rely on the parent."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    if sys.platform == "linux":  # elsewhere the limit on data doesn't count what malloc maps
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))


def _run(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(job["model"], options, providers=["CPUExecutionProvider"])
    names, whole = job["outputs"], set(job["whole"])
    results = []
    for index, given in enumerate(job["inputs"]):
        with np.load(folder / f"inputs-{index}.npz", allow_pickle=False) as inputs:
            fed = {name: inputs[f"arr_{i}"] for i, name in enumerate(given)}
            arrays = session.run(names, fed) if names else []  # no names would stand for all
        tensors = {
            name: array
            for name, array in zip(names, arrays, strict=True)
            if isinstance(array, np.ndarray) and array.dtype != object
        }
        types = {name: [str(array.dtype), list(array.shape)] for name, array in tensors.items()}
        kept = [name for name in tensors if name in whole]
        np.savez(folder / f"outputs-{index}.npz", *(tensors[name] for name in kept))
        results.append({"types": types, "whole": kept})
    return {"results": results}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
