"""Examples for the report: the test images on which a student differs most from its teacher."""

import base64
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from n2n_edge.data.dataset import Data, Split
from n2n_edge.report.document import ExampleJson, ExamplesJson, MarksJson
from n2n_edge.tasks.marks import Marks, label_marks
from n2n_edge.tasks.task import meter_between
from n2n_edge.training.file_evaluation import outputs_by_image

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["worst_examples"]

_SHOWN, _LOOKED_AT = 6, 64
_QUALITY = 80
_COLOURS = ((0, 0, 0), (230, 97, 1), (37, 99, 184), (26, 115, 64), (179, 38, 30), (130, 80, 180), (0, 140, 140))
"""Of classes, in turns; nothing is drawn of class 0."""

_OPAQUE = 140


def worst_examples(
    teacher: Path, student: Path, data: Data, own: tuple[Split, Data] | None = None
) -> ExamplesJson | None:
    """Return the test images on which two files differ most, of the first ones, with what each says of them.

    `own` are the images as the student takes them, where it takes them in another size than the teacher. None where
    what they give can't be drawn (see `Task.marks`).
    """
    task, images = data.task, data.test
    if task is None:
        return None
    count = min(_LOOKED_AT, len(images))
    looked_at = images.take(np.arange(count))
    labels = task.labels(looked_at)
    rows: list[tuple[float, int, Marks, Marks]] = []
    given, student_data = (looked_at, data) if own is None else (own[0].take(np.arange(count)), own[1])
    reader = student_data.task or task
    pairs = zip(outputs_by_image(teacher, data, looked_at), outputs_by_image(student, student_data, given), strict=True)
    for place, (theirs, outputs) in enumerate(pairs):
        marks = task.marks(theirs), reader.marks(outputs)
        meter = meter_between(task, reader)
        if marks[0] is None or marks[1] is None or meter is None:
            return None
        meter.add(outputs, theirs, None)
        agreement = meter.evaluation().fidelity
        student_marks = marks[1][0].scaled(student_data.input_shape[1:], data.input_shape[1:])
        rows.append((2.0 if agreement is None else agreement, place, marks[0][0], student_marks))
    rows.sort(key=lambda row: row[:2])
    shown = [
        _example(looked_at.images[place], agreement, first, second, None if labels is None else labels[place])
        for agreement, place, first, second in rows[:_SHOWN]
    ]
    return {"of": count, "classes": list(data.class_names), "images": shown}


def _example(image: NDArray[np.uint8], agreement: float, teacher: Marks, student: Marks, label: Any) -> ExampleJson:
    example: ExampleJson = {
        "image": _jpeg(image),
        "width": image.shape[1],
        "height": image.shape[0],
        "agreement": agreement if agreement <= 1 else None,
        "teacher": _marks(teacher),
        "student": _marks(student),
    }
    told = label_marks(label)
    if told is not None:
        example["labels"] = _marks(told)
    return example


def _marks(marks: Marks) -> MarksJson:
    document: MarksJson = {
        "boxes": [
            (*_rounded(box.edges), box.kind, None if box.score is None else round(box.score, 3)) for box in marks.boxes
        ],
        "points": [(round(x, 1), round(y, 1)) for x, y in marks.points],
    }
    if marks.area is not None:
        document["area"] = _overlay(marks.area)
    return document


def _rounded(edges: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    left, top, right, bottom = (round(edge, 1) for edge in edges)
    return left, top, right, bottom


def _jpeg(image: NDArray[np.uint8]) -> str:
    from PIL import Image

    pixels = image[..., 0] if image.shape[-1] == 1 else image[..., :3]
    return _uri(Image.fromarray(pixels), "jpeg", quality=_QUALITY)


def _overlay(area: NDArray[np.uint8]) -> str:
    from PIL import Image

    picture = Image.fromarray(area, "P")
    colours = [_COLOURS[0], *(_COLOURS[1 + (kind - 1) % (len(_COLOURS) - 1)] for kind in range(1, 256))]
    picture.putpalette([level for colour in colours for level in colour])
    return _uri(picture, "png", transparency=bytes([0] + [_OPAQUE] * 255), optimize=True)


def _uri(picture: "Image.Image", kind: str, **options: object) -> str:
    with BytesIO() as file:
        picture.save(file, kind, **options)
        return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
