"""Gate as a function: models held against budgets and a baseline, accuracy included."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n2n_edge.gate.budget_file import BudgetFile, read_budget_file
from n2n_edge.gate.check import Gated
from n2n_edge.gate.jobs import gate_jobs
from n2n_edge.gate.run import Accuracies, gate_models
from n2n_edge.runs.run import require_pillow

if TYPE_CHECKING:
    from n2n_edge.gate.settings import GateSettings

__all__ = ["accuracies", "gate"]


def gate(
    *models: Path | str,
    max_mb: float | None = None,
    max_params: float | None = None,
    max_macs: float | None = None,
    max_memory_mb: float | None = None,
    max_latency_ms: float | None = None,
    min_accuracy: float | None = None,
    data: Path | str | None = None,
    classes: Path | str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    allowed_ops: Sequence[str] = (),
    input_shape: Sequence[int] | None = None,
    accept_expected: bool | None = None,
    baseline: Path | str | None = None,
    max_regression: Sequence[str] = (),
    static: bool | None = None,
    device: str | Path | None = None,
    target: str | None = None,
    threads: int | None = None,
    providers: str | None = None,
    max_time: float | None = None,
    config: Path | str | None = None,
    on_message: Callable[[str], None] = lambda text: None,
) -> tuple[Gated, ...]:
    """Hold ONNX files against budgets, and their costs against those of a baseline; nothing is printed.

    >>> (gated,) = n2n_edge.gate(example_teacher, max_mb=0.5, max_params=1_000_000)
    >>> gated.outcome, [check.outcome for check in gated.checks]
    ('fail', ['fail', 'pass'])

    Keywords are the options of ``n2n-edge gate``. Without models those of the budget file `config` are meant, which is
    read only if it is named. `on_message` is told what is being done.

    Raises:
        InputError: a file that isn't a model, or settings that contradict each other or ask nothing.
    """
    given: dict[str, Any] = {
        "max-mb": max_mb, "max-params": max_params, "max-macs": max_macs, "max-memory-mb": max_memory_mb,
        "max-latency-ms": max_latency_ms, "min-accuracy": min_accuracy, "data": None if data is None else str(data),
        "classes": None if classes is None else Path(classes), "mean": None if mean is None else tuple(mean),
        "std": None if std is None else tuple(std), "allowed-ops": list(allowed_ops) or None,
        "input-shape": None if input_shape is None else "x".join(map(str, input_shape)),
        "accept-expected": accept_expected, "baseline": None if baseline is None else Path(baseline),
        "max-regression": list(max_regression) or None, "static": static,
        "device": None if device is None else str(device), "target": target, "threads": threads,
        "providers": providers, "max-time": max_time,
    }  # fmt: skip
    budget_file: BudgetFile | None = None if config is None else read_budget_file(Path(config))
    named = {name: value for name, value in given.items() if value is not None}
    return gate_models(gate_jobs([Path(model) for model in models], named, budget_file), accuracies, on_message)


def accuracies(model: Path, settings: "GateSettings") -> Accuracies:
    """Return the accuracy of a model, and of its baseline, on the test images that settings name."""
    require_pillow("evaluating accuracy")
    from n2n_edge.runs.accuracy import TestData, file_accuracy

    assert settings.data is not None
    data = TestData(settings.data, settings.mean, settings.std, settings.classes)
    return Accuracies(*file_accuracy(model, data, baseline=settings.baseline))
