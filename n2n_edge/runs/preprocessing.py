"""Preprocessing of a model's images: from the user, from its metadata, or as most networks have it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir

from n2n_edge.data.preprocessing import Preprocessing, recorded_preprocessing
from n2n_edge.errors import InputError
from n2n_edge.graph.input_shape import image_shape, input_layout
from n2n_edge.runs.normalisation import Normalisation, metadata_normalisation

__all__ = ["ChosenPreprocessing", "check_options", "options_of", "preprocessing_for"]

_OPTIONS: Mapping[str, str] = {
    "resize": "resize", "crop_ratio": "crop_ratio", "interpolation": "interpolation", "antialias": "antialias",
    "pad_color": "pad_color", "pad_position": "pad_position", "channels": "channel_order", "pixels": "pixels",
    "mean": "mean", "std": "std",
}  # fmt: skip
"""Settings that say something of preprocessing, and the fields of `Preprocessing` that they are."""

_ULTRALYTICS = ("imgsz", "stride", "names")
"""Metadata that Ultralytics writes into every file that it exports."""


def options_of(settings: object) -> dict[str, Any]:
    """Return what settings say of preprocessing, by fields of `Preprocessing`; nothing of what isn't given."""
    given = {field: getattr(settings, name, None) for name, field in _OPTIONS.items()}
    given = {field: value for field, value in given.items() if value is not None}
    if "crop_ratio" in given:
        given.setdefault("resize", "center-crop")
    return given


def check_options(settings: object) -> None:
    """Raise InputError for values that fit no model, or each other."""
    given = options_of(settings)
    if "resize" in given:
        _refuse_idle(given, given["resize"])
    several = [len(values) for name in ("pad_color", "mean", "std") if len(values := getattr(settings, name) or ()) > 1]
    channels = 3 if getattr(settings, "channels", None) is not None else max(several, default=3)
    Preprocessing((1, 1), channels=channels, **given)


def _refuse_idle(given: Mapping[str, Any], resize: str) -> None:
    """Raise InputError for a border that is described where there is none."""
    idle = [name for name in ("pad_color", "pad_position") if name in given]
    if idle and resize != "letterbox":
        raise InputError(f"‹{idle[0]}› belongs to letterbox, and ‹resize› is {resize}: leave one out")


@dataclass(frozen=True)
class ChosenPreprocessing:
    """How a model takes images, and where that comes from.

    `normalisation` tells of mean and std, None where nothing does; `given` names the settings that the user gave,
    `source` what told the rest, empty where it is as most networks have it.
    """

    preprocessing: Preprocessing
    normalisation: Normalisation | None
    source: str = ""
    given: tuple[str, ...] = ()

    @property
    def origin(self) -> str:
        """Where the values come from, in words; of mean and std `normalisation` tells."""
        told = f"from {self.source}" if self.source else "as most networks have it: the teacher says nothing"
        if not self.given:
            return told
        return f"{', '.join(self.given)} given; the rest {told}"

    def like(self, other: Preprocessing) -> "ChosenPreprocessing | None":
        """Return the same sizes and layout with all else as in `other`; None where channels or type differ."""
        own = self.preprocessing
        if (other.channels, other.dtype) != (own.channels, own.dtype):
            return None
        return _told(replace(other, size=own.size, layout=own.layout), "another model")


def preprocessing_for(model: ir.Model, metadata: Mapping[str, str], given: Mapping[str, Any]) -> ChosenPreprocessing:
    """Return how a model of fixed sizes takes images.

    `given`, fields of `Preprocessing`, goes before what is recorded in `metadata`: by `compress`, or by Ultralytics.

    Raises:
        InputError: metadata that are damaged, or values that don't fit the model or each other.
    """
    channels, *size = image_shape(model)
    plain = Preprocessing((size[0], size[1]), channels=channels, layout=input_layout(model))
    takes_bytes = model.graph.inputs[0].dtype == ir.DataType.UINT8
    if takes_bytes:
        plain = replace(plain, dtype="uint8", pixels="0..255")
    told = None if takes_bytes else _of_ultralytics(plain, metadata)
    base = _recorded(plain, metadata) or told or ChosenPreprocessing(plain, None)
    preprocessing, normalisation = base.preprocessing, base.normalisation
    changes = dict(given)
    if changes.get("resize", "center-crop") != "center-crop":
        changes.setdefault("crop_ratio", None)
    if {"pixels", "mean", "std"} & set(changes) and not takes_bytes:
        preprocessing = replace(preprocessing, **{"pixels": "0..1", "mean": (0.0,), "std": (1.0,)} | changes)
        normalisation = _normalisation(preprocessing, "given", "given")
    else:
        preprocessing = replace(preprocessing, **changes)
        if takes_bytes:
            normalisation = _normalisation(preprocessing, "metadata", "none: the network takes bytes")
        elif normalisation is None:
            normalisation = metadata_normalisation(metadata, channels)
            if normalisation is not None:
                preprocessing = preprocessing.normalised("0..1", normalisation.mean, normalisation.std)
    _refuse_idle(given, preprocessing.resize)
    named = tuple(name for name, field in _OPTIONS.items() if field in given)
    return ChosenPreprocessing(preprocessing, normalisation, base.source, named)


def _recorded(plain: Preprocessing, metadata: Mapping[str, str]) -> ChosenPreprocessing | None:
    recorded = recorded_preprocessing(metadata)
    if recorded is None:
        return None
    if recorded.channels != plain.channels:
        raise InputError(
            f"the model's metadata record a preprocessing for {recorded.channels} channels, and it takes "
            f"{plain.channels}; remove them, or restore the file"
        )
    if recorded.dtype != plain.dtype:
        raise InputError(
            f"the model's metadata record a preprocessing for {recorded.dtype} inputs, and it takes {plain.dtype}; "
            "remove them, or restore the file"
        )
    preprocessing = replace(recorded, size=plain.size, layout=plain.layout)
    return _told(preprocessing, "the teacher's metadata")


def _of_ultralytics(plain: Preprocessing, metadata: Mapping[str, str]) -> ChosenPreprocessing | None:
    """Return what Ultralytics' predictor does: classifiers see the centre, all others a letterbox."""
    if any(key not in metadata for key in _ULTRALYTICS) or plain.channels != 3:
        return None
    if metadata.get("task") == "classify":
        preprocessing = replace(plain, crop_ratio=1.0)
    else:
        preprocessing = replace(plain, resize="letterbox", antialias=False, pad_color=(114,))
    return _told(preprocessing, "Ultralytics' metadata")


def _told(preprocessing: Preprocessing, source: str) -> ChosenPreprocessing:
    return ChosenPreprocessing(preprocessing, _normalisation(preprocessing, "metadata", source), source)


def _normalisation(preprocessing: Preprocessing, origin: Any, note: str) -> Normalisation:
    mean, std = preprocessing.unit_mean_and_std
    return Normalisation(mean, std, origin, note)
