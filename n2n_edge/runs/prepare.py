"""Preparation of a run: teacher, data and devices loaded and checked before the first candidate."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np
import onnx_ir as ir
import torch

from n2n_edge._example import teacher_path as example_teacher
from n2n_edge.data.class_names import read_class_names
from n2n_edge.data.dataset import Data, Split, load_data
from n2n_edge.data.loading import Loading
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.data.preprocessing_options import options_of
from n2n_edge.devices.profile import Profile
from n2n_edge.devices.registry import load_profile
from n2n_edge.errors import InputError, UnsuitableEnvironmentError
from n2n_edge.graph.bind import bind, parse_bindings
from n2n_edge.graph.file_version import in_version
from n2n_edge.graph.free_batch import takes_one_image
from n2n_edge.graph.free_size import FreeSize, batch_name, free_size
from n2n_edge.graph.input_shape import image_shape, input_layout, leaves_size_free, shape_words
from n2n_edge.graph.load import load_model, save_model
from n2n_edge.graph.teacher import Teacher
from n2n_edge.importing import function_by_name, is_function_name
from n2n_edge.latency.file_figures import file_figures
from n2n_edge.metrics.figures import Figure
from n2n_edge.metrics.notices import Notice
from n2n_edge.metrics.scores import metric_label
from n2n_edge.runs.callbacks import RunCallback
from n2n_edge.runs.folder import RunFolder
from n2n_edge.runs.input_size import at_input_size
from n2n_edge.runs.normalisation import Normalisation, choose_normalisation
from n2n_edge.runs.preprocessing import preprocessing_for
from n2n_edge.runs.proven_runtime import prove_teacher, refuse_runtime
from n2n_edge.runs.readiness import export_note, refuse_unready, runtime_note
from n2n_edge.runs.settings import CompressSettings
from n2n_edge.runs.teacher_check import check_teacher
from n2n_edge.runs.trainable import trainable_teacher
from n2n_edge.search.proposers.base import check_proposer
from n2n_edge.tasks.choice import TaskChoice, choose_task, metric_name, outputs_name, recorded_task
from n2n_edge.tasks.detection_choice import classes_of_detector
from n2n_edge.tasks.outputs import class_count
from n2n_edge.tasks.task import Task
from n2n_edge.training.batches import subset
from n2n_edge.training.compute import Engine
from n2n_edge.training.evaluation import batch_for, evaluate, scale_warnings
from n2n_edge.training.executor import GraphModule
from n2n_edge.training.settings import DistillSettings, Precision
from n2n_edge.training.torch_teachers import is_torch_teacher, torch_teacher

__all__ = ["Prepared", "data_of", "distill_settings", "prepare", "refuse_changes"]

_EXAMPLE_DATA = "builtin:digits"
_NAMES_SHOWN = 3
_USUAL_BATCH, _LOOKED_AT = 256, 4
_POOR = 0.03
"""A score of 1.5 times this speaks of a teacher that is fed wrongly."""


@dataclass(frozen=True)
class Original:
    """A teacher at its own size of image, where the student's is another: its normalised graph, and its images."""

    model: ir.Model
    data: Data


@dataclass(frozen=True)
class Prepared:
    """Teacher, data and device as a run uses them.

    `teacher` is trainable: `restored` names the BatchNorms that were put back. `figures` are the costs of the teacher's
    own file, `metric` its score on the validation images, `task_reason` why it is taken to do its task, `host` the
    profile of this machine; of
    `profiles` the first is the primary device. `one_at_a_time`: the file's batch is fixed at one, and so is the
    student's, else the batch axis is called `batch_name`. `free_size`: the file leaves height and width free, and so
    does the student.

    Where the student takes images of another size (see `at_input_size`), `teacher` and `data` are at that size, and
    `original` is the teacher as it was. `input_shape` is the student's where its file leaves that free.
    """

    teacher: Teacher
    teacher_path: Path
    teacher_sha256: str
    data_sha256: str
    figures: dict[str, Figure]
    metric: float
    profiles: tuple[Profile, ...]
    host: Profile
    data: Data
    task_reason: str
    distilling: DistillSettings
    warnings: tuple[Notice, ...]
    notes: tuple[Notice, ...]
    restored: tuple[str, ...]
    one_at_a_time: bool
    batch_name: str
    free_size: FreeSize | None
    original: Original | None
    input_shape: tuple[int, ...] | None

    @property
    def teacher_data(self) -> Data:
        """The images as the teacher's file takes them."""
        return self.data if self.original is None else self.original.data

    @property
    def student_images(self) -> tuple[Split, Data] | None:
        """The test images as the student takes them, None where the teacher takes the same."""
        return None if self.original is None else (self.data.test, self.data)

    def tested_on(self, images: int) -> "Prepared":
        """Return the same with so many of the test images, drawn by the seed."""

        def fewer(data: Data) -> Data:
            return replace(data, test=subset(data.test, images, self.distilling.seed))

        original = None if self.original is None else replace(self.original, data=fewer(self.original.data))
        return replace(self, data=fewer(self.data), original=original)

    @property
    def profile(self) -> Profile:
        """The primary device."""
        return self.profiles[0]


