"""Test images with what teacher and student say of them, drawn side by side."""

from dataclasses import dataclass

from n2n_edge.report.document import ExampleJson, ExamplesJson, MarksJson, RunReport

__all__ = ["ExamplePicture", "ExampleView", "example_pictures"]

_LETTER = 0.6
"""Width of a letter in units of its height."""

_LEAST_TEXT = 9.0
_INKS = ("blue", "orange", "good", "bad")


@dataclass(frozen=True)
class _BoxView:
    x: float
    y: float
    width: float
    height: float
    ink: str
    text: str
    text_y: float
    text_width: float


@dataclass(frozen=True)
class ExampleView:
    """One panel: who says it, and what it says, drawn in the image's pixels."""

    who: str
    boxes: tuple[_BoxView, ...]
    points: tuple[tuple[float, float], ...]
    area: str | None


@dataclass(frozen=True)
class ExamplePicture:
    """One image with a panel for the teacher, the student and, where there are any, the labels."""

    name: str
    caption: str
    image: str
    width: int
    height: int
    letter: float
    dot: float
    views: tuple[ExampleView, ...]


def example_pictures(document: RunReport) -> tuple[ExamplePicture, ...]:
    """Return the pictures of a report, the worst first; none where the report has no examples."""
    examples = document.get("examples")
    if examples is None:
        return ()
    return tuple(_picture(number, each, examples) for number, each in enumerate(examples["images"], start=1))


def _picture(number: int, example: ExampleJson, examples: ExamplesJson) -> ExamplePicture:
    letter = max(_LEAST_TEXT, min(example["width"], example["height"]) / 22)
    parts = [("Teacher", example["teacher"]), ("Student", example["student"])]
    if "labels" in example:
        parts.append(("Labels", example["labels"]))
    agreement = example["agreement"]
    return ExamplePicture(
        f"example-{number}",
        "nothing to agree on" if agreement is None else f"agreement {agreement:.1%}",
        example["image"],
        example["width"],
        example["height"],
        letter,
        max(1.5, letter / 4),
        tuple(ExampleView(who, *_drawn(marks, examples["classes"], letter)) for who, marks in parts),
    )


def _drawn(
    marks: MarksJson, classes: list[str], letter: float
) -> tuple[tuple[_BoxView, ...], tuple[tuple[float, float], ...], str | None]:
    boxes = []
    for left, top, right, bottom, kind, score in marks["boxes"]:
        name = classes[kind] if kind < len(classes) else str(kind)
        text = name if score is None else f"{name} {score:.2f}"
        below = top < 1.4 * letter
        boxes.append(
            _BoxView(
                left, top, right - left, bottom - top, _INKS[kind % len(_INKS)], text,
                top + (1.1 if below else -0.35) * letter, (len(text) + 1) * _LETTER * letter,
            )
        )  # fmt: skip
    return tuple(boxes), tuple((x, y) for x, y in marks["points"]), marks.get("area")
