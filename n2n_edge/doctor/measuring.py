"""Checks of timing on this machine: the same as `n2n-edge device check`, and a model really timed."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from n2n_edge.doctor.check import Check
from n2n_edge.errors import N2NError
from n2n_edge.measure.bench import bench
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.readiness import UNKNOWN, Readiness, readiness
from n2n_edge.measure.target import HostTarget
from n2n_edge.metrics.figures import MB

__all__ = ["measuring"]

QUICK = BenchOptions(threads=1, min_time_s=0.02, max_time_s=1.0, timeout_s=60.0)
LIMIT_MB = 4000.0
"""A limit that nothing here comes near: only whether it could be had is asked."""


def measuring() -> Iterator[Check]:
    """Give ONNX Runtime, a model of one node that is timed, the machine's state, and limits on memory."""
    try:
        with HostTarget() as target:
            found = readiness(target)
            yield from _runtime(found)
            if found.ready:
                yield _timed(target)
            yield from _machine(found)
        yield _limits()
    except N2NError as error:
        yield Check(
            "measuring", "measuring", "missing", str(error), "timing models",
            "see what `n2n-edge device check --debug` says", needed=True,
        )  # fmt: skip


def _runtime(found: Readiness) -> Iterator[Check]:
    for problem in found.missing:
        yield Check("base", "onnxruntime", "missing", problem.what, "runs models", problem.remedy, needed=True)
    if found.ready:
        words = f"{found.facts['onnxruntime']}; providers: {found.facts['providers']}"
        yield Check("base", "onnxruntime", "ok", words, "runs models", needed=True)


def _timed(target: HostTarget) -> Check:
    purpose = "timing models in a process of their own"
    try:
        with tempfile.TemporaryDirectory() as folder:
            measured = bench(_one_node(Path(folder) / "relu.onnx"), QUICK, target=target, profiled=False).measurement
    except N2NError as error:
        remedy = "see what `n2n-edge device check` and `n2n-edge bench MODEL --debug` say"
        return Check("measuring", "worker", "missing", str(error), purpose, remedy, needed=True)
    words = f"a model of one node was timed: {measured.quantiles.p50_ms * 1000:.1f} us, {measured.n} runs"
    return Check("measuring", "worker", "ok", words, purpose, needed=True)


def _one_node(path: Path) -> Path:
    import onnx
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 64]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "one", values[:1], values[1:])
    # an old form, which every runtime that is supported can read
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def _machine(found: Readiness) -> Iterator[Check]:
    facts = found.facts
    yield Check("measuring", "cores", "ok", f"{facts['cores']} ({facts['processor']})", "threads of inference")
    yield Check("measuring", "memory", "ok", facts["memory"], "models and training")
    told = {name: facts[name] for name in ("governor", "clock", "temperature", "throttled", "power mode")}
    known = [f"{name} {value}" for name, value in told.items() if value != UNKNOWN]
    steady = "steady clocks, so that timings compare"
    if not known:
        yield Check(
            "measuring", "clocks", "limited", "the system tells neither clock nor governor nor throttling", steady,
            "none needed: compare models in turns, `n2n-edge bench A.onnx B.onnx`",
        )  # fmt: skip
    else:
        yield Check("measuring", "clocks", "ok", ", ".join(known), steady)
    for warning in found.warnings:
        yield Check("measuring", warning.code, "limited", warning.text, "timings that can be trusted", warning.remedy)


def _limits() -> Check:
    purpose = "bench --max-memory-mb and --target host-limited"
    with HostTarget(limit_bytes=round(LIMIT_MB * MB)) as target:
        limit = target.limit
    if limit is not None and limit.enforced:
        return Check("measuring", "memory limits", "ok", "a control group enforces them", purpose)
    return Check(
        "measuring", "memory limits", "limited", "no control group may be made here: limits are only watched", purpose,
        "run in a systemd user session, or as root, or in a container with a writable cgroup",
    )  # fmt: skip
