"""Quantization of a file: calibrated, distilled if asked to, timed beside its float twin, rejected where it loses."""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import onnx_ir as ir

from n2n_edge.data.loading import quiet
from n2n_edge.devices.profile import Profile
from n2n_edge.errors import BudgetMissedError, InputError, naming
from n2n_edge.foreign import foreign_file
from n2n_edge.graph.free_batch import takes_one_image
from n2n_edge.graph.free_size import batch_name, free_size
from n2n_edge.graph.input_shape import image_shape, leaves_size_free, with_input_shape
from n2n_edge.graph.load import load_model, save_model
from n2n_edge.graph.quantized import precision_table
from n2n_edge.latency.file_figures import ModelFile
from n2n_edge.metrics.figures import Figure
from n2n_edge.metrics.notices import Notice
from n2n_edge.metrics.scores import drop
from n2n_edge.quantize.calibrate import METHODS
from n2n_edge.quantize.device_plan import host_plan, is_x86
from n2n_edge.quantize.half import in_half
from n2n_edge.quantize.plan import QuantizationPlan
from n2n_edge.quantize.ptq import Quantized, Validation, post_train, quantized
from n2n_edge.runs.metadata import data_entries, write_in_outer_form
from n2n_edge.runs.parity import check_parity
from n2n_edge.runs.quantization_report import Distillation, QuantizationReport
from n2n_edge.runs.quantization_source import BOUND, Source, default_plan, source_of
from n2n_edge.runs.quantization_training import distilled
from n2n_edge.runs.quantization_verdict import objections, timed_ratio
from n2n_edge.runs.quantize_settings import QuantizeSettings, checked
from n2n_edge.runs.settings import CompressSettings
from n2n_edge.tasks.choice import metric_name, task_of
from n2n_edge.tasks.paired import paired_difference
from n2n_edge.training.file_evaluation import file_meters
from n2n_edge.writing import write_text

__all__ = ["quantize_file", "quantize_model"]

_METADATA = "n2n_edge.quantization"
_STALE = ("n2n_edge.metrics.figures", "n2n_edge.budgets", "n2n_edge.profile")
"""What metadata say of the float file that doesn't hold for the quantized one."""
_VALIDATION_IMAGES = 256

_Say = Callable[[str], None]


def quantize_model(
    model: Path | str,
    data: Path | str,
    *,
    out: Path | str | None = None,
    precision: Literal["int8", "fp16"] = "int8",
    device: str = "cpu",
    keep_float: Sequence[str] = (),
    max_drop: float = 1.0,
    opset: int | None = None,
    calibration: Literal["auto", "minmax", "percentile", "entropy", "mse"] = "auto",
    images: int = 256,
    target: str = "host",
    threads: int | None = None,
    max_time: float = 10.0,
    epochs: int | None = None,
    minutes: float | None = None,
    label_weight: float = CompressSettings.label_weight,
    augment: str = CompressSettings.augment,
    flip: bool | None = None,
    train_device: str = CompressSettings.train_device,
    force: bool = False,
    task: str = "auto",
    decode: str | None = None,
    classes: Path | str | None = None,
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
    input_shape: Sequence[int] | None = None,
    bind: Sequence[str] = (),
    seed: int = 0,
    on_message: Callable[[str], None] = lambda text: None,
) -> QuantizationReport:
    """Quantize an ONNX file, and write it to `out` unless it loses more than allowed or is slower.

    >>> report = n2n_edge.quantize_model(
    ...     example_teacher, "builtin:digits", out=folder / "int8.onnx", device="raspberry-pi-4",
    ...     images=32, max_time=0.1, force=True,
    ... )
    >>> report.out.name, report.precisions.macs["int8"] > 0
    ('int8.onnx', True)

    Keywords are the options of ``n2n-edge quantize``; how images go into the network is told as for `compress`.
    `max_drop` is in points of a hundred, `max_time` in seconds. With `epochs`, or `minutes` of training at most, the
    calibrated network is distilled from the float one on the training images, and ships if that made it better. A file
    that is rejected isn't written, `out` of the report is None and `reasons` say why; with `force` it is written all
    the same. `on_message` is told what happens.

    Raises:
        InputError: a file that can't be quantized, is so already, or whose data don't fit; layers that don't exist.
        BudgetMissedError: the quantized file gives what isn't finite.
        UnsuitableEnvironmentError: ONNX Runtime can't run one of the files, or gives other outputs than the network had
            in training.
    """
    of_data = CompressSettings(
        teacher=str(model),
        data=str(data),
        task=task,
        decode=decode,
        classes=None if classes is None else str(classes),
        mean=None if mean is None else tuple(mean),
        std=None if std is None else tuple(std),
        pixels=pixels,
        channels=channels,
        resize=resize,
        crop_ratio=crop_ratio,
        interpolation=interpolation,
        antialias=antialias,
        pad_color=None if pad_color is None else tuple(pad_color),
        pad_position=pad_position,
        input_shape=None if input_shape is None else tuple(input_shape),
        bind=tuple(bind) or None,
        seed=seed,
        label_weight=label_weight,
        augment=augment,
        flip=flip,
        train_device=train_device,
    )
    settings = QuantizeSettings(
        of_data, precision, device, tuple(keep_float), max_drop, opset, calibration, images, target, threads, max_time,
        force, epochs, minutes,
    )  # fmt: skip
    return quantize_file(settings, None if out is None else Path(out), on_message)


