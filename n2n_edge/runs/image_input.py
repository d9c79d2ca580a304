"""The image input of a model: its channels, height and width, or why it can't be fed with images."""

from collections.abc import Iterable

from n2n_edge.errors import InputError

__all__ = ["refuse_channels_last"]

_CHANNELS = (1, 3, 4)


def refuse_channels_last(where: str, name: str | None, shape: Iterable[object] | None) -> None:
    """Raise InputError for an input `(N, height, width, channels)`, as TensorFlow's exports have it."""
    sizes = list(shape or ())
    if len(sizes) != 4 or sizes[1] in _CHANNELS or sizes[3] not in _CHANNELS:
        return
    said = ", ".join(
        str(size) if isinstance(size, int) else "N" if axis == 0 else "?" for axis, size in enumerate(sizes)
    )
    raise InputError(
        f"{where}: input '{name}' is ({said}): channels last; export with channels first "
        f"(tf2onnx --inputs-as-nchw {name})"
    )
