"""The files that a model is made of."""

from pathlib import Path

__all__ = ["file_size_bytes", "is_ort", "model_files"]


def file_size_bytes(model: Path) -> int:
    """Return the bytes of an ONNX file and of the external data files that it names."""
    return sum(part.stat().st_size for part in model_files(model))


def is_ort(model: Path) -> bool:
    """Tell whether a file is in the runtime's own format, which holds everything and which only it can read."""
    return model.suffix.lower() == ".ort"


def model_files(model: Path) -> list[Path]:
    """Return an ONNX file and the external data files that it names."""
    if is_ort(model):
        return [model]
    import onnx

    outside: set[str] = {
        entry.value
        for tensor in onnx.load(model, load_external_data=False).graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return [model, *(model.parent / name for name in sorted(outside))]
