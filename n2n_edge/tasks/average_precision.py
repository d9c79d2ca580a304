"""Average precision of detections, as COCO defines it (Lin et al., Microsoft COCO, 2014, and its evaluation server)."""

from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from n2n_edge.data.labels.values import Objects
from n2n_edge.tasks.boxes import Detections, Floats

__all__ = ["AveragePrecision", "average_precision"]


@dataclass(frozen=True)
class AveragePrecision:
    """Average precision over overlaps of 0.50 to 0.95, `at_50` at 0.50 alone, each a mean over classes, in 0..1.

    None where no image holds an object. `by_class` is that of every class that is there; `precision` ``(101,)`` is the
    mean over classes at an overlap of 0.50, by recall from 0 to 1.
    """

    value: float | None
    at_50: float | None
    by_class: dict[int, float]
    precision: Floats


def average_precision(found: Sequence[Detections], objects: Sequence[Objects]) -> AveragePrecision:
    """Return how well detections meet the objects of the same images; boxes of both in the same units."""
    from faster_coco_eval import COCO, COCOeval_faster

    if len(found) != len(objects):
        raise ValueError(f"detections of {len(found)} images, objects of {len(objects)}")
    classes = sorted({int(each) for image in objects for each in image.classes})
    nothing = np.zeros(101, np.float32)
    if not classes:
        return AveragePrecision(None, None, {}, nothing)
    if not any(map(len, found)):
        return AveragePrecision(0.0, 0.0, dict.fromkeys(classes, 0.0), nothing)
    document = {
        "info": {},
        "images": [{"id": index + 1} for index in range(len(objects))],
        "categories": [{"id": each, "name": str(each)} for each in classes],
        "annotations": _annotations(objects),
    }
    with redirect_stdout(StringIO()):
        truth = COCO(document)
        evaluation = COCOeval_faster(truth, truth.loadRes(_rows(found)), "bbox", print_function=lambda *_: None)
        evaluation.params.maxDets = [1, 10, 100]
        evaluation.evaluate()
        evaluation.accumulate()
    # overlaps, recalls, classes, sizes, most detections; -1 where a class has no object
    precision = np.asarray(evaluation.eval["precision"])[:, :, :, 0, -1]
    by_class = {
        each: float(table.mean())
        for each, table in zip(evaluation.params.catIds, precision.transpose(2, 0, 1), strict=True)
        if table.max() > -1
    }
    told = precision[0][:, precision[0].max(axis=0) > -1]
    value, at_50 = float(np.mean(list(by_class.values()))), float(told.mean())
    return AveragePrecision(value, at_50, by_class, told.mean(axis=1).astype(np.float32))


def _annotations(objects: Sequence[Objects]) -> list[dict[str, Any]]:
    """Return objects as COCO's JSON has them."""
    rows: list[dict[str, Any]] = []
    for index, image in enumerate(objects):
        for place, (box, kind) in enumerate(zip(image.boxes, image.classes, strict=True)):
            left, top, right, bottom = (float(edge) for edge in box)
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": index + 1,
                    "category_id": int(kind),
                    "bbox": [left, top, right - left, bottom - top],
                    "area": (right - left) * (bottom - top),
                    "iscrowd": int(image.crowd is not None and bool(image.crowd[place])),
                }
            )
    return rows


def _rows(found: Sequence[Detections]) -> NDArray[np.float64]:
    """Return image, left, top, width, height, score and class of every detection."""
    parts = [
        np.column_stack(
            [
                np.full(len(each), index + 1),
                each.boxes[:, :2],
                each.boxes[:, 2:] - each.boxes[:, :2],
                each.scores,
                each.classes,
            ]
        )
        for index, each in enumerate(found)
    ]
    return np.concatenate(parts).astype(np.float64)
