"""Sessions of ONNX Runtime and their inputs."""

from __future__ import annotations

import base64
import os
import time
from typing import Any

from . import FallbackError, RefusedError

CPU = "CPUExecutionProvider"
DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64"}
for kind in ("float16", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool"):
    DTYPES[f"tensor({kind})"] = kind


def make_inputs(session: Any, request: dict[str, Any], warnings: list[str]) -> dict[str, Any]:
    """Return random values for every input: a free first axis is the batch, other free ones are as `free_axis` says.

    Inputs that are bound, those that have a default among them, get their values.
    """
    import numpy as np

    batch, free_axis = request["batch"], request["free_axis"]
    generator = np.random.default_rng(request["seed"])
    given_values = request.get("bind") or {}
    inputs = [value for value in session.get_inputs() if value.name not in given_values]
    feeds = {
        value.name: bound_input(value, given_values[value.name])
        for value in [*session.get_inputs(), *session.get_overridable_initializers()]
        if value.name in given_values
    }
    free = any(value.shape and not isinstance(value.shape[0], int) for value in inputs)
    given = request.get("input_shape") or []
    for index, value in enumerate(inputs):
        if value.type not in DTYPES:
            raise RefusedError(f"input '{value.name}' is of type {value.type}, for which no random values can be made")
        shape = []
        for axis, size in enumerate(value.shape):
            if isinstance(size, int) and size > 0:
                if axis == 0 and batch not in (1, size) and not free:
                    raise RefusedError(f"input '{value.name}' has a fixed batch of {size}; {batch} was asked for")
                if axis == 0 and size != batch and not free:
                    warnings.append(
                        f"input '{value.name}' has a fixed first axis of {size}: each run computes all of it"
                    )
                shape.append(size)
            elif axis == 0:
                shape.append(batch)
            elif index == 0 and len(given) == len(value.shape) - 1:
                shape.append(given[axis - 1])
            else:
                warnings.append(f"input '{value.name}': free axis {axis} ({size}) was set to {free_axis}")
                shape.append(free_axis)
        dtype = np.dtype(DTYPES[value.type])
        if dtype.kind == "f":
            feeds[value.name] = generator.standard_normal(shape).astype(dtype)
        else:  # small numbers: they may be used as indices
            feeds[value.name] = generator.integers(0, 2, shape).astype(dtype)
    return feeds


def bound_input(value: Any, numbers: list[float]) -> Any:
    """Return numbers, or one for all, in an input's type and shape: free axes are one, the last as needed."""
    import numpy as np

    if value.type not in DTYPES:
        raise RefusedError(f"input '{value.name}' is of type {value.type}, to which no numbers can be bound")
    fixed = [isinstance(size, int) and size > 0 for size in value.shape]
    shape = [size if known else 1 for size, known in zip(value.shape, fixed)]
    free = [axis for axis, known in enumerate(fixed) if not known]
    count = int(np.prod(shape, dtype=np.int64))
    if free and len(numbers) != count and len(numbers) % count == 0:
        shape[free[-1]] = len(numbers) // count
        count = len(numbers)
    if len(numbers) not in (1, count):
        raise RefusedError(f"{len(numbers)} numbers are bound to input '{value.name}', which takes {count}, or one")
    array = np.array(numbers).reshape(() if len(numbers) == 1 else shape)
    return np.array(np.broadcast_to(array, shape), dtype=DTYPES[value.type])


def open_session(request: dict[str, Any], profile_prefix: str | None = None) -> Any:
    """Create the session: threads fixed, spinning off, all graph optimisations on, no silent change of provider."""
    import onnxruntime

    available = onnxruntime.get_available_providers()
    providers = request["providers"] or [CPU]
    missing = [provider for provider in providers if provider not in available]
    if missing:
        raise RefusedError(f"provider {missing[0]} is not in this onnxruntime; it has {', '.join(available)}")
    settings = request.get("provider_options") or {}
    threads = request["threads"]
    if "XnnpackExecutionProvider" in providers:  # it has threads of its own, which the runtime's would disturb
        own = {"intra_op_num_threads": str(threads)}
        settings = {**settings, "XnnpackExecutionProvider": {**own, **settings.get("XnnpackExecutionProvider", {})}}
        threads = 1
    if request.get("engine_cache") and "TensorrtExecutionProvider" in providers:
        own = {"trt_engine_cache_enable": "True", "trt_engine_cache_path": request["engine_cache"]}
        settings = {**settings, "TensorrtExecutionProvider": {**own, **settings.get("TensorrtExecutionProvider", {})}}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile_prefix
    model = request["model_path"] if request.get("model_path") else base64.b64decode(request["model_base64"])
    try:
        session = onnxruntime.InferenceSession(
            model,
            sess_options=options,
            providers=providers,
            provider_options=[dict(settings.get(provider, {})) for provider in providers],
        )
    except Exception as error:
        if "alloc" in str(error).lower():
            raise
        raise RefusedError(f"onnxruntime refuses it: {error}") from error
    session.disable_fallback()
    used = session.get_providers()
    if used[0] != providers[0]:
        raise FallbackError(f"{providers[0]} was asked for, but onnxruntime fell back to {used[0]}")
    return session


def bound(session: Any, feeds: dict[str, Any]) -> Any:
    """Return inputs and outputs bound once, as a program in C would have them: some us less of Python in every run.

    For the CPU alone: elsewhere bound inputs would have been copied to the device before the clock starts.
    """
    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_cpu_input(name, value)
    for value in session.get_outputs():
        binding.bind_output(value.name)
    return binding


def bind(request: dict[str, Any]) -> None:
    """Keep this process on the processors that the request names, if it names any."""
    if request.get("affinity"):
        os.sched_setaffinity(0, request["affinity"])


class Opened:
    """One model in a session, with its inputs, run once."""

    def __init__(self, request: dict[str, Any], emit: Any) -> None:
        self.warnings: list[str] = []
        self.engine_ms = None
        emit({"event": "phase", "phase": "while creating the session"})
        start = time.perf_counter()
        self.session = open_session(request)
        self.session_ms = (time.perf_counter() - start) * 1000
        if request.get("engine_cache"):  # the first session built the engine, the second finds it in the cache
            built_ms, start = self.session_ms, time.perf_counter()
            self.session = open_session(request)
            self.session_ms = (time.perf_counter() - start) * 1000
            self.engine_ms = max(0.0, built_ms - self.session_ms)
        self.feeds = make_inputs(self.session, request, self.warnings)
        self.run = self.runner()
        emit({"event": "phase", "phase": "in its first run"})
        start = time.perf_counter()
        self.run()
        self.first_run_ms = (time.perf_counter() - start) * 1000

    def runner(self) -> Any:
        """Return a function that runs the model once; each may be called in a thread of its own."""
        names = {value.name for value in self.session.get_inputs()}
        if self.session.get_providers() != [CPU] or not names.issuperset(self.feeds):  # defaults can't be bound over
            return lambda: self.session.run(None, self.feeds)
        binding = bound(self.session, self.feeds)
        return lambda: self.session.run_with_iobinding(binding)

    def facts(self) -> dict[str, Any]:
        """Return what is known before the timing."""
        return {
            "session_ms": self.session_ms,
            "first_run_ms": self.first_run_ms,
            "engine_ms": self.engine_ms,
            "providers": self.session.get_providers(),
            "warnings": self.warnings,
        }