def quantize_file(
    settings: QuantizeSettings, out: Path | None = None, say: _Say = lambda text: None
) -> QuantizationReport:
    """Quantize the file that `settings` name, and write it to `out` (by default beside it) with a JSON document.

    Nothing is written where it is slower than its float twin or loses more than allowed, unless it is forced, nor of
    a quantization that ends before its end: training that is killed starts anew.

    Raises:
        InputError: a file that can't be quantized, is so already, or whose data don't fit; layers that don't exist.
        BudgetMissedError: the quantized file gives what isn't finite.
        UnsuitableEnvironmentError: ONNX Runtime can't run one of the files, or gives other outputs than the network had
            in training.
    """
    order = checked(settings, out)
    model, profile, out = order.model, order.profile, order.out
    with ExitStack() as stack:
        stack.enter_context(quiet())
        folder = stack.enter_context(TemporaryDirectory())
        file, timed_file = Path(folder, "quantized", out.name), Path(folder, "timed.onnx")
        stack.enter_context(naming({Path(folder, BOUND): model, file: out, timed_file: out}))
        source = source_of(order, settings, Path(folder), say)
        plan = default_plan(source, profile, settings)
        found, distillation, shipped, timed = _quantized(source, plan, settings, say)
        file.parent.mkdir()
        _write(shipped, source, settings, file)
        if distillation is not None and found is not None:
            distillation = _proven(distillation, found, source, file, say)
        if timed is None:
            timed_file = file
        else:
            _write(timed, source, settings, timed_file)
        report = _report(model, source, file, timed_file, found, profile, settings, say)
        report = replace(report, distillation=distillation)
        if report.accepted or settings.force:
            document = out.with_suffix(".json")
            shutil.copyfile(file, out.with_name(f".{out.name}.partial"))
            out.with_name(f".{out.name}.partial").replace(out)
            report = replace(report, out=out)
            write_text(document, json.dumps(report.to_json(), indent=2) + "\n")
    return report


def _quantized(
    source: Source, plan: QuantizationPlan, settings: QuantizeSettings, say: _Say
) -> tuple[Quantized | None, Distillation | None, ir.Model, ir.Model | None]:
    """Return how it came about, what ships, and the twin that is timed instead on a host of another architecture."""
    if settings.precision == "fp16":
        return None, None, in_half(source.graph, plan.float_nodes), None
    validation = Validation(source.graph, source.data, source.data.validation, _VALIDATION_IMAGES)
    methods = METHODS if settings.calibration == "auto" else (settings.calibration,)
    with foreign_file(source.path):
        found = post_train(
            source.graph,
            source.data,
            validation,
            plan,
            images=settings.images,
            methods=methods,
            max_drop=settings.max_drop,
            watch=say,
        )
    distillation: Distillation | None = None
    if settings.distils:
        found, distillation = distilled(found, source.graph, source.data, validation, settings, say)
    if plan.activations == "int8" and settings.target == "host" and is_x86():
        twin = quantized(found.graph, found.ranges, host_plan(found.plan.float_nodes))
        return found, distillation, found.model, twin
    return found, distillation, found.model, None


