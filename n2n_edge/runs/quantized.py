"""Quantization of the winner: calibrated, taught by the teacher, and timed against its float twin before it ships."""

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, cast

import onnx_ir as ir

from n2n_edge.graph.batchnorm import fold_batchnorm
from n2n_edge.graph.file_version import in_version
from n2n_edge.graph.learned import nodes_behind_learned
from n2n_edge.graph.load import save_model
from n2n_edge.graph.quantized import precision_table
from n2n_edge.graph.teacher import surviving
from n2n_edge.latency.file_figures import ModelFile
from n2n_edge.measure.measurement import MeasurementError
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.target import HostTarget
from n2n_edge.metrics.costs import COSTS
from n2n_edge.metrics.figures import Figure, FigureJson
from n2n_edge.metrics.notices import Notice, codes_of, texts_of
from n2n_edge.metrics.precisions import ShippedPrecision
from n2n_edge.metrics.verdict import verdicts_on
from n2n_edge.quantize.device_plan import host_plan, is_x86
from n2n_edge.quantize.half import in_half
from n2n_edge.quantize.plan import QuantizationPlan
from n2n_edge.quantize.ptq import Quantized, Validation, post_train, quantized
from n2n_edge.quantize.qdq import folded
from n2n_edge.report.document import PrecisionJson, PrecisionStepJson
from n2n_edge.runs.beside_twin import MEANINGLESS, slow_because, timed_in_turns
from n2n_edge.runs.callbacks import RunCallback
from n2n_edge.runs.final import FinalPlan, Precision, ShippedForm, Trained
from n2n_edge.runs.folder import RunFolder
from n2n_edge.runs.prepare import Prepared
from n2n_edge.runs.settings import CompressSettings
from n2n_edge.runs.trainable import shipped_form
from n2n_edge.search.precision import CandidatePrecision
from n2n_edge.search.store import Fact, Journal
from n2n_edge.training.quantization_aware import QuantizeAwareResult, quantize_aware, quantize_aware_settings
from n2n_edge.training.settings import DistillSettings

__all__ = ["MOST_DROP", "TIMED", "TIMING_S", "Decision", "decide", "in_precision", "quantize_trained"]

MOST_DROP = 1.0
"""Points of a hundred that int8 may cost where ‹max_drop› doesn't say."""

_IMAGES, _LEAST_IMAGES = 512, 32
"""Training images for calibration, and validation images on which a step's loss is told; with a time limit at least."""
_CALIBRATED_SHARE, _TOLD_SHARE = 1 / 16, 1 / 64
"""Images of either for each that training has time for: ranges, and losses by step, are told of some ten networks."""
_FAKE_QUANT = 3.0
"""What a step with quantized values takes in steps of the float student."""

_Step = Literal["float", "half", "calibrated", "distilled"]

TIMING_S = 4.0
TIMED = BenchOptions(min_time_s=0.5, max_time_s=TIMING_S)
"""How long the two files are timed in turns; rounds of fresh processes come on top."""


