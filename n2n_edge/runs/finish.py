"""Export of a student: its file, the proof of parity, every budget checked on the file itself, the report."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import n2n_edge
from n2n_edge.data.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from n2n_edge.data.dataset import Data
from n2n_edge.devices.profile import Profile
from n2n_edge.errors import UnsuitableEnvironmentError
from n2n_edge.foreign import printable
from n2n_edge.graph.batchnorm import fold_batchnorm
from n2n_edge.graph.costs import costs
from n2n_edge.graph.learned import changed_behind, nodes_behind_learned
from n2n_edge.latency.file_figures import Latency, ModelFile
from n2n_edge.latency.model import LatencyModel
from n2n_edge.metrics.figures import Figure, FigureJson
from n2n_edge.metrics.notices import Notice
from n2n_edge.metrics.runtimes import ONNXRUNTIME
from n2n_edge.metrics.verdict import Verdict, verdicts_on
from n2n_edge.quantize.half import in_half
from n2n_edge.quantize.qdq import folded
from n2n_edge.report.document import ConditionJson, ConditionsJson, DeviceJson, RunReport
from n2n_edge.report.html import write_html
from n2n_edge.report.model_card import write_model_card
from n2n_edge.runs.callbacks import RunCallback
from n2n_edge.runs.document import Origin, run_report, write_json
from n2n_edge.runs.examples import worst_examples
from n2n_edge.runs.final import Trained
from n2n_edge.runs.folder import RunFolder, publish, sha256_of
from n2n_edge.runs.layers import layer_rows
from n2n_edge.runs.metadata import with_metadata, write_in_outer_form
from n2n_edge.runs.parity import check_parity
from n2n_edge.runs.prepare import Prepared
from n2n_edge.runs.proven_runtime import real_samples_of
from n2n_edge.runs.quality import Quality, quality_of
from n2n_edge.runs.settings import CompressSettings
from n2n_edge.runs.trainable import shipped_form
from n2n_edge.tasks.choice import metric_name
from n2n_edge.tasks.metrics import Evaluation
from n2n_edge.training.batches import subset
from n2n_edge.training.file_evaluation import file_meters

__all__ = ["ship"]

_CONDITION_IMAGES = 1000
"""Test images that are used under each corruption and severity."""


def ship(
    folder: RunFolder,
    settings: CompressSettings,
    prepared: Prepared,
    trained: Trained,
    origin: Origin,
    callback: RunCallback,
    before_publishing: Callable[[], None] = lambda: None,
    condition_images: int = _CONDITION_IMAGES,
) -> None:
    """Write the student, prove parity, check every budget on the file itself, evaluate it on the test images once.

    The file gets its place and name when all that is done, as the last step; `before_publishing` may still object.

    Raises:
        UnsuitableEnvironmentError: the exported file isn't what was trained; no student is left behind.
    """
    shutil.rmtree(folder.unproven.parent, ignore_errors=True)
    folder.unproven.parent.mkdir()
    try:
        _write(folder.unproven, settings, prepared, trained)
        report = _proven(folder.unproven, settings, prepared, trained, origin, callback, condition_images)
        write_html(report, report["search"]["candidates"], folder.report_html)
        write_model_card(report, folder.model_card)
        before_publishing()
        write_json(report, folder.report_json)
        publish(folder)
    finally:
        shutil.rmtree(folder.unproven.parent, ignore_errors=True)


def _proven(
    student: Path,
    settings: CompressSettings,
    prepared: Prepared,
    trained: Trained,
    origin: Origin,
    callback: RunCallback,
    condition_images: int,
) -> RunReport:
    """Prove that the file is what was trained, find its figures, and return the report."""
    data = prepared.data
    another = None if prepared.free_size is None else prepared.free_size.shape
    parity = check_parity(trained.result.model, student, data, another, coarse=trained.ships != "fp32")
    callback.on_message(parity.in_words)
    notes, warnings = list(prepared.notes), list(prepared.warnings)
    if trained.precision is not None:
        notes += trained.precision.notices
        warnings += trained.precision.warnings
    files = ModelFile(prepared.teacher_path, settings.input_shape), ModelFile(student, prepared.input_shape)
    teacher_figures, student_figures = dict(prepared.figures), files[1].figures()
    devices = list({profile.name: profile for profile in (prepared.host, *prepared.profiles)}.values())
    images = prepared.teacher_data, prepared.data
    for file, own, figures in zip(files, images, (teacher_figures, student_figures), strict=True):
        figures |= _latencies(file, own, devices, prepared, notes, warnings)
    quality = quality_of(prepared, student)
    teacher_figures |= quality.teacher
    student_figures |= quality.student
    verdicts = _verdicts(student_figures, quality, settings, prepared.profiles)
    timed = {profile.name for profile in prepared.profiles if profile.is_host}
    if any(not verdict.met and verdict.device in timed for verdict in verdicts):
        text = "the latency was not within the budget for certain when first timed, and was timed again"
        notes.append(Notice("timed-again", text))
        student_figures |= _latencies(files[1], data, devices, prepared, notes, warnings)
        verdicts = _verdicts(student_figures, quality, settings, prepared.profiles)
    return run_report(
        version=n2n_edge.__version__,
        settings=settings,
        origin=origin,
        teacher=prepared.teacher,
        teacher_path=prepared.teacher_path,
        task={"name": quality.task, "metric": quality.metric, "reason": prepared.task_reason},
        teacher_figures=teacher_figures,
        student_figures=student_figures,
        difference=quality.difference,
        precision_recall=quality.precision_recall,
        verdicts=verdicts,
        parity=parity,
        devices=_devices(files[1], prepared.profiles),
        trained=trained,
        data=data,
        warnings=[*quality.notices, *warnings, *parity.notices, *prepared.data.unreadable()],
        notes=notes,
        examples=worst_examples(prepared.teacher_path, student, prepared.teacher_data, prepared.student_images),
        conditions=_conditions(student, prepared, callback, condition_images) if settings.corruptions else None,
        layers=layer_rows(prepared.teacher, trained.architecture.removed, *files, devices, trained.architecture.linear),
        student_sha256=sha256_of(student),
    )


def _write(path: Path, settings: CompressSettings, prepared: Prepared, trained: Trained) -> None:
    model = folded(trained.result.model) if trained.int8 else shipped_form(trained.result.model, prepared.restored)
    if changed := changed_behind(prepared.teacher.model, model):
        raise UnsuitableEnvironmentError(
            f"{path}: behind the trained layers '{printable(changed)}' isn't what the teacher calculates; report this"
        )
    if trained.ships == "fp16":
        model = in_half(fold_batchnorm(model), nodes_behind_learned(model))
    counted = costs(model)
    figures = {
        "params": Figure(counted.params, "params", "computed"),
        "macs": Figure(counted.macs, "MACs", "computed"),
    }
    for place, profile in enumerate(prepared.profiles):
        if not profile.is_host:
            figures[f"latency_ms:{profile.name}" if place else "latency_ms"] = (
                LatencyModel(profile).estimate(model).figure
            )
    stamped = with_metadata(
        model,
        version=n2n_edge.__version__,
        teacher_sha256=prepared.teacher_sha256,
        profiles=prepared.profiles,
        budgets=settings.budgets,
        figures=figures,
        data=prepared.data,
    )
    one_at_a_time, batch, free = prepared.one_at_a_time, prepared.batch_name, prepared.free_size
    write_in_outer_form(stamped, path, one_at_a_time, batch, free, settings.opset, settings.ir_version)


def _verdicts(
    figures: Mapping[str, Figure], quality: Quality, settings: CompressSettings, profiles: Sequence[Profile]
) -> tuple[Verdict, ...]:
    """Check every budget, that of the latency once on each device."""
    return tuple(
        verdict
        for budget in settings.budgets
        for profile in (profiles if budget.cost == "latency_ms" else profiles[:1])
        for verdict in verdicts_on(
            {**figures, **quality.costs, "latency_ms": figures[f"latency_ms:{profile.name}"]},
            [budget],
            accept_expected=settings.accept_expected,
            device=profile.name,
            metric=quality.metric,
        )
    )


def _devices(student: ModelFile, profiles: Sequence[Profile]) -> list[DeviceJson]:
    """Return the run's devices, each with what the student's latency on it is predicted from."""
    found: list[DeviceJson] = []
    for profile in profiles:
        device: DeviceJson = {
            "name": profile.name, "description": profile.description, "runtime": profile.runtime,
        }  # fmt: skip
        if not profile.is_host:
            estimate = student.estimate(profile)
            device["evidence"] = estimate.basis.to_json()
            if len(estimate.shares) > 1:
                device["shares"] = [share.to_json() for share in estimate.shares]
        found.append(device)
    return found


def _latencies(
    file: ModelFile,
    data: Data,
    devices: Sequence[Profile],
    prepared: Prepared,
    notes: list[Notice],
    warnings: list[Notice],
) -> dict[str, Figure]:
    """Return the measured latency on this host, and that on every device that is another; add what is to be said.

    `data` are images as the file takes them.
    """
    found = {}
    for device in devices:
        name, latency = device.name, _latency(file, device, data)
        found[f"latency_ms:{name}"] = latency.figure
        for said, told in ((notes, latency.notes), (warnings, latency.warnings)):
            if device.is_host:  # how one file was timed; what is predicted, and from what, holds for both
                told = tuple(each.prefixed(f"{file.path.name} on {name}") for each in told)
            elif len(prepared.profiles) > 1:
                told = tuple(each if each.code == "predicted" else each.prefixed(name) for each in told)
            said.extend(each for each in told if each not in said)
    return found


def _latency(file: ModelFile, device: Profile, data: Data) -> Latency:
    """Return the latency on a device; under another runtime than ONNX Runtime real images are the proof before it."""
    if not device.is_host or device.runtime == ONNXRUNTIME:
        return file.latency(device)
    with real_samples_of(data, file.model) as samples:
        return file.latency(device, samples)


def _conditions(student: Path, prepared: Prepared, callback: RunCallback, most: int) -> ConditionsJson:
    """Evaluate teacher and student on corrupted test images, each corruption at every severity."""
    data, own = prepared.teacher_data, prepared.student_images
    callback.on_message(f"evaluating under {len(CORRUPTIONS)} corruptions at {len(SEVERITIES)} severities")
    name, seed = metric_name(prepared.teacher.model, data), prepared.distilling.seed
    splits = [subset(each, most, seed) for each in (data.test, prepared.data.test)]
    rows: list[ConditionJson] = []
    for corruption in CORRUPTIONS:
        for severity in SEVERITIES:
            changed = [corrupted(images, corruption, severity, seed) for images in splits]
            meters = file_meters(
                prepared.teacher_path, student, changed[0], data, fidelity=(False, name == "fidelity"),
                own=None if own is None else (changed[1], own[1]),
            )  # fmt: skip
            first, second = (each.evaluation() for each in meters)
            rows.append(
                {
                    "corruption": corruption,
                    "severity": severity,
                    "teacher": None if name == "fidelity" else _fraction(first),
                    "student": _fraction(second),
                }
            )
    return {"metric": name, "rows": rows}


def _fraction(found: Evaluation) -> FigureJson:
    return Figure(found.metric, "fraction", "measured", n=found.n).to_json()