def prepare(
    settings: CompressSettings,
    profiles: tuple[Profile, ...],
    folder: RunFolder,
    callback: RunCallback,
    cache: Path | None = None,
) -> Prepared:
    """Load and check everything that `settings` name; a torch teacher is exported to `folder` once.

    Images of a large folder are decoded later, into `cache` (the default is that of `folder`).

    Raises:
        InputError: anything wrong with teacher, data, policy, precision or normalisation.
        ConversionError: the teacher can't be converted for the runtime that the run is for, or isn't the same there.
        UnsuitableEnvironmentError: that runtime isn't installed.
    """
    check_proposer(settings.policy)
    refuse_runtime(profiles, settings.precision)
    distilling = distill_settings(settings)
    engine = Engine.of(distilling)
    if engine.device.type == "cuda" and distilling.processes > torch.cuda.device_count():
        raise UnsuitableEnvironmentError(
            f"‹gpus› {settings.gpus}: this machine has {torch.cuda.device_count()}; give that many at most"
        )
    if engine.device.type != "cuda" and distilling.processes > 1:
        raise UnsuitableEnvironmentError(f"‹gpus› {settings.gpus}: torch finds no CUDA device here; leave it out")
    path = _teacher_file(settings, folder, callback)
    teacher = Teacher.load(path, settings.input_shape)
    refuse_unready(teacher, path)
    in_version(teacher.model, settings.opset, settings.ir_version)  # what can't be written is told before anything
    callback.on_message(_summary(teacher, path))
    noted = tuple(Notice("export", note) for note in (export_note(teacher),) if note)
    for notice in noted:
        callback.on_message(notice.text)
    any_size, of_batch = free_size(teacher), batch_name(teacher.source)
    if leaves_size_free(teacher.source):
        sizes = shape_words(image_shape(teacher.model))
        advice = "" if settings.input_shape else " (give ‹input_shape› for another)"
        ships = "is free, too" if any_size else "has that size: constants within are for it"
        callback.on_message(f"the teacher's input has any size: trained at {sizes}{advice}; the student's {ships}")
    if input_layout(teacher.model) == "nhwc":
        callback.on_message("the teacher takes channels last, (N, height, width, channels), and so does the student")
    GraphModule(teacher.model)  # an op that can't be trained is found before anything is begun
    if by_runtime := runtime_note(teacher):
        callback.on_message(by_runtime)
    spec = settings.data or _EXAMPLE_DATA
    loading = Loading(
        settings.data_workers, settings.cache_gb, settings.strict_data, cache or folder.cache, callback.on_scan
    )
    data, choice, normalised = data_of(teacher, settings, spec, loading, engine, callback.on_message)
    if of_labels := _labels_note(choice.task, data, settings.label_weight, settings.augment):
        callback.on_message(of_labels)
    original, input_shape = Original(teacher.model, data), settings.input_shape
    of_size: tuple[Notice, ...] = ()

    def load(other: Teacher) -> Data:
        return data_of(other, settings, spec, loading, engine, lambda _: None)[0]

    sized = at_input_size(settings, profiles, folder, path, teacher, data, load, callback.on_message)
    if sized is not None:
        teacher, data, of_size = sized.teacher, sized.data, sized.notices
        any_size = free_size(teacher)
        input_shape = sized.shape if leaves_size_free(teacher.source) else None
    one_at_a_time = takes_one_image(teacher.source) or takes_one_image(teacher.model)
    if one_at_a_time:
        alone = "; operators that can't take several run for each alone" if takes_one_image(teacher.model) else ""
        callback.on_message(
            f"the teacher takes one image at a time: trained in batches{alone}, the student ships like it"
        )
    if settings.batch is None or settings.batch < distilling.batch_size:
        distilling = distilling.for_images(len(data.train))
    trained, restored = trainable_teacher(teacher, data)
    with _as_file(path, teacher, resized=sized is not None) as file:
        check_teacher(file, [teacher.model, trained.model] if restored else [teacher.model], data)
        prove_teacher(file, teacher.model, profiles, data, input_shape, callback.on_message)
    metric, of_metric = _teacher_metric(teacher, data, callback, engine)
    if restored:
        callback.on_message(f"put back the BatchNorm of {len(restored)} layers that had been folded away")
    return Prepared(
        teacher=trained,
        teacher_path=path,
        teacher_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        data_sha256=data.digest(),
        figures=file_figures(path, settings.input_shape),
        metric=metric,
        profiles=profiles,
        host=next((profile for profile in profiles if profile.is_host), None)
        or load_profile("cpu").under(profiles[0].runtime),
        data=data,
        task_reason=choice.reason,
        distilling=distilling,
        notes=(*normalised, *of_size),
        warnings=(*noted, *data.warnings, *of_metric, *scale_warnings(teacher.model, data, engine)),
        restored=restored,
        one_at_a_time=one_at_a_time,
        batch_name=of_batch,
        free_size=any_size,
        original=None if sized is None else original,
        input_shape=input_shape,
    )


