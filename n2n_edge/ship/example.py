"""The built-in example: scikit-learn's handwritten digits and the teacher that ships with the package."""

from importlib.resources import as_file, files
from pathlib import Path

__all__ = ["EXAMPLE_DATA", "example_teacher"]

EXAMPLE_DATA = "builtin:digits"


def example_teacher() -> Path:
    """Return the path of the example's teacher (see `benchmarks/example_teacher`)."""
    with as_file(files("n2n_edge._example") / "digits_teacher.onnx") as path:
        return path
