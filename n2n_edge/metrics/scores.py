"""Metrics of tasks: what they and their further figures are called, and in which unit they are."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from n2n_edge.metrics.figures import Figure

__all__ = ["DETAILS", "METRICS", "LabelMetric", "MetricName", "detail_words", "drop", "metric_label", "metric_title"]

LabelMetric = Literal["accuracy", "map", "miou", "oks", "r2"]
MetricName = Literal["accuracy", "map", "miou", "oks", "r2", "fidelity"]

METRICS: Mapping[str, str] = MappingProxyType(
    {
        "accuracy": "accuracy",
        "map": "mAP",
        "miou": "mIoU",
        "oks": "OKS",
        "r2": "R²",
        "fidelity": "fidelity",
    }
)
"""Metrics by name, with what they are called in text; each lies in 0..1, and more is better."""

DETAILS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "agreement": ("Agreement with the teacher", "fraction"),
        "ap50": ("mAP at IoU 0.5", "fraction"),
        "ap75": ("mAP at IoU 0.75", "fraction"),
        "dice": ("Dice", "fraction"),
        "pixel_accuracy": ("Pixels right", "fraction"),
        "top5": ("Top-5 accuracy", "fraction"),
        "nme": ("Normalised mean error", "%"),
        "mae": ("Mean absolute error", "label units"),
        "pck": ("Points within a tenth", "fraction"),
        "psnr": ("PSNR", "dB"),
        "ssim": ("SSIM", ""),
    }
)
"""Further figures of an evaluation by name, with what they are called and their unit."""

_BY_CLASS: Mapping[str, str] = MappingProxyType({"ap": "AP", "iou": "IoU"})


def metric_label(name: str) -> str:
    """Return what a metric is called within text; one that a user's own task brings goes by its name."""
    return METRICS.get(name, name)


def metric_title(name: str) -> str:
    """Return what a metric is called at the head of a line or column: ``Accuracy``, ``mAP``."""
    label = metric_label(name)
    return label.capitalize() if label.islower() else label


def detail_words(name: str) -> tuple[str, str]:
    """Return what a further figure is called, and its unit, '' for what isn't in the table.

    Figures of single classes, such as ``ap:person``, are fractions.
    """
    kind, colon, of = name.partition(":")
    if colon:
        return f"{_BY_CLASS.get(kind, kind)} of {of}", "fraction"
    return DETAILS.get(name, (name.replace("_", " "), ""))


def drop(reached: Figure, before: Figure | None) -> Figure:
    """Return the points of a hundred that a score lies below another on the same images.

    Without another one the score is fidelity to it, whose own is 1.
    """
    other = 1.0 if before is None else before.value
    return Figure(100 * (other - reached.value), "points", reached.provenance, n=reached.n)
