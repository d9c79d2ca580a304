"""The size of the images that a student takes: the teacher's, one that was asked for, or what the budgets leave."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import onnx_ir as ir

from n2n_edge.data.dataset import Data
from n2n_edge.devices.profile import Profile
from n2n_edge.errors import InputError
from n2n_edge.graph.input_shape import image_shape, input_layout, leaves_size_free
from n2n_edge.graph.load import save_model
from n2n_edge.graph.resized import resized
from n2n_edge.graph.shapes import shapes_of
from n2n_edge.graph.teacher import Teacher
from n2n_edge.latency.file_figures import ModelFile
from n2n_edge.metrics.budget import Budget
from n2n_edge.metrics.notices import Notice
from n2n_edge.metrics.scores import metric_label
from n2n_edge.metrics.verdict import verdicts_on
from n2n_edge.reading import read_toml
from n2n_edge.runs.settings import CompressSettings
from n2n_edge.tasks.choice import metric_name, task_of
from n2n_edge.tasks.detection import Detection
from n2n_edge.tasks.task import meter_between
from n2n_edge.training.batches import subset
from n2n_edge.training.file_evaluation import file_meters
from n2n_edge.writing import write_text

if TYPE_CHECKING:
    from n2n_edge.runs.folder import RunFolder

__all__ = ["Sized", "at_input_size"]

_BY_SIZE = ("latency_ms", "macs", "memory_bound_mb")
"""Costs that fall with the size of the input."""

_SMALLEST = 0.5
"""Part of the teacher's height and width below which ``auto`` doesn't go."""

_LEAST_KEPT = 0.5
"""Part of the teacher's own score that has to be left at a smaller size, untrained, for ``auto`` to take it."""

_SAME_FORM = 0.06
"""By how much height and width may shrink unequally."""

