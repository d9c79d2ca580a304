"""The built-in example: a residual CNN trained on scikit-learn's handwritten digits, shipped with the package."""

from pathlib import Path

__all__ = ["teacher_path"]


def teacher_path() -> Path:
    """Return the path of the example's teacher, an ONNX file: input ``(N, 1, 16, 16)``, logits ``(N, 10)``.

    ``benchmarks/example_teacher/train.py`` trains it, and its README says how well it does.
    """
    return Path(__file__).with_name("digits_teacher.onnx")