def data_of(
    teacher: Teacher,
    settings: CompressSettings,
    spec: str,
    loading: Loading,
    engine: Engine,
    on_message: Callable[[str], None],
) -> tuple[Data, TaskChoice, tuple[Notice, ...]]:
    """Return the data that settings name as a teacher takes them, with what it does on them, and notes on both.

    Raises:
        InputError: data that can't be read or don't fit, or preprocessing that doesn't.
    """
    chosen = preprocessing_for(teacher.model, teacher.source.metadata_props, options_of(settings))
    loaded, choice = _load(settings, teacher, chosen.preprocessing, spec, loading)
    data, normalisation = _normalised(teacher, loaded, chosen.normalisation, engine)
    on_message(f"data {spec}: {data.counts}; normalisation {normalisation.note}")
    on_message(f"preprocessing: {data.preprocessing.words()} ({chosen.origin})")
    on_message(f"task: {choice.task.name} ({choice.reason})")
    return data, choice, normalisation.notices


def refuse_changes(meta: Mapping[str, object], prepared: Prepared, run: Path) -> None:
    """Raise InputError where a run's journal was begun with another teacher, or other images or labels.

    What a run has worked out is true of its own teacher and data only; files that moved, or were written anew with the
    same bytes, are the same. Older journals don't tell of data.
    """
    if meta.get("teacher_sha256") != prepared.teacher_sha256:
        raise InputError(f"{run}: the teacher has changed since this run began; start a new run with another ‹out›")
    known = meta.get("data_sha256")
    if known is not None and known != prepared.data_sha256:
        raise InputError(
            f"{run}: the data have changed since this run began, or are others each time they are read (random "
            "changes in a Dataset); restore them, or start a new run with another ‹out›"
        )


def _teacher_file(settings: CompressSettings, folder: RunFolder, callback: RunCallback) -> Path:
    if settings.teacher is not None and is_torch_teacher(settings.teacher):
        if not folder.teacher.exists():
            callback.on_message(f"exporting {settings.teacher}")
            model = torch_teacher(
                settings.teacher, settings.weights, settings.input_shape, trust_pt2=settings.trust_pt2
            )
            save_model(model, folder.teacher)
        return folder.teacher
    if settings.weights is not None:
        raise InputError(f"‹weights› {settings.weights}: an ONNX teacher holds its weights; leave it out")
    path = example_teacher() if settings.teacher is None else Path(settings.teacher)
    if settings.bind:
        save_model(bind(load_model(path), parse_bindings(settings.bind)), folder.teacher)
        return folder.teacher
    return path


@contextmanager
def _as_file(path: Path, teacher: Teacher, *, resized: bool) -> Iterator[Path]:
    """Give the teacher's file, or while this lasts one of it at the size that the student takes."""
    if not resized:
        yield path
        return
    with TemporaryDirectory() as folder:
        file = Path(folder, path.name)
        save_model(teacher.source, file)
        yield file


def _summary(teacher: Teacher, path: Path) -> str:
    removable = len(teacher.removable)
    shrinkable = sum(group.shrinkable for group in teacher.groups)
    text = (
        f"teacher {path.name}: {removable} of {len(teacher.layers)} layers can be removed, "
        f"{shrinkable} of {len(teacher.groups)} channel groups can shrink"
    )
    touchable = teacher.touchable
    text += f": {touchable.params_share:.1%} of the params and {touchable.macs_share:.1%} of the MACs of all layers"
    kept = [f"{name} ({reason})" for name, reason in touchable.reasons.items()]
    more = f" and {len(kept) - _NAMES_SHOWN} more, see `n2n-edge inspect`" if len(kept) > _NAMES_SHOWN else ""
    return text + (f"; these stay as they are: {', '.join(kept[:_NAMES_SHOWN])}{more}" if kept else "")


