"""Readiness of a target to time models, and what it lacks."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from n2n_edge.measure.board import BoardState
from n2n_edge.measure.messages import Checked
from n2n_edge.measure.target import Target
from n2n_edge.metrics.notices import Notice, codes_of, texts_of

__all__ = ["Problem", "Readiness", "readiness"]

LEAST_PYTHON = (3, 8)
LITTLE_DISK_MB, LITTLE_MEMORY_MB = 100, 150
UNKNOWN = "not told"


@dataclass(frozen=True)
class Problem:
    """Something that is missing, and the command or step that mends it."""

    what: str
    remedy: str


@dataclass(frozen=True)
class Readiness:
    """What a target has (`facts`, in words), what it lacks, and warnings about timings on it."""

    facts: Mapping[str, str]
    missing: tuple[Problem, ...]
    warnings: tuple[Notice, ...]
    raw: Checked
    state: BoardState

    @property
    def ready(self) -> bool:
        """Whether models can be timed there."""
        return not self.missing

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON object."""
        return {
            "ready": self.ready,
            "found": self.raw.model_dump(exclude_unset=True),
            "state": self.state.to_json(),
            "missing": [asdict(problem) for problem in self.missing],
            "warnings": list(texts_of(self.warnings)),
            "warning_codes": list(codes_of(self.warnings)),
        }


def readiness(target: Target) -> Readiness:
    """Look at a target.

    Raises:
        MeasurementError: it can't be reached, or has no Python.
    """
    there, state = target.check(), target.state()
    clock = UNKNOWN if state.clock_mhz is None else f"{state.clock_mhz:.0f} MHz"
    if state.max_clock_mhz is not None:
        clock += f" of {state.max_clock_mhz:.0f}"
    facts = {
        "processor": str(there.cpu),
        "cores": f"{there.cores} usable, {there.logical_cpus} logical",
        "memory": f"{there.memory_mb or UNKNOWN} MB, {there.available_memory_mb or UNKNOWN} MB available",
        "system": f"{there.os} on {there.machine}",
        "Python": f"{there.python} ({there.executable})",
        "numpy": str(there.numpy or "none"),
        "onnxruntime": str(there.onnxruntime or "none"),
        "providers": ", ".join(name.removesuffix("ExecutionProvider") for name in there.providers) or "none",
        "governor": state.governor or UNKNOWN,
        "clock": clock,
        "temperature": UNKNOWN if state.temperature_c is None else f"{state.temperature_c:.0f} °C",
        "throttled": ", ".join(state.throttled) or "no" if state.tells_throttling else UNKNOWN,
        "power mode": state.power_mode or UNKNOWN,
        "free disk": f"{there.free_disk_mb} MB in {there.folder}",
    }
    return Readiness(facts, tuple(_missing(there)), (*state.warnings(), *_warnings(there, state)), there, state)


def _missing(there: Checked) -> list[Problem]:
    problems = []
    if tuple(int(part) for part in there.python.split(".")[:2]) < LEAST_PYTHON:
        problems.append(Problem(f"Python {there.python} is older than 3.8", "name a newer one with ?python=PATH"))
    for package in ("numpy", "onnxruntime"):
        if getattr(there, package) is None:
            reason = getattr(there, f"{package}_error")
            what = f"{package} can't be imported ({reason})" if reason else package
            remedy = f"install it there with `{there.executable} -m pip install {package}`"
            problems.append(
                Problem(what, remedy + ", in a virtual environment if pip asks for one (then ?python=PATH)")
            )
    return problems


def _warnings(there: Checked, state: BoardState) -> list[Notice]:
    warnings = []
    if state.throttled:
        text = f"the board is {' and '.join(state.throttled)} now: no measurement counts until that is mended"
        warnings.append(Notice("throttled", text))
    if there.free_disk_mb < LITTLE_DISK_MB:
        text = f"only {there.free_disk_mb} MB are free in {there.folder}"
        warnings.append(Notice("little-disk", text, "name another folder: ssh://host/folder"))
    available = there.available_memory_mb
    if available is not None and available < LITTLE_MEMORY_MB:
        warnings.append(Notice("little-memory", f"only {available} MB of memory are available"))
    return warnings
