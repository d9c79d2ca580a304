"""Score of a model file on the test images of a data set, as it would ship; needs no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx_ir as ir

from n2n_edge.data.class_names import read_class_names
from n2n_edge.data.dataset import Data, load_data
from n2n_edge.data.loading import Loading, quiet
from n2n_edge.data.splits import VALIDATION_WARNINGS
from n2n_edge.errors import InputError, UnsuitableEnvironmentError
from n2n_edge.graph.bind import bound_where_named
from n2n_edge.graph.input_shape import IMAGE_TYPES, at_one_size, in_layout
from n2n_edge.graph.load import load_model, save_model
from n2n_edge.metrics.figures import Figure
from n2n_edge.metrics.notices import Notice
from n2n_edge.metrics.scores import metric_label
from n2n_edge.runs.normalisation import Normalisation, choose_normalisation
from n2n_edge.runs.preprocessing import ChosenPreprocessing, preprocessing_for
from n2n_edge.tasks.choice import choose_task, metric_name, outputs_name, recorded_task
from n2n_edge.tasks.detection_choice import classes_of_detector
from n2n_edge.tasks.metrics import MetricName
from n2n_edge.tasks.outputs import class_count
from n2n_edge.tasks.paired import paired_difference
from n2n_edge.tasks.task import Meter
from n2n_edge.training.file_evaluation import evaluate_file, file_meter

__all__ = ["TestData", "file_accuracy", "real_inputs"]


@dataclass(frozen=True)
class TestData:
    """The images that files are evaluated on, as options name them (see `load_data`); `classes` is a file of names.

    `preprocessing`, fields of `Preprocessing`, holds over what a file records of that. `bind` gives inputs beside the
    image values. `task` and `decode` are as for `compress`; by default they are what a file records. `input_shape` is
    for files that leave the sizes of their input free.
    """

    __test__ = False  # no class of tests

    spec: str
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    classes: Path | None = None
    bind: tuple[str, ...] = ()
    task: str = "auto"
    decode: str | None = None
    input_shape: tuple[int, ...] | None = None


@quiet()
def file_accuracy(
    path: Path, wanted: TestData, *, baseline: Path | None = None
) -> tuple[MetricName, Figure, Figure | None, tuple[Notice, ...], tuple[Notice, ...]]:
    """Return the metric's name, the figure of `path`, that of `baseline` on the same images, notes and warnings.

    The images are the test split of the data, the same that `compress` evaluates a student on. Where there are no
    labels the metric is fidelity to the baseline. How images go in is given, or recorded in the file (see
    `Preprocessing`); of two files one that says nothing is given them as the other is. Mean and std that nothing says
    are found by trying the usual ones.

    Raises:
        InputError: a model that takes no images, data that doesn't fit it, no labels and no baseline.
        UnsuitableEnvironmentError: ONNX Runtime can't run the file.
    """
    if wanted.bind:
        return _bound_accuracy(path, wanted, baseline)
    paths = [path] if baseline is None else [path, baseline]
    files = _files(paths, wanted)
    data, notes, warnings = _data(files[0], wanted)
    metric = metric_name(files[0].model, data)
    if metric != "fidelity":
        other, meter = None, file_meter(path, data.test, data)
        if baseline is not None:  # the same images, as the baseline wants them
            their_data, their_notes, their_warnings = _data(files[1], wanted)
            their_meter = file_meter(baseline, their_data.test, their_data)
            other = _figure(their_meter)
            notes = (*notes, *their_notes, *_difference(metric, their_meter, meter))
            warnings += their_warnings
        return metric, _figure(meter), other, tuple(dict.fromkeys(notes)), tuple(dict.fromkeys(warnings))
    if baseline is None:
        raise InputError(
            f"{path}: {wanted.spec} tells nothing that it could be held against; give "
            "‹baseline› MODEL to hold its fidelity to that"
        )
    theirs = data
    if files[1].how.preprocessing != files[0].how.preprocessing:
        theirs, their_notes, _ = _data(files[1], wanted)
        notes = tuple(dict.fromkeys((*notes, *their_notes)))
    figure = _figure(file_meter(path, data.test, data, teacher=baseline, teacher_data=theirs))
    return "fidelity", figure, None, notes, warnings


def real_inputs(path: Path, wanted: TestData, count: int) -> np.ndarray:
    """Return test images as a file's first input takes them, ``(count, 1, ...)``: one image in each batch.

    Raises:
        InputError: a model that takes no images, or data that don't fit it.
    """
    (file,) = _files([path], wanted)
    data, _, _ = _data(file, wanted)
    images = data.inputs(np.asarray(data.test.images[:count]))
    return np.asarray(in_layout(images, file.how.preprocessing.layout))[:, np.newaxis]


def _bound_accuracy(
    path: Path, wanted: TestData, baseline: Path | None
) -> tuple[MetricName, Figure, Figure | None, tuple[Notice, ...], tuple[Notice, ...]]:
    """Evaluate copies of the files that have the values as defaults of their inputs."""
    paths = [path] if baseline is None else [path, baseline]
    models = bound_where_named([load_model(one) for one in paths], wanted.bind)
    with TemporaryDirectory() as folder:
        copies = [Path(folder, str(place), one.name) for place, one in enumerate(paths)]
        for copy, model in zip(copies, models, strict=True):
            copy.parent.mkdir()
            save_model(model, copy)
        return file_accuracy(copies[0], replace(wanted, bind=()), baseline=None if baseline is None else copies[1])


def _figure(meter: Meter) -> Figure:
    found = meter.evaluation()
    return Figure(found.metric, "fraction", "measured", n=found.n)


def _difference(metric: str, before: Meter, after: Meter) -> tuple[Notice, ...]:
    """Say what so many images can tell of the difference to the baseline."""
    found = paired_difference(before, after)
    if found is None or found.low is None or found.high is None:
        return ()
    text = (
        f"{metric_label(metric)} less the baseline's: {found.value:+.1f} points, 95% interval {found.low:+.1f} to "
        f"{found.high:+.1f} by paired resamples of the {found.n:,} images"
    )
    return (Notice("paired-difference", text),)


@dataclass(frozen=True)
class _File:
    """A file with the sizes of its input settled, and how its images are prepared; `like` is whose record says so."""

    path: Path
    model: ir.Model
    how: ChosenPreprocessing
    like: str | None = None


def _files(paths: Sequence[Path], wanted: TestData) -> list[_File]:
    """Return the files; one that tells nothing of its images takes them as another does that records it."""
    models = at_one_size([(path.name, load_model(path)) for path in paths], wanted.input_shape).models
    files = []
    for path, model in zip(paths, models, strict=True):
        _check_images(model, path)
        files.append(_File(path, model, preprocessing_for(model, model.metadata_props, wanted.preprocessing)))
    return [_like_another(file, files) for file in files]


def _like_another(file: _File, files: Sequence[_File]) -> _File:
    for other in files:
        how = file.how.like(other.how) if file.how.silent and other.how.source else None
        if how is not None:
            return replace(file, how=how, like=other.path.name)
    return file


def _data(file: _File, wanted: TestData) -> tuple[Data, tuple[Notice, ...], tuple[Notice, ...]]:
    """Return the images as a file wants them, what was assumed of them, and what is doubtful about them."""
    model, path, how = file.model, file.path, file.how
    recorded = recorded_task(model.metadata_props).get("task")
    task = wanted.task if wanted.task != "auto" else None if recorded is None else str(recorded)
    data = load_data(
        wanted.spec,
        preprocessing=how.preprocessing,
        classes=class_count(model, outputs_name(task)),
        may_be_values=True,
        class_names=None if wanted.classes is None else read_class_names(wanted.classes),
        loading=Loading(cache_gb=0.0),  # each image is read once
        object_classes=lambda: classes_of_detector(model, *how.preprocessing.size),
    )
    data, _ = choose_task(model, data, wanted.task, decode=wanted.decode)
    notes = (Notice("data", f"data {wanted.spec}: {data.counts}"),) if data.conversions else ()
    warnings = tuple(each for each in data.warnings if each.code not in VALIDATION_WARNINGS)
    if how.normalisation is None:
        chosen = _tried(path, data)
        notes = (*notes, *(each.prefixed(path.name) for each in chosen.notices))
        data = data.normalised(chosen.mean, chosen.std)
    if file.like is not None:
        text = f"{path.name}: records no preprocessing; it is given its images as {file.like} records"
        notes = (*notes, Notice("preprocessing-assumed", text))
    elif how.given or not how.source:
        text = f"{path.name}: preprocessing: {data.preprocessing.words()} ({how.origin})"
        notes = (*notes, Notice("preprocessing", text))
    return data, notes, warnings


def _tried(path: Path, data: Data) -> Normalisation:
    try:
        return choose_normalisation(data, lambda split, normalised: evaluate_file(path, split, normalised))
    except (InputError, UnsuitableEnvironmentError) as error:
        raise type(error)(
            f"{path}: says nothing of its normalisation, and trying the usual ones failed ({error.text}); "
            "give ‹mean› and ‹std›"
        ) from error


def _check_images(model: ir.Model, path: Path) -> None:
    given = model.graph.inputs[0]
    sizes = [size for size in list(given.shape or ())[1:] if isinstance(size, int) and size > 0]
    if len(sizes) != 3 or given.dtype not in IMAGE_TYPES:
        raise InputError(
            f"{path}: input '{given.name}' is {given.dtype} {given.shape}; images need floats or uint8 "
            "(N, channels, height, width) or (N, height, width, channels)"
        )