_LOOKED_AT = 64
"""Validation images that sizes are compared by."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Sized:
    """A teacher at the size that the student takes, its images at that size, and what is to be said about it.

    `shape` is that of an image, ``(C, H, W)``, for a file that leaves it free.
    """

    teacher: Teacher
    data: Data
    shape: tuple[int, int, int]
    notices: tuple[Notice, ...]


def at_input_size(
    settings: CompressSettings,
    profiles: Sequence[Profile],
    folder: "RunFolder",
    path: Path,
    teacher: Teacher,
    data: Data,
    load: Callable[[Teacher], Data],
    on_message: Callable[[str], None],
) -> Sized | None:
    """Return the teacher at the size that settings ask for, None where that is its own.

    `path` is the teacher's file, `load` reads the images for a teacher of another size. What ``auto`` has chosen is
    kept in the run's folder, so that a run that goes on has the same.

    Raises:
        InputError: a size that the network can't take, or that it can't be judged at.
    """
    if settings.input_size == "keep":
        if not folder.journal.exists():  # a run that goes on has said so
            _hint(settings, profiles, path, teacher, data, on_message)
        return None
    own = _own_size(teacher)
    kept = _kept(folder.input_size)
    asked = kept if kept is not None else _asked(settings.input_size)
    if asked == own:
        return None
    if asked is not None:
        found = _sized(teacher, asked)
        images = load(found)
        if meter_between(task_of(teacher.model, data), task_of(found.model, images)) is None:
            raise InputError(
                f"‹input_size› {settings.input_size}: what {path.name} gives can't be compared at two sizes as task "
                f"{task_of(teacher.model, data).name}; leave it out"
            )
        return _told(teacher, found, images, on_message)
    chosen = _chosen(settings, profiles, path, teacher, data, load, on_message)
    size = own if chosen is None else _own_size(chosen[0])
    write_text(folder.input_size, f"height = {size[0]}\nwidth = {size[1]}\n")
    return None if chosen is None else _told(teacher, *chosen, on_message)


def _asked(text: str) -> Size | None:
    """Return height and width of ``320x320`` or ``320``; None for ``auto``."""
    if text == "auto":
        return None
    parts = [int(part) for part in text.lower().split("x")]
    return (parts[0], parts[-1])


def _kept(path: Path) -> Size | None:
    if not path.is_file():
        return None
    try:
        known = read_toml(path, wanted="what the run wrote")
        return int(known["height"]), int(known["width"])
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise InputError(f"{path} can't be read ({error}); start a new run with another ‹out›") from error


def _own_size(teacher: Teacher) -> Size:
    _, height, width = image_shape(teacher.model)
    return height, width


def _sized(teacher: Teacher, size: Size) -> Teacher:
    """Return the teacher for another size of image.

    Raises:
        InputError: the network can't take it.
    """
    height, width = _own_size(teacher)
    words = f"‹input_size› {size[0]}x{size[1]}"
    try:
        if leaves_size_free(teacher.source):
            channels = image_shape(teacher.model)[0]
            found = Teacher(teacher.source, (channels, *size))
        else:
            found = Teacher(resized(teacher.source, size))
    except InputError as error:
        raise InputError(f"{words}: the network is for {height}x{width} ({error.text})") from error
    before, after = (
        ([layer.name for layer in each.layers], [(group.name, group.width) for group in each.groups])
        for each in (teacher, found)
    )
    if before != after or _own_size(found) != size:
        raise InputError(f"{words}: the network is another one there than at {height}x{width}; leave it out")
    return found


def _sizes(teacher: Teacher) -> Iterator[Size]:
    """Give smaller sizes of the same form that every map of the network divides, from the largest down."""
    height, width = _own_size(teacher)
    layout, sides = input_layout(teacher.model), []
    for shape in shapes_of(teacher.model).values():
        if len(shape) == 4 and shape[0] == 1:
            sides.append(shape[1:3] if layout == "nhwc" and shape[1:3] == (height, width) else shape[2:])
    least = min((h for h, w in sides if 1 < h < height and 1 < w < width and height % h == 0), default=height)
    step = height // least if height % least == 0 else height
    for rows in range(height - step, 0, -step):
        columns = max(step, round(width * rows / height / step) * step)
        if rows < _SMALLEST * height:
            return
        if abs(columns / width * height / rows - 1) <= _SAME_FORM:
            yield rows, columns


def _by_size(settings: CompressSettings) -> list[Budget]:
    return [budget for budget in settings.budgets if budget.cost in _BY_SIZE]


def _met(settings: CompressSettings, profiles: Sequence[Profile], file: ModelFile) -> tuple[bool, float | None]:
    """Tell whether a file meets the budgets that depend on the size, and its latency on the first device."""
    figures, met, first = file.figures(), True, None
    for budget in _by_size(settings):
        for profile in profiles if budget.cost == "latency_ms" else profiles[:1]:
            if budget.cost == "latency_ms":
                figures["latency_ms"] = file.latency(profile).figure
                first = figures["latency_ms"].value if profile is profiles[0] else first
            verdicts = verdicts_on(
                figures, [budget], accept_expected=settings.accept_expected, device=profile.name, metric=None
            )
            met = met and all(verdict.met for verdict in verdicts)
    return met, first


def _meets(settings: CompressSettings, profiles: Sequence[Profile], model: ir.Model) -> tuple[bool, float | None]:
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        save_model(model, path)
        return _met(settings, profiles, ModelFile(path))


def _largest_that_fits(
    settings: CompressSettings, profiles: Sequence[Profile], teacher: Teacher
) -> tuple[list[Teacher], bool, float | None]:
    """Return the teacher at the sizes that may be taken, the one to begin with first and larger ones behind it.

    That is the largest at which the untouched network meets the budgets, else the smallest one; whether it does comes
    with it, and its latency.
    """
    tried: list[Teacher] = []
    met, latency = False, None
    for size in _sizes(teacher):
        try:
            found = _sized(teacher, size)
        except InputError:
            continue
        tried.insert(0, found)
        met, latency = _meets(settings, profiles, found.model)
        if met:
            break
    return tried, met, latency


def _applies(settings: CompressSettings, profiles: Sequence[Profile], path: Path, data: Data) -> str | None:
    """Return why ``auto`` keeps the size, None where it may choose."""
    if not isinstance(data.task, Detection):
        return "only detectors are tried at other sizes, of others cutting leaves more; give a size to try it"
    if not _by_size(settings):
        return "no budget depends on it"
    if _met(settings, profiles, ModelFile(path, settings.input_shape))[0]:
        return "the teacher meets the budgets that depend on it"
    return None


def _hint(
    settings: CompressSettings,
    profiles: Sequence[Profile],
    path: Path,
    teacher: Teacher,
    data: Data,
    on_message: Callable[[str], None],
) -> None:
    """Say that a smaller input would do, where it is so."""
    if any(profile.is_host for profile in profiles) or _applies(settings, profiles, path, data) is not None:
        return  # timing takes seconds for each size
    tried, met, latency = _largest_that_fits(settings, profiles, teacher)
    if met and latency is not None:
        height, width = _own_size(tried[0])
        on_message(
            f"input size: the untouched teacher would take {latency:.3g} ms with images of {height}x{width}; "
            "--input-size auto (in Python input_size) tries what that loses and uses it"
        )


def _chosen(
    settings: CompressSettings,
    profiles: Sequence[Profile],
    path: Path,
    teacher: Teacher,
    data: Data,
    load: Callable[[Teacher], Data],
    on_message: Callable[[str], None],
) -> tuple[Teacher, Data] | None:
    """Return what ``auto`` takes: the largest size that fits, or a larger one where that loses too much."""
    height, width = _own_size(teacher)
    why = _applies(settings, profiles, path, data)
    if why is not None:
        on_message(f"input size: {height}x{width} as the teacher has it; {why}")
        return None
    tried, _, _ = _largest_that_fits(settings, profiles, teacher)
    allowed = next((budget.limit for budget in settings.budgets if budget.cost == "drop"), None)
    metric = metric_label(metric_name(teacher.model, data))
    for found in tried:
        images = load(found)
        scores = _scores(path, found, data, images)
        if scores is None:
            break
        before, after = scores
        size = "x".join(map(str, _own_size(found)))
        on_message(f"input size: at {size} the untouched teacher keeps a {metric} of {after:.1%} of its {before:.1%}")
        few = after < _LEAST_KEPT * before
        if not few and (allowed is None or 100 * (before - after) <= allowed):
            return found, images
    reason = "smaller ones lose too much" if tried else "the network takes no other"
    on_message(f"input size: {height}x{width} as the teacher has it; {reason}")
    return None


def _scores(path: Path, found: Teacher, data: Data, images: Data) -> tuple[float, float] | None:
    """Return the teacher's score on some validation images at its own size and at another; None if it can't be told."""
    if meter_between(task_of(found.model, data), task_of(found.model, images)) is None:
        return None
    labelled = metric_name(found.model, data) != "fidelity"
    theirs, own = (subset(each.validation, _LOOKED_AT, 0) for each in (data, images))
    with TemporaryDirectory() as folder:
        other = Path(folder, "model.onnx")
        save_model(found.source, other)
        before, after = file_meters(path, other, theirs, data, fidelity=(not labelled, not labelled), own=(own, images))
    return before.evaluation().metric, after.evaluation().metric


def _told(teacher: Teacher, found: Teacher, images: Data, on_message: Callable[[str], None]) -> Sized:
    own, size = _own_size(teacher), _own_size(found)
    text = (
        f"the student takes images of {size[0]}x{size[1]}, the teacher of {own[0]}x{own[1]}: what feeds it has to be "
        "changed; scores are those of each at its own size"
    )
    on_message(f"input size: {text}")
    return Sized(found, images, images.input_shape, (Notice("input-size", text),))
