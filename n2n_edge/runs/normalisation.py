"""How a teacher wants its images: from its metadata, from the user, or found out by trying."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, isfinite, sqrt
from typing import TYPE_CHECKING, Literal

import numpy as np

from n2n_edge.data.pixel_scale import check_mean_and_std
from n2n_edge.errors import InputError
from n2n_edge.metrics.notices import Notice
from n2n_edge.reading import parse_json

if TYPE_CHECKING:  # needs Pillow at run time, the rest here does not
    from n2n_edge.data.dataset import Data, Split
    from n2n_edge.tasks.metrics import Evaluation

__all__ = ["MEAN_KEY", "STD_KEY", "Normalisation", "choose_normalisation", "metadata_normalisation"]

MEAN_KEY, STD_KEY = "n2n_edge.mean", "n2n_edge.std"
"""Metadata of an ONNX file: JSON lists, per channel, on pixels in 0..1."""

_TRIED_IMAGES = 2048
_USUAL_PIXELS, _LEAST_TRIED = 96 * 96, 128
"""Of images with more pixels than the first fewer are tried, at least the second."""


@dataclass(frozen=True)
class Normalisation:
    """A pixel x in 0..1 goes in as ``(x - mean) / std`` per channel; `note` says in words where the figures come from.

    ``tried``: the best of the usual ones on validation images; ``assumed``: these tell nothing.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: Literal["given", "metadata", "tried", "assumed"]
    note: str

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What a report has to tell of it: nothing of what was given, or stands in the model's metadata."""
        if self.origin in ("given", "metadata"):
            return ()
        return (Notice(f"normalisation-{self.origin}", f"normalisation: {self.note}"),)


_COMMON: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CIFAR": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "0..1": ((0.0,), (1.0,)),
    "-1..1": ((0.5,), (0.5,)),
    "0..255": ((0.0,), (1 / 255,)),
    "MNIST": ((0.1307,), (0.3081,)),
}


def metadata_normalisation(metadata: Mapping[str, str], channels: int) -> Normalisation | None:
    """Return what a model's metadata says; None where it says nothing.

    Raises:
        InputError: the metadata is there but not lists of numbers, one per channel.
    """
    if MEAN_KEY not in metadata or STD_KEY not in metadata:
        return None
    try:
        mean, std = (tuple(float(item) for item in parse_json(metadata[key])) for key in (MEAN_KEY, STD_KEY))
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"the model's metadata {MEAN_KEY}, {STD_KEY} aren't lists of numbers; give ‹mean› and ‹std›"
        ) from error
    mean, std = (item * channels if len(item) == 1 else item for item in (mean, std))
    check_mean_and_std(mean, std, f"the model's metadata {MEAN_KEY}", f"the model's metadata {STD_KEY}")
    if len(mean) != channels or len(std) != channels:
        raise InputError(
            f"the model's metadata {MEAN_KEY}, {STD_KEY} don't fit its {channels} channels; give ‹mean› and ‹std›"
        )
    return Normalisation(mean, std, "metadata", "the teacher's metadata")


Evaluate = Callable[["Split", "Data"], "Evaluation"]
"""Evaluates the teacher on images that are normalised as the data says."""


def choose_normalisation(data: "Data", evaluate: Evaluate) -> Normalisation:
    """Return the usual normalisation under which the teacher does best on validation images.

    Of several that do equally well, within one standard error, the most usual is taken. Without labels there is nothing
    to go by: ImageNet's for three channels, 0..1 for detectors and otherwise.
    """
    channels = data.input_shape[0]
    usual = {
        name: (mean * channels if len(mean) == 1 else mean, std * channels if len(std) == 1 else std)
        for name, (mean, std) in _COMMON.items()
        if len(mean) in (1, channels)
    }
    sample = data.validation
    _, height, width = data.input_shape
    most = min(_TRIED_IMAGES, max(_LEAST_TRIED, _TRIED_IMAGES * _USUAL_PIXELS // (height * width)))
    if len(sample) > most:
        sample = sample.take(np.arange(0, len(sample), len(sample) // most))
    task = data.task
    if (task is None or task.labels(sample) is None) and sample.labels is None and sample.targets is None:
        # most detectors take pixels as they are, most classifiers of photographs don't
        name = "ImageNet" if channels == 3 and (task is None or task.name != "detection") else "0..1"
        return Normalisation(
            *usual[name], "assumed", f"{name}'s, assumed: the metadata say nothing; check, or give --mean and --std"
        )
    if sample.targets is not None and (task is None or task.name == "regression"):
        return _of_least_error(evaluate, data, sample, usual)
    accuracy = {}
    for name, (mean, std) in usual.items():
        evaluated = evaluate(sample, data.normalised(mean, std)).score
        if evaluated is None:
            return Normalisation(
                *usual["0..1"], "assumed", "0..1, assumed: the metadata say nothing; check, or give --mean and --std"
            )
        accuracy[name] = evaluated
    top = max(accuracy.values())
    tolerance = sqrt(max(top * (1 - top), 0.25 / len(sample)) / len(sample))  # one standard error
    best = next(name for name, value in accuracy.items() if value >= top - tolerance)
    others = sorted((value for name, value in accuracy.items() if name != best), reverse=True)
    return Normalisation(
        *usual[best],
        "tried",
        f"{best}'s, found by trying: the metadata say nothing, and this gives it {accuracy[best]:.1%} "
        f"on {len(sample):,} validation images (next best {others[0]:.1%})",
    )


def _of_least_error(
    evaluate: Evaluate,
    data: "Data",
    sample: "Split",
    usual: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]],
) -> Normalisation:
    """Return the normalisation under which a teacher of values comes nearest to labels that are values."""
    errors = {}
    for name, (mean, std) in usual.items():
        error = evaluate(sample, data.normalised(mean, std)).details.get("mae")
        errors[name] = inf if error is None or not isfinite(error) else error
    best = min(errors, key=lambda name: errors[name])
    next_best = min(value for name, value in errors.items() if name != best)
    return Normalisation(
        *usual[best],
        "tried",
        f"{best}'s, found by trying: the metadata say nothing, and this brings it nearest to the labels of "
        f"{len(sample):,} validation images (mean error {errors[best]:.4g}, next best {next_best:.4g})",
    )
