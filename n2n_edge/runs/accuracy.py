"""How right a model file is on the test images of a data set, as it would ship; needs no torch."""

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx_ir as ir

from n2n_edge.data.class_names import read_class_names
from n2n_edge.data.dataset import Data, load_data
from n2n_edge.data.loading import Loading, quiet
from n2n_edge.data.splits import VALIDATION_WARNINGS
from n2n_edge.errors import InputError, UnsuitableEnvironmentError
from n2n_edge.graph.bind import bound_where_named
from n2n_edge.graph.input_shape import IMAGE_TYPES
from n2n_edge.graph.load import load_model, save_model
from n2n_edge.metrics.figures import Figure
from n2n_edge.metrics.notices import Notice
from n2n_edge.runs.normalisation import Normalisation, choose_normalisation
from n2n_edge.runs.outputs import OUTPUTS_KEY, as_outputs_name, read_outputs
from n2n_edge.runs.preprocessing import options_of, preprocessing_for
from n2n_edge.tasks.metrics import metric_name
from n2n_edge.tasks.outputs import class_count
from n2n_edge.training.file_evaluation import evaluate_file

__all__ = ["TestData", "file_accuracy"]


@dataclass(frozen=True)
class TestData:
    """The images that files are evaluated on, as options name them (see `load_data`); `classes` is a file of names.

    `bind` gives inputs beside the image values.
    """

    __test__ = False  # no class of tests

    spec: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: Path | None = None
    bind: tuple[str, ...] = ()


@quiet()
def file_accuracy(
    path: Path, wanted: TestData, *, baseline: Path | None = None
) -> tuple[str, Figure, Figure | None, tuple[Notice, ...], tuple[Notice, ...]]:
    """Return the metric's name, the figure of `path`, that of `baseline` on the same images, notes and warnings.

    The images are the test split of the data, the same that `compress` evaluates a student on. Where there are no
    labels the metric is fidelity to the baseline. Normalisation is given, or stands in the file's metadata, or is found
    by trying the usual ones.

    Raises:
        InputError: a model that takes no images, data that doesn't fit it, no labels and no baseline.
        UnsuitableEnvironmentError: ONNX Runtime can't run the file.
    """
    if wanted.bind:
        return _bound_accuracy(path, wanted, baseline)
    model = load_model(path)
    data, notes, warnings = _data(model, path, wanted)
    if metric_name(model, data) == "accuracy":
        other = None
        if baseline is not None:  # the same images, as the baseline wants them
            theirs = load_model(baseline)
            their_data, their_notes, their_warnings = _data(theirs, baseline, wanted)
            other = _figure(theirs, baseline, their_data, None)
            notes, warnings = notes + their_notes, warnings + their_warnings
        figure = _figure(model, path, data, None)
        return "accuracy", figure, other, tuple(dict.fromkeys(notes)), tuple(dict.fromkeys(warnings))
    if baseline is None:
        raise InputError(
            f"{path}: {wanted.spec} tells no class that it could be held against (outputs: {data.outputs}); give "
            "‹baseline› MODEL to hold its fidelity to that"
        )
    return "fidelity", _figure(model, path, data, baseline), None, notes, warnings


def _bound_accuracy(
    path: Path, wanted: TestData, baseline: Path | None
) -> tuple[str, Figure, Figure | None, tuple[Notice, ...], tuple[Notice, ...]]:
    """Evaluate copies of the files that have the values as defaults of their inputs."""
    paths = [path] if baseline is None else [path, baseline]
    models = bound_where_named([load_model(one) for one in paths], wanted.bind)
    with TemporaryDirectory() as folder:
        copies = [Path(folder, str(place), one.name) for place, one in enumerate(paths)]
        for copy, model in zip(copies, models, strict=True):
            copy.parent.mkdir()
            save_model(model, copy)
        return file_accuracy(copies[0], replace(wanted, bind=()), baseline=None if baseline is None else copies[1])


def _figure(model: ir.Model, path: Path, data: Data, teacher: Path | None) -> Figure:
    found = evaluate_file(model, path, data.test, data, teacher=teacher)
    return Figure(found.metric, "fraction", "measured", n=found.n)


def _data(model: ir.Model, path: Path, wanted: TestData) -> tuple[Data, tuple[Notice, ...], tuple[Notice, ...]]:
    """Return the images as a model wants them, what was assumed of them, and what is doubtful about them."""
    _check_images(model, path)
    preprocessing, told = preprocessing_for(model, model.metadata_props, options_of(wanted))
    outputs = as_outputs_name(model.metadata_props.get(OUTPUTS_KEY))
    data = load_data(
        wanted.spec,
        preprocessing=preprocessing,
        classes=class_count(model, outputs),
        may_be_values=True,
        class_names=None if wanted.classes is None else read_class_names(wanted.classes),
        loading=Loading(cache_gb=0.0),  # each image is read once
    )
    data, _ = read_outputs(model, data, outputs)
    notes = (Notice("data", f"data {wanted.spec}: {data.counts}"),) if data.conversions else ()
    warnings = tuple(each for each in data.warnings if each.code not in VALIDATION_WARNINGS)
    if told is not None:
        return data, notes, warnings
    chosen = _tried(model, path, data)
    said = (each.prefixed(path.name) for each in chosen.notices)
    return data.normalised(chosen.mean, chosen.std), (*notes, *said), warnings


def _tried(model: ir.Model, path: Path, data: Data) -> Normalisation:
    try:
        return choose_normalisation(data, lambda split, normalised: evaluate_file(model, path, split, normalised))
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
