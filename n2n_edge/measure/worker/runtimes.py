"""Other runtimes than ONNX Runtime: a converted model opened, run and timed as sessions are, one image at a time."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any

from . import RefusedError
from .session import make_inputs, open_session

DEFAULT = "onnxruntime"
MODULES = {DEFAULT: "onnxruntime", "ncnn": "ncnn", "openvino": "openvino"}


def version_of(runtime: str) -> str:
    """Import a runtime and return its name and version."""
    module = importlib.import_module(MODULES[runtime])
    return f"{runtime} {module.__version__}"


class Ncnn:
    """A network of ncnn, in float32 throughout, calculated with so many threads of OpenMP.

    What pnnx writes calls inputs ``in0``, ``in1`` and so on, outputs ``out0``: in the order of the ONNX file.
    """

    def __init__(self, files: list[str], threads: int) -> None:
        import ncnn

        self.ncnn = ncnn
        self.net = ncnn.Net()
        options = self.net.opt
        options.num_threads = threads
        options.use_vulkan_compute = False
        for name in ("packed", "storage", "arithmetic"):
            setattr(options, f"use_fp16_{name}", False)
        options.use_bf16_storage = False
        for path, load in zip(files, (self.net.load_param, self.net.load_model)):
            if load(path) != 0:
                raise RefusedError(f"ncnn refuses what it was converted to: it has no {unknown_layers(files[0])}")
        self.inputs = sorted(self.net.input_names(), key=number_of)
        self.outputs = sorted(self.net.output_names(), key=number_of)

    def prepared(self, arrays: list[Any]) -> Any:
        """Return a function that calculates every output of these inputs; its first axis, of one, is left out."""
        import numpy as np

        if len(arrays) != len(self.inputs):
            raise RefusedError(f"it has {len(arrays)} inputs, what it was converted to {len(self.inputs)}")
        given = [np.ascontiguousarray(array[0] if array.ndim > 1 else array) for array in arrays]
        mats = [self.ncnn.Mat(array).clone() for array in given]

        def run() -> list[Any]:
            extractor = self.net.create_extractor()
            for name, mat in zip(self.inputs, mats):
                extractor.input(name, mat)
            found = []
            for name in self.outputs:
                status, mat = extractor.extract(name)
                if status != 0:
                    raise RuntimeError(f"ncnn gives no output {name} (status {status})")
                found.append(mat)
            return found

        return run

    def arrays(self, outputs: list[Any]) -> list[Any]:
        """Return what a run gave as arrays."""
        import numpy as np

        return [np.array(mat) for mat in outputs]


class OpenVino:
    """A model of OpenVINO on the processor: float32, one stream, so many threads, none of them pinned."""

    def __init__(self, files: list[str], threads: int) -> None:
        import openvino

        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,
        }
        try:
            core = openvino.Core()
            self.model = core.compile_model(core.read_model(*files), "CPU", settings)
        except Exception as error:
            raise RefusedError(f"openvino refuses it: {error}") from error

    def prepared(self, arrays: list[Any]) -> Any:
        """Return a function that calculates every output of these inputs."""
        request = self.model.create_infer_request()
        request.infer(dict(enumerate(arrays)))  # from here on its inputs are what they are

        def run() -> Any:
            request.infer()
            return request

        return run

    def arrays(self, outputs: Any) -> list[Any]:
        """Return what a run gave as arrays."""
        return [outputs.get_output_tensor(index).data.copy() for index in range(len(self.model.outputs))]


class OnnxFile:
    """Another ONNX file under ONNX Runtime, such as one in float16."""

    def __init__(self, files: list[str], threads: int) -> None:
        self.session = open_session({"model_path": files[0], "providers": [], "threads": threads})

    def prepared(self, arrays: list[Any]) -> Any:
        """Return a function that calculates every output of these inputs."""
        feeds = {value.name: array for value, array in zip(self.session.get_inputs(), arrays)}
        return lambda: self.session.run(None, feeds)

    def arrays(self, outputs: list[Any]) -> list[Any]:
        """Return what a run gave as arrays."""
        return outputs


ENGINES: dict[str, Any] = {DEFAULT: OnnxFile, "ncnn": Ncnn, "openvino": OpenVino}


def unknown_layers(param: str) -> str:
    """Return the layers of a file that the converter only passed on: ncnn's own have no dot in their names."""
    with Path(param).open(encoding="utf-8", errors="replace") as file:
        kinds = {line.split(None, 1)[0] for line in file if line.strip()}
    return ", ".join(sorted(kind for kind in kinds if "." in kind)) or "such operator"


def number_of(name: str) -> tuple[int, str]:
    """Return the number at the end of a name, by which inputs and outputs are in order."""
    digits = name[len(name.rstrip("0123456789")) :]
    return (int(digits) if digits else 0, name)


def read_arrays(path: str, kind: str) -> list[Any]:
    """Return the arrays of a file of samples, ``in0``, ``in1`` or ``out0``, each ``(samples, ...)``, in their order."""
    import numpy as np

    with np.load(path) as file:
        return [file[name] for name in sorted(file.files, key=number_of) if name.startswith(kind)]


def stacked(kind: str, samples: list[list[Any]]) -> dict[str, Any]:
    """Return lists of arrays, one for each sample, as what a file of samples holds."""
    import numpy as np

    return {f"{kind}{index}": np.stack(arrays) for index, arrays in enumerate(zip(*samples))}


class OpenedElsewhere:
    """One converted model, run once on the first sample; it answers what `session.Opened` does."""

    def __init__(self, request: dict[str, Any], emit: Any) -> None:
        self.warnings: list[str] = []
        self.samples = read_arrays(request["samples_path"], "in")
        emit({"event": "phase", "phase": "while opening it"})
        start = time.perf_counter()
        self.engine = ENGINES[request["runtime"]](request["files"], request["threads"])
        self.session_ms = (time.perf_counter() - start) * 1000
        self.run = self.engine.prepared([array[0] for array in self.samples])
        emit({"event": "phase", "phase": "in its first run"})
        start = time.perf_counter()
        self.run()
        self.first_run_ms = (time.perf_counter() - start) * 1000

    def outputs(self) -> list[list[Any]]:
        """Return what every sample gives."""
        found = []
        for index in range(len(self.samples[0])):
            run = self.engine.prepared([array[index] for array in self.samples])
            found.append(self.engine.arrays(run()))
        return found

    def facts(self) -> dict[str, Any]:
        """Return what is known before the timing."""
        return {
            "session_ms": self.session_ms,
            "first_run_ms": self.first_run_ms,
            "engine_ms": None,
            "providers": ["CPU"],
            "warnings": self.warnings,
        }


def write_reference(request: dict[str, Any]) -> int:
    """Write samples of a model's inputs and what ONNX Runtime gives for them; return how many there are.

    Inputs are random, as they are for a timing; the first may be given, as ``in0`` of a file, a sample at a time.
    """
    import numpy as np

    session = open_session(request)
    given = read_arrays(request["given_path"], "in") if request.get("given_path") else []
    count = len(given[0]) if given else request["count"]
    inputs, outputs = [], []
    for index in range(count):
        feeds = make_inputs(session, {**request, "seed": request["seed"] + index}, [])
        first = session.get_inputs()[0].name
        if given:
            feeds[first] = given[0][index].astype(feeds[first].dtype)
        inputs.append([feeds[value.name] for value in session.get_inputs()])
        outputs.append(session.run(None, feeds))
    np.savez(request["samples_path"], **stacked("in", inputs), **stacked("out", outputs))
    return count