def in_precision(
    prepared: Prepared,
    trained: Trained,
    plan: FinalPlan,
    settings: CompressSettings,
    folder: RunFolder,
    callback: RunCallback,
    journal: Journal | None,
    ends_at: float | None,
) -> Trained:
    """Return the student as it ships: with the regions of its architecture in int8, if that pays, else as it is.

    Calibrated, then distilled with quantized values from the float teacher, as long as `ends_at` allows. It is timed
    against its float twin, in turns on this host, and by prediction on other devices. What is slower, or loses more
    score than `max_drop` (a point of a hundred where none is given), gives way to the twin, where that keeps all
    budgets and ‹precision› is ``auto``. `journal` keeps what was decided.
    """
    int8 = trained.architecture.int8
    start = time.monotonic()
    twin = shipped_form(trained.result.model, prepared.restored)
    if settings.precision == "fp16":
        return _halved(trained, twin, fold_batchnorm(trained.result.model), prepared, settings, journal)
    if not int8:
        return trained
    made = quantize_trained(prepared, trained, plan, folder, callback, ends_at)
    first, validation = made.first, made.validation
    shipped = folded(made.result.model)
    forms: tuple[tuple[_Step, ir.Model], ...] = (
        ("float", made.floats), ("calibrated", first.model), ("distilled", shipped),
    )  # fmt: skip
    steps: list[PrecisionStepJson] = [
        {"step": step, "drop": validation.drop(form), "loss": validation.loss(form)} for step, form in forms
    ]
    timed = shipped
    if is_x86() and made.quantization.activations == "int8":  # ONNX Runtime has no integer kernels for these here
        timed = quantized(first.graph, first.ranges, host_plan(first.plan.float_nodes))
    tried = _trial(twin, shipped, timed, prepared, settings, journal)
    precision = _decided("int8", shipped, tried, steps, first.steps, int8, prepared, settings)
    trained = replace(trained, precision=precision, seconds=trained.seconds + time.monotonic() - start)
    return replace(trained, result=replace(trained.result, model=made.result.model)) if trained.int8 else trained


@dataclass(frozen=True)
class QuantizedStudent:
    """A student as `floats`, calibrated (`first`) and then distilled (`result`); `validation` tells what that costs."""

    floats: ir.Model
    quantization: QuantizationPlan
    first: Quantized
    result: QuantizeAwareResult
    validation: Validation


def quantize_trained(
    prepared: Prepared,
    trained: Trained,
    plan: FinalPlan,
    folder: RunFolder,
    callback: RunCallback,
    ends_at: float | None,
) -> QuantizedStudent:
    """Return a trained student calibrated in the int8 of its architecture, and distilled so until `ends_at`."""
    int8 = trained.architecture.int8
    model = fold_batchnorm(trained.result.model)
    quantization = CandidatePrecision(prepared.teacher, "int8", prepared.profile).plan(model, int8)
    callback.on_message(f"calibrating {len(int8)} of {len(prepared.teacher.regions)} regions in int8")
    teaching = quantize_aware_settings(
        replace(prepared.distilling, epochs=max(1, plan.epochs), images_per_epoch=plan.images)
    )
    calibrating = told = _IMAGES
    if ends_at is not None:
        teaching, passes = _within(teaching, plan, len(prepared.data.train))
        calibrating, told = (
            min(_IMAGES, max(_LEAST_IMAGES, int(passes * share))) for share in (_CALIBRATED_SHARE, _TOLD_SHARE)
        )
    validation = Validation(prepared.teacher.model, prepared.data, prepared.data.validation, told, twin=model)
    first = post_train(
        model,
        prepared.data,
        validation,
        quantization,
        images=calibrating,
        max_drop=math.inf,  # training may win it back
        watch=callback.on_message,
    )
    # hints are compared with the teacher's features, which those of an equalised network aren't
    kept = surviving(prepared.teacher, trained.architecture) if first.graph is model else None
    callback.on_message(f"quantization-aware distillation for {teaching.epochs} epochs")
    result = quantize_aware(
        first.training,
        prepared.teacher.model,
        prepared.data,
        teaching,
        kept=kept,
        checkpoint=folder.quantized_checkpoint,
        seconds=None if ends_at is None else max(ends_at - time.monotonic(), 1.0),
        on_epoch=callback.on_epoch,
        on_step=callback.on_step,
    )
    return QuantizedStudent(model, quantization, first, result, validation)


def _within(teaching: DistillSettings, plan: FinalPlan, images: int) -> tuple[DistillSettings, int]:
    """Return settings that take as long as the float student's training, and how many images that went through."""
    passes = max(1, plan.epochs) * (images if plan.images is None else plan.images)
    fitting = passes / _FAKE_QUANT
    each = images if teaching.images_per_epoch is None else teaching.images_per_epoch
    epochs = max(1, min(teaching.epochs, int(fitting / each)))
    each = max(1, min(each, int(fitting / epochs)))
    return replace(teaching, epochs=epochs, images_per_epoch=None if each == images else each), passes


