"""Preprocessing of a model's images: from the user, from its metadata, or as most networks have it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir

from n2n_edge.data.preprocessing import Preprocessing, recorded_preprocessing
from n2n_edge.data.preprocessing_options import PREPROCESSING_OPTIONS, refuse_idle
from n2n_edge.errors import InputError
from n2n_edge.graph.input_shape import image_shape, input_layout
from n2n_edge.runs.normalisation import Normalisation, metadata_normalisation

__all__ = ["ChosenPreprocessing", "preprocessing_for"]

_ULTRALYTICS = ("imgsz", "stride", "names")
"""Metadata that Ultralytics writes into every file that it exports."""


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
        told = f"from {self.source}" if self.source else "as most networks have it: the metadata say nothing"
        if not self.given:
            return told
        return f"{', '.join(self.given)} given; the rest {told}"

    @property
    def silent(self) -> bool:
        """Whether the model itself tells nothing of how it takes images."""
        by_metadata = self.normalisation is not None and self.normalisation.origin == "metadata"
        return not self.source and (not by_metadata or self.preprocessing.dtype == "uint8")

    def like(self, other: "ChosenPreprocessing") -> "ChosenPreprocessing | None":
        """Return the same sizes and layout with all else as in `other`; None where channels or type differ."""
        own, theirs = self.preprocessing, other.preprocessing
        if (theirs.channels, theirs.dtype) != (own.channels, own.dtype):
            return None
        return replace(other, preprocessing=replace(theirs, size=own.size, layout=own.layout))


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
    refuse_idle(given, preprocessing.resize)
    named = tuple(name for name, field in PREPROCESSING_OPTIONS.items() if field in given)
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
    return _told(preprocessing, "the model's metadata")


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
