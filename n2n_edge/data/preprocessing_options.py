"""Settings that say something of a model's preprocessing: what they are of it, and which go together."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from n2n_edge.errors import InputError

__all__ = ["PREPROCESSING_OPTIONS", "check_options", "joined_options", "options_of", "refuse_idle"]

PREPROCESSING_OPTIONS: Mapping[str, str] = {
    "resize": "resize", "crop_ratio": "crop_ratio", "interpolation": "interpolation", "antialias": "antialias",
    "pad_color": "pad_color", "pad_position": "pad_position", "channels": "channel_order", "pixels": "pixels",
    "mean": "mean", "std": "std",
}  # fmt: skip
"""Settings, in whatever holds them, and the fields of `Preprocessing` that they are."""

_NORMALISATION = ("pixels", "mean", "std")
_OF_RESIZE = ("crop_ratio", "pad_color", "pad_position")


def options_of(settings: object) -> dict[str, Any]:
    """Return what settings say of preprocessing, by fields of `Preprocessing`; nothing of what isn't given."""
    given = {field: getattr(settings, name, None) for name, field in PREPROCESSING_OPTIONS.items()}
    given = {field: value for field, value in given.items() if value is not None}
    if "crop_ratio" in given:
        given.setdefault("resize", "center-crop")
    return given


def check_options(settings: object, where: str | None = None) -> None:
    """Raise InputError for values that fit no model, or each other.

    `where` is the file that they stand in, and how the error calls it; None for options and keywords.
    """
    given = options_of(settings)
    if not given:
        return
    from n2n_edge.data.preprocessing import Preprocessing  # help, and listing what a run has tried, need no onnx

    try:
        if ("mean" in given) != ("std" in given):
            raise InputError("‹mean› and ‹std› belong together; give both or neither")
        if "resize" in given:
            refuse_idle(given, given["resize"])
        several = [len(given[name]) for name in ("pad_color", "mean", "std") if len(given.get(name, ())) > 1]
        channels = 3 if "channel_order" in given else max(several, default=3)
        Preprocessing((1, 1), channels=channels, **given)
    except InputError as error:
        if where is None:
            raise
        text = re.sub("‹(.*?)›", lambda name: name[1].replace("_", "-"), error.text)
        raise InputError(f"{where}: {text}") from error


def refuse_idle(given: Mapping[str, Any], resize: str) -> None:
    """Raise InputError for a border that is described where there is none."""
    idle = [name for name in ("pad_color", "pad_position") if name in given]
    if idle and resize != "letterbox":
        raise InputError(f"‹{idle[0]}› belongs to letterbox, and ‹resize› is {resize}: leave one out")


def joined_options(earlier: Mapping[str, Any], given: Iterable[str]) -> dict[str, Any]:
    """Return what holds still of `earlier` settings where later ones give the names in `given`.

    Pixels, mean and std are replaced together, and what belongs to a way of resizing goes with it.
    """
    names, replaced = {*given}, set[str]()
    if names & {*_NORMALISATION}:
        replaced |= {*_NORMALISATION}
    if "resize" in names:
        replaced |= {*_OF_RESIZE}
    return {name: value for name, value in earlier.items() if name not in replaced}