def _halved(
    trained: Trained,
    twin: ir.Model,
    model: ir.Model,
    prepared: Prepared,
    settings: CompressSettings,
    journal: Journal | None,
) -> Trained:
    """Return the student in float16: it ships in any case, with warnings where that doesn't pay."""
    shipped = in_half(model, nodes_behind_learned(model))
    validation = Validation(prepared.teacher.model, prepared.data, prepared.data.validation, _IMAGES, twin=model)
    forms: tuple[tuple[_Step, ir.Model], ...] = (("float", model), ("half", shipped))
    steps: list[PrecisionStepJson] = [
        {"step": step, "drop": validation.drop(form), "loss": validation.loss(form)} for step, form in forms
    ]
    tried = _trial(twin, shipped, shipped, prepared, settings, journal)
    names = frozenset(region.name for region in prepared.teacher.regions)
    return replace(trained, precision=_decided("fp16", shipped, tried, steps, {}, names, prepared, settings))


@dataclass(frozen=True)
class _Tried:
    """What the two files cost: latency by device of the int8 one over its twin's, with the interval if timed.

    `twin_keeps` tells whether the twin keeps every budget but those on scores, `misses` those that it doesn't.
    """

    ratios: Mapping[str, FigureJson]
    twin_mb: float
    mb: float
    misses: tuple[str, ...]


def _trial(
    twin: ir.Model,
    shipped: ir.Model,
    timed: ir.Model,
    prepared: Prepared,
    settings: CompressSettings,
    journal: Journal | None,
) -> _Tried:
    """Return the costs of the student in both forms, once for a `journal`.

    `timed` stands for `shipped` where this host can't run that.
    """
    known = None if journal is None else journal.cached(Fact.FINAL, "precision")
    if known is None:
        known = asdict(_costs_of(twin, shipped, timed, prepared, settings))
        if journal is not None:
            journal.store(Fact.FINAL, "precision", known)
    return _Tried(**known)


def _costs_of(
    twin: ir.Model, shipped: ir.Model, timed: ir.Model, prepared: Prepared, settings: CompressSettings
) -> _Tried:
    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name) / "float.onnx", Path(name) / "int8.onnx", Path(name) / "timed.onnx"]
        for path, model in zip(paths, (twin, shipped, timed), strict=True):
            save_model(in_version(model, settings.opset, settings.ir_version), path)
        files = [ModelFile(path, prepared.input_shape) for path in paths[:2]]
        ratios: dict[str, FigureJson] = {}
        latencies: dict[str, Figure] = {}
        for device in {profile.name: profile for profile in (prepared.host, *prepared.profiles)}.values():
            if not device.is_host:
                before, after = (file.estimate(device).figure for file in files)
                latencies[device.name] = before
                ratios[device.name] = Figure(after.value / before.value, "ratio", after.provenance).to_json()
                continue
            try:
                options = replace(TIMED, threads=device.default_threads, providers=device.providers)
                ratio, measured, _ = timed_in_turns([paths[0], paths[2]], options, HostTarget())
            except MeasurementError:
                continue
            if ratio is not None and measured is not None:
                latencies[device.name] = measured.latency()
                ratios[device.name] = ratio.to_json()
        figures = [file.figures() for file in files]
        misses = [
            verdict.budget.cost
            for budget in settings.budgets
            for device in (prepared.profiles if budget.cost == "latency_ms" else prepared.profiles[:1])
            if budget.cost in figures[0] or device.name in latencies
            for verdict in verdicts_on(
                {**figures[0], **({"latency_ms": latencies[device.name]} if device.name in latencies else {})},
                [budget],
                accept_expected=settings.accept_expected,
                device=device.name,
            )
            if not verdict.met
        ]
    return _Tried(ratios, figures[0]["size_mb"].value, figures[1]["size_mb"].value, tuple(dict.fromkeys(misses)))


