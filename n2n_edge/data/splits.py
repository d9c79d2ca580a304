"""Splits of labelled or unlabelled images by a seed, and what is too small to evaluate on."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from n2n_edge.metrics.notices import Notice

__all__ = ["VALIDATION_WARNINGS", "choose_members", "split_warnings"]

_FEW_IMAGES = 30

VALIDATION_WARNINGS = ("few-validation-images", "unseen-validation-classes")
"""Codes of what speaks against the validation images alone."""


def choose_members(labels: NDArray[np.int64] | None, count: int, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Choose about `fraction` of `count` items, at least one, as many of each class as its share.

    Where rounding leaves too few in sum, the largest remainders get one more. A class that would get none gets one from
    the largest, so as many classes are held as there are places; and one of each class is left.
    """
    # RandomState is frozen by numpy's promise: the same seed gives the same split in every version
    random = np.random.RandomState(seed)
    chosen = np.zeros(count, dtype=np.bool_)
    kinds = [np.arange(count)] if labels is None else [np.flatnonzero(labels == kind) for kind in np.unique(labels)]
    sizes = np.array([len(members) for members in kinds], dtype=np.int64)
    for members, places in zip(kinds, _places(sizes, fraction, seed), strict=True):
        chosen[random.permutation(members)[:places]] = True
    return chosen


def _places(sizes: NDArray[np.int64], fraction: float, seed: int) -> NDArray[np.int64]:
    """Return how many of each class to choose."""
    quotas = sizes * fraction
    limits = sizes - 1 if len(sizes) > 1 and sizes.max() > 1 else sizes
    places: NDArray[np.int64] = np.minimum(np.round(quotas).astype(np.int64), limits)
    ties = np.random.RandomState(seed).permutation(len(sizes))  # of equal remainders none has a right to be first
    order = ties[np.argsort(-(quotas - places)[ties], kind="stable")]
    missing = max(1, int(sizes.sum() * fraction + 0.5)) - int(places.sum())
    places[[kind for kind in order if places[kind] < limits[kind]][: max(0, missing)]] += 1
    for kind in order:
        largest = int(np.argmax(places))
        if places[kind] == 0 and limits[kind] > 0 and places[largest] > 1:
            places[largest] -= 1
            places[kind] += 1
    return places


def split_warnings(splits: Mapping[str, tuple[int, NDArray[np.int64] | None]], classes: int) -> tuple[Notice, ...]:
    """Return what speaks against evaluating on splits of so many images with these labels, of `classes` classes."""
    warnings = []
    for name, (count, labels) in splits.items():
        if count < _FEW_IMAGES:
            text = f"only {count} {name} image{'s' if count > 1 else ''}: figures from so few say little"
            warnings.append(Notice(f"few-{name}-images", text))
        unseen = 0 if labels is None else classes - len(np.unique(labels))
        if unseen > 0:
            text = f"{unseen} of {classes} classes have no {name} image: they aren't evaluated"
            warnings.append(Notice(f"unseen-{name}-classes", text))
    return tuple(warnings)