def _proven(distillation: Distillation, found: Quantized, source: Source, file: Path, say: _Say) -> Distillation:
    """Prove that the file computes what the network did in training, and return the distillation with that."""
    free = free_size(source.teacher)
    another = None if free is None else free.shape
    parity = check_parity(found.training, file, source.data, another, coarse=True)
    say(parity.in_words)
    return replace(distillation, parity=parity)


def _write(model: ir.Model, source: Source, settings: QuantizeSettings, path: Path) -> None:
    """Write a graph as its float file was: batch, sizes and metadata; what it says of itself in addition."""
    stamped = model.clone()
    data, given = source.data, source.teacher.source
    stamped.metadata_props.clear()
    stamped.metadata_props.update({name: text for name, text in given.metadata_props.items() if name not in _STALE})
    entries = {
        **data_entries(data),
        _METADATA: {
            "precision": settings.precision,
            "device": settings.device,
            "float_sha256": hashlib.sha256(source.path.read_bytes()).hexdigest(),
        },
    }
    stamped.metadata_props.update({name: json.dumps(entry, sort_keys=True) for name, entry in entries.items()})
    alone = takes_one_image(given) or takes_one_image(source.teacher.model)
    write_in_outer_form(stamped, path, alone, batch_name(given), free_size(source.teacher), settings.opset, None)


def _report(
    model: Path,
    source: Source,
    file: Path,
    timed_file: Path,
    found: Quantized | None,
    profile: Profile,
    settings: QuantizeSettings,
    say: _Say,
) -> QuantizationReport:
    data, shape = source.data, image_shape(source.teacher.model)
    metric = metric_name(source.graph, data)
    unlabelled = metric == "fidelity"
    say(f"evaluating both on {len(data.test):,} test images")
    before, after = file_meters(source.path, file, data.test, data, fidelity=(unlabelled, unlabelled))
    if not math.isfinite(before.evaluation().metric):
        raise InputError(f"{model}: what it gives for the test images isn't finite; check how they go in, or the model")
    if not math.isfinite(after.evaluation().metric):
        raise BudgetMissedError(
            f"{model}: not written, in {settings.precision} what it gives for the test images isn't finite; name "
            "layers that stay float by ‹keep_float›"
        )
    files = ModelFile(source.path, shape), ModelFile(file, shape)
    figures = [dict(each.figures()) for each in files]
    scores = [
        Figure(each.metric, "fraction", "measured", n=each.n) for each in (before.evaluation(), after.evaluation())
    ]
    figures[0][metric], figures[1][metric] = scores
    lost = drop(scores[1], scores[0])
    say("timing both in turns")
    with TemporaryDirectory() as folder:
        float_twin = _at_size(source.path, shape, Path(folder, "float"))
        ratio, warnings = timed_ratio(float_twin, _at_size(timed_file, shape, Path(folder, "quantized")), settings)
    predicted = None
    if not profile.is_host:
        estimates = [each.estimate(profile) for each in files]
        predicted = (estimates[0].figure, estimates[1].figure)
        warnings = (*warnings, *estimates[1].warnings)
    notes = list(source.notes)
    if timed_file != file:
        text = (
            "on this x86 host a twin with unsigned activations is timed: signed ones, which ship for ARM, run in float"
        )
        notes.append(Notice("timed-twin", text))
    table = precision_table(files[1].model)
    reasons = objections(lost, ratio, predicted, table, profile, settings)
    return QuantizationReport(
        model=model,
        out=None,
        settings=settings,
        task=task_of(source.graph, data).name,
        metric=metric,
        float_figures=figures[0],
        quantized_figures=figures[1],
        difference=None if unlabelled else paired_difference(before, after),
        drop=lost,
        ratio=ratio,
        predicted=predicted,
        precisions=table,
        found=found,
        reasons=reasons,
        notes=tuple(notes),
        warnings=(*data.warnings, *warnings),
    )


def _at_size(path: Path, shape: tuple[int, int, int], folder: Path) -> Path:
    """Return a file whose input has these sizes: itself, or a copy in a folder where it leaves them free."""
    loaded = load_model(path)
    if not leaves_size_free(loaded):
        return path
    folder.mkdir()
    copy = folder / path.name
    save_model(with_input_shape(loaded, shape, path.name), copy)
    return copy