@dataclass(frozen=True)
class Decision:
    """Whether the quantized form ships, and what is told of it; `rejected` are its faults where it doesn't."""

    ships: bool
    rejected: tuple[Notice, ...] = ()
    warnings: tuple[Notice, ...] = ()

    @property
    def notices(self) -> tuple[Notice, ...]:
        """The note of a form that was rejected."""
        if self.ships:
            return ()
        text = f"the float student ships, int8 was rejected: {'; '.join(each.text for each in self.rejected)}"
        return (Notice("int8-rejected", text),)


def decide(
    asked: str,
    ratios: Mapping[str, FigureJson],
    drop: float,
    allowed: float,
    missed: Sequence[str],
    why: str = "",
    form: str = "int8",
) -> Decision:
    """Decide whether a student ships in `form`.

    It does where it isn't slower than its float twin on any of the devices of `ratios` (latency over the twin's) and
    loses at most `allowed` points. Else it ships with warnings if it was `asked` for, or if the twin has `missed`
    budgets (costs by name) that it keeps. `why` says what makes it slow.
    """
    faults = []
    slower = [(name, ratio) for name, ratio in ratios.items() if _is_slower(ratio)]
    if slower:
        name, ratio = slower[0]
        text = f"{form} {_ratio_in_words(ratio)} the time of its float twin on {name}{f' ({why})' if why else ''}"
        faults.append(Notice(f"{form}-slower", text))
    if drop > allowed:
        text = f"{form} loses {drop:.2f} points of its float twin's score on validation images, {allowed:g} are allowed"
        faults.append(Notice(f"{form}-loses", text))
    remedy = ""
    if asked != "auto":
        remedy = "give ‹precision› auto to ship float where int8 doesn't pay" if form == "int8" else "give fp32"
    elif missed:
        limits = " and ".join(COSTS[cost].label.lower() for cost in missed)
        remedy = f"it ships all the same: its float twin doesn't keep the budget on {limits}"
    elif faults:
        return Decision(False, tuple(faults))
    return Decision(True, warnings=tuple(replace(each, remedy=remedy) for each in faults))


def _decided(
    form: ShippedForm,
    shipped: ir.Model,
    tried: _Tried,
    steps: list[PrecisionStepJson],
    losses: Mapping[str, float],
    regions: frozenset[str],
    prepared: Prepared,
    settings: CompressSettings,
) -> Precision:
    """Return what becomes of a student that is `shipped` in `form`."""
    allowed = MOST_DROP if settings.max_drop is None else settings.max_drop
    ratios = {device.name: tried.ratios[device.name] for device in prepared.profiles if device.name in tried.ratios}
    why = slow_because(precision_table(shipped), form, on_host=prepared.profile.is_host)
    decision = decide(settings.precision, ratios, steps[-1]["drop"], allowed, tried.misses, why, form)
    document: PrecisionJson = {
        "asked": cast("ShippedPrecision", settings.precision),
        "ships": form if decision.ships else "fp32",
        "regions": [region.name for region in prepared.teacher.regions if region.name in regions],
        "steps": steps,
        "post_training_losses": dict(losses),
        "latency_ratio": dict(tried.ratios),
        "size_mb": {
            "student": Figure(tried.mb, "MB", "computed").to_json(),
            "twin": Figure(tried.twin_mb, "MB", "computed").to_json(),
        },
        "max_drop": allowed,
        "rejected": list(texts_of(decision.rejected)),
        "rejected_codes": list(codes_of(decision.rejected)),
    }
    return Precision(form if decision.ships else "fp32", document, decision.notices, decision.warnings)


def _is_slower(ratio: FigureJson) -> bool:
    """Tell whether a latency ratio says slower for certain, beyond what is noise; of a prediction, as expected."""
    return float(ratio.get("low", ratio["value"])) > 1 and float(ratio["value"]) > 1 + MEANINGLESS


def _ratio_in_words(ratio: FigureJson) -> str:
    if "low" in ratio:
        return f"takes {ratio['value']:.2f} times ({ratio['low']:.2f} to {ratio['high']:.2f})"
    return f"is predicted to take {ratio['value']:.2f} times"
