"""Gate as a function: models held against budgets and a baseline, their scores on test images included."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n2n_edge.data.preprocessing_options import PREPROCESSING_OPTIONS, options_of
from n2n_edge.errors import InputError
from n2n_edge.gating.budget_file import BudgetFile, read_budget_file
from n2n_edge.gating.check import Gated
from n2n_edge.gating.jobs import gate_jobs
from n2n_edge.gating.run import GateJob, Scores, gate_models
from n2n_edge.metrics.costs import with_present_names

if TYPE_CHECKING:
    from n2n_edge.gating.settings import GateSettings

__all__ = ["gate", "given_settings", "jobs_of", "scores"]


def gate(
    *models: Path | str,
    max_mb: float | None = None,
    max_params: float | None = None,
    max_macs: float | None = None,
    max_memory_mb: float | None = None,
    max_latency_ms: float | None = None,
    min_score: float | None = None,
    max_drop: float | None = None,
    min_accuracy: float | None = None,
    data: Path | str | None = None,
    classes: Path | str | None = None,
    task: str | None = None,
    decode: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    pixels: str | None = None,
    channels: str | None = None,
    resize: str | None = None,
    crop_ratio: float | None = None,
    interpolation: str | None = None,
    antialias: bool | None = None,
    pad_color: Sequence[int] | None = None,
    pad_position: str | None = None,
    allowed_ops: Sequence[str] = (),
    input_shape: Sequence[int] | str | None = None,
    bind: Sequence[str] = (),
    accept_expected: bool | None = None,
    baseline: Path | str | None = None,
    max_regression: Sequence[str] = (),
    static: bool | None = None,
    device: str | Path | None = None,
    target: str | None = None,
    threads: int | None = None,
    providers: str | None = None,
    runtime: str | None = None,
    max_time: float | None = None,
    config: Path | str | None = None,
    on_message: Callable[[str], None] = lambda text: None,
) -> tuple[Gated, ...]:
    """Hold ONNX files against budgets, and their costs against those of a baseline; nothing is printed.

    >>> (gated,) = n2n_edge.gate(example_teacher, max_mb=0.5, max_params=1_000_000)
    >>> gated.outcome, [check.outcome for check in gated.checks]
    ('fail', ['fail', 'pass'])

    Keywords are the options of ``n2n-edge gate``. Without models those of the budget file `config` are meant, which is
    read only if it is named. How images go into a network is what the keywords say, the same as those of `compress`,
    else what the file's metadata record. `min_accuracy` is another name of `min_score`. `on_message` is told what is
    being done.

    Raises:
        InputError: a file that isn't a model, or settings that contradict each other or ask nothing.
    """
    options = {name: value for name, value in locals().items() if name not in ("models", "config", "on_message")}
    budget_file = None if config is None else read_budget_file(Path(config))
    jobs = jobs_of([Path(model) for model in models], options, budget_file)
    return gate_models(jobs, scores, on_message)


def jobs_of(models: Sequence[Path], options: Mapping[str, Any], budget_file: BudgetFile | None) -> tuple[GateJob, ...]:
    """Return what `gate` holds each model against: the keywords over the budget file.

    Raises:
        InputError: no model, settings that aren't right, a growth that is allowed over no baseline, or preprocessing of
            no images.
    """
    given = given_settings(options)
    jobs = gate_jobs(models, given, budget_file)
    if "max-regression" in given and any(job.settings.baseline is None for job in jobs):
        raise InputError(f"‹max_regression› {given['max-regression'][0]}: growth over what? give ‹baseline› MODEL")
    idle = next((name for name in PREPROCESSING_OPTIONS if name.replace("_", "-") in given), None)
    if idle is not None and all(job.settings.data is None for job in jobs):
        raise InputError(f"‹{idle}›: how do images go into the network, but which? give ‹data›")
    return jobs


def given_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords of `gate` that say something, as a table of a budget file would hold them."""
    said = with_present_names({name: value for name, value in options.items() if value not in (None, (), [])})
    given = {name.replace("_", "-"): value for name, value in said.items()}
    for name, as_type in (("data", str), ("device", str), ("classes", Path), ("baseline", Path)):
        if name in given:
            given[name] = as_type(given[name])
    return given


def scores(model: Path, settings: "GateSettings") -> Scores:
    """Return the score of a model, and of its baseline, on the test images that settings name."""
    from n2n_edge.runs.run import require_pillow

    require_pillow("evaluating a model on images")
    from n2n_edge.runs.accuracy import TestData, file_accuracy

    assert settings.data is not None
    data = TestData(
        settings.data, options_of(settings), settings.classes, settings.bind, settings.task or "auto", settings.decode,
        settings.input_shape,
    )  # fmt: skip
    return Scores(*file_accuracy(model, data, baseline=settings.baseline))