def _load(
    settings: CompressSettings, teacher: Teacher, preprocessing: Preprocessing, spec: str, loading: Loading
) -> tuple[Data, TaskChoice]:
    recorded = recorded_task(teacher.source.metadata_props)
    wanted = settings.task if settings.task != "auto" else str(recorded.get("task", "auto"))
    data = load_data(
        spec,
        preprocessing=preprocessing,
        classes=class_count(teacher.model, outputs_name(wanted)),
        may_be_values=True,
        seed=settings.seed,
        class_names=None if settings.classes is None else read_class_names(Path(settings.classes)),
        loading=loading,
        object_classes=lambda: classes_of_detector(teacher.model, *preprocessing.size),
        unlabelled=settings.unlabelled or (),
    )
    return choose_task(teacher.model, data, settings.task, decode=settings.decode, recorded=recorded)


def _normalised(teacher: Teacher, data: Data, told: Normalisation | None, engine: Engine) -> tuple[Data, Normalisation]:
    if told is not None:
        return data, told
    chosen = choose_normalisation(
        data, lambda split, normalised: evaluate(teacher.model, split, normalised, engine=engine)
    )
    return data.normalised(chosen.mean, chosen.std), chosen


def distill_settings(settings: CompressSettings) -> DistillSettings:
    """Return how a run's students are trained."""
    usual = DistillSettings.batch_size
    if is_function_name(settings.augment):
        function_by_name("augmentation", settings.augment)  # one that isn't there is told before anything is begun
    return DistillSettings(
        seed=settings.seed,
        kd_weight=1.0 - settings.label_weight,
        flip=settings.flip,
        augment=settings.augment,
        batch_size=max(usual, settings.batch or usual),
        device=settings.train_device,
        precision=cast("Precision", settings.train_precision),
        processes=settings.gpus or 1,
    )


def _labels_note(task: Task, data: Data, weight: float, augment: str) -> str:
    """Return what labels of training images are for, nothing where they have none."""
    labels = task.labels(data.train)
    if labels is None:
        return ""
    if not weight:
        return "labels: for scores alone, as asked"
    if task.taught(labels[:1], torch.device("cpu")) is None:
        return "labels: for scores alone, since it isn't known how the outputs code them"
    note = f"labels: {weight:.0%} of the loss of an image that has one, the teacher the rest"
    told = next((label for label in labels if label is not None), None)
    shifted = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    if augment == "none" or told is None or task.moved(told, shifted, data.preprocessing.size) is not None:
        return note
    return f"{note}; they don't follow augmentation and teach in the first epoch alone, or in all with ‹augment› none"


def _teacher_metric(
    teacher: Teacher, data: Data, callback: RunCallback, engine: Engine
) -> tuple[float, tuple[Notice, ...]]:
    """Return the teacher's score on validation images (fidelity to itself is 1), and warnings about it."""
    images = data.validation
    if batch_for(data) < _USUAL_BATCH:  # of large images some will do
        images = subset(images, _LOOKED_AT * batch_for(data), 0)
    metric = metric_name(teacher.model, data)
    if metric == "fidelity":
        return 1.0, ()
    found = evaluate(teacher.model, images, data, engine=engine)
    score = found.score or 0.0
    callback.on_message(f"teacher's {metric_label(metric)} on the validation images: {score:.1%}")
    if "mae" in found.details:
        callback.on_message(
            f"teacher's mean absolute error on the validation images: {found.details['mae']:.4g} in the labels' unit"
        )
    chance = 1 / max(2, len(data.class_names)) if metric == "accuracy" else _POOR
    if score > 1.5 * chance:
        return score, ()
    if metric != "accuracy":
        text = (
            f"the teacher has {score:.1%} {metric_label(metric)} on the validation images: check preprocessing and "
            "normalisation, and that labels mean what its outputs do"
        )
        return score, (Notice("teacher-poor", text),)
    text = (
        f"the teacher gets {score:.1%} of the validation images right, hardly more than chance ({chance:.1%}): "
        "check the normalisation, and that classes are numbered as the teacher learned them"
    )
    return score, (Notice("teacher-at-chance", text),)
