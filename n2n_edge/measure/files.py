"""The files that a model is made of."""

from pathlib import Path

from n2n_edge.graph.model_file import check_path, data_files, read_proto

__all__ = ["file_size_bytes", "is_ort", "model_files"]


def file_size_bytes(model: Path) -> int:
    """Return the bytes of an ONNX file and of the external data files that it names."""
    return sum(part.stat().st_size for part in model_files(model))


def is_ort(model: Path) -> bool:
    """Tell whether a file is in the runtime's own format, which holds everything and which only it can read."""
    return model.suffix.lower() == ".ort"


def model_files(model: Path) -> list[Path]:
    """Return an ONNX file and the external data files that it names.

    Raises:
        InputError: no ONNX file, or one whose external data is missing or lies elsewhere.
    """
    if is_ort(model):
        check_path(model)
        return [model]
    return [model, *data_files(read_proto(model), model).values()]
