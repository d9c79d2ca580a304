"""Preprocessing of a model's images: from the user, from its metadata, or as most networks have it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir

from n2n_edge.data.preprocessing import Preprocessing, recorded_preprocessing
from n2n_edge.errors import InputError
from n2n_edge.graph.input_shape import image_shape, input_layout
from n2n_edge.runs.normalisation import Normalisation, metadata_normalisation

__all__ = ["OPTIONS", "check_options", "options_of", "preprocessing_for"]

OPTIONS: Mapping[str, str] = {
    "resize": "resize", "crop_ratio": "crop_ratio", "interpolation": "interpolation", "antialias": "antialias",
    "pad_color": "pad_color", "pad_position": "pad_position", "channels": "channel_order", "pixels": "pixels",
    "mean": "mean", "std": "std",
}  # fmt: skip
"""Settings that say something of preprocessing, and the fields of `Preprocessing` that they are."""

_ULTRALYTICS = ("imgsz", "stride", "names", "task")
"""Metadata that Ultralytics writes into every file that it exports."""


def options_of(settings: object) -> dict[str, Any]:
    """Return what settings say of preprocessing, by fields of `Preprocessing`; nothing of what isn't given."""
    given = {field: getattr(settings, name, None) for name, field in OPTIONS.items()}
    given = {field: value for field, value in given.items() if value is not None}
    if "crop_ratio" in given:
        given.setdefault("resize", "center-crop")
    return given


def check_options(settings: object) -> None:
    """Raise InputError for values that fit no model."""
    several = [len(values) for name in ("pad_color", "mean", "std") if len(values := getattr(settings, name) or ()) > 1]
    channels = 3 if getattr(settings, "channels", None) is not None else max(several, default=3)
    Preprocessing((1, 1), channels=channels, **options_of(settings))


@dataclass(frozen=True)
class _Base:
    preprocessing: Preprocessing
    normalisation: Normalisation | None


def preprocessing_for(
    model: ir.Model, metadata: Mapping[str, str], given: Mapping[str, Any]
) -> tuple[Preprocessing, Normalisation | None]:
    """Return how a model of fixed sizes takes images, and where mean and std come from: None where nothing tells.

    `given`, fields of `Preprocessing`, goes before what is recorded in `metadata`: by `compress`, or by Ultralytics.

    Raises:
        InputError: metadata that are damaged, or values that don't fit the model or each other.
    """
    channels, *size = image_shape(model)
    plain = Preprocessing((size[0], size[1]), channels=channels, layout=input_layout(model))
    if model.graph.inputs[0].dtype == ir.DataType.UINT8:
        plain = replace(plain, dtype="uint8", pixels="0..255")
        base = _recorded(plain, metadata) or _Base(plain, None)
        changed = replace(base.preprocessing, **given)
        return changed, _normalisation(changed, "metadata", "none: the network takes bytes")
    base = _recorded(plain, metadata) or _of_ultralytics(plain, metadata) or _Base(plain, None)
    preprocessing, normalisation = base.preprocessing, base.normalisation
    changes = dict(given)
    if changes.get("resize", "center-crop") != "center-crop":
        changes.setdefault("crop_ratio", None)
    if not {"pixels", "mean", "std"} & set(changes):
        preprocessing = replace(preprocessing, **changes)
        if normalisation is None:
            normalisation = metadata_normalisation(metadata, channels)
            if normalisation is not None:
                preprocessing = preprocessing.normalised("0..1", normalisation.mean, normalisation.std)
        return preprocessing, normalisation
    scale = {"pixels": "0..1", "mean": (0.0,), "std": (1.0,)}
    preprocessing = replace(preprocessing, **scale | changes)
    return preprocessing, _normalisation(preprocessing, "given", "given")


def _recorded(plain: Preprocessing, metadata: Mapping[str, str]) -> _Base | None:
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
    return _Base(preprocessing, _normalisation(preprocessing, "metadata", "the teacher's metadata"))


def _of_ultralytics(plain: Preprocessing, metadata: Mapping[str, str]) -> _Base | None:
    """Return what Ultralytics' predictor does: classifiers see the centre, all others a letterbox."""
    if any(key not in metadata for key in _ULTRALYTICS) or plain.channels != 3:
        return None
    if metadata["task"] == "classify":
        preprocessing = replace(plain, crop_ratio=1.0)
    else:
        preprocessing = replace(plain, resize="letterbox", antialias=False, pad_color=(114,))
    return _Base(preprocessing, _normalisation(preprocessing, "metadata", "Ultralytics' metadata"))


def _normalisation(preprocessing: Preprocessing, origin: Any, note: str) -> Normalisation:
    mean, std = preprocessing.unit_mean_and_std
    return Normalisation(mean, std, origin, note)
