"""What became of a student with regions in int8, in words: by step, and beside its float twin."""

from dataclasses import dataclass

from n2n_edge.metrics.figures import FigureJson
from n2n_edge.report.comparison import figure_of
from n2n_edge.report.document import PrecisionJson, RunReport

__all__ = ["PrecisionRatio", "PrecisionStep", "PrecisionWords", "precision_words"]

_STEPS = {
    "float": "float32, distilled",
    "half": "float16",
    "calibrated": "int8, calibrated on training images",
    "distilled": "int8, distilled with quantized values",
}


@dataclass(frozen=True)
class PrecisionStep:
    """One step on the way to int8."""

    name: str
    drop: str
    loss: str


@dataclass(frozen=True)
class PrecisionRatio:
    """A cost of the int8 form over that of its float twin."""

    name: str
    text: str
    predicted: bool


@dataclass(frozen=True)
class PrecisionWords:
    """What ships and why, the steps, the ratios."""

    outcome: str
    rejected: tuple[str, ...]
    steps: tuple[PrecisionStep, ...]
    ratios: tuple[PrecisionRatio, ...]


def precision_words(document: RunReport) -> PrecisionWords | None:
    """Return what a report says of the student's precision; None where it was never quantized."""
    found = document.get("precision")
    if found is None:
        return None
    steps = tuple(
        PrecisionStep(_STEPS[step["step"]], f"{0.0 - step['drop']:+.2f} points", f"{step['loss']:.3g}")
        for step in found["steps"]
    )
    ratios = [
        PrecisionRatio(f"Latency on {device}", _in_words(ratio), figure_of(ratio).predicted)
        for device, ratio in found["latency_ratio"].items()
    ]
    size = float(found["size_mb"]["student"]["value"]) / float(found["size_mb"]["twin"]["value"])
    ratios.append(PrecisionRatio("File size", f"{size:.2f}", False))
    return PrecisionWords(_outcome(found), tuple(found["rejected"]), steps, tuple(ratios))


def _outcome(found: PrecisionJson) -> str:
    regions = ", ".join(found["regions"])
    if found["ships"] == "fp16":
        return "In float16, with inputs and outputs in float32."
    if found["ships"] == "int8":
        return f"In int8: {regions}. The rest is in float32."
    return f"The student ships in float32. Tried in int8: {regions}."


def _in_words(ratio: FigureJson) -> str:
    text = f"{float(ratio['value']):.2f}"
    return f"{text} ({float(ratio['low']):.2f} to {float(ratio['high']):.2f})" if "low" in ratio else text
