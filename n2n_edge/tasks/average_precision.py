"""Average precision of detections, as COCO defines it (Lin et al., Microsoft COCO, 2014, and its evaluation server)."""

from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
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
    return _Evaluation(found, objects).result


class _Evaluation:
    def __init__(self, found: Sequence[Detections], objects: Sequence[Objects]) -> None:
        if len(found) != len(objects):
            raise ValueError(f"detections of {len(found)} images, objects of {len(objects)}")
        self._found, self._objects = found, objects

    @cached_property
    def result(self) -> AveragePrecision:
        """The library's figures."""
        from faster_coco_eval import COCO, COCOeval_faster

        classes = sorted({int(each) for image in self._objects for each in image.classes})
        nothing = np.zeros(101, np.float32)
        if not classes:
            return AveragePrecision(None, None, {}, nothing)
        annotations = list(self._annotations())
        document = {
            "info": {},
            "images": [{"id": index + 1} for index in range(len(self._objects))],
            "categories": [{"id": each, "name": str(each)} for each in classes],
            "annotations": annotations,
        }
        rows = self._rows()
        if not len(rows):
            return AveragePrecision(0.0, 0.0, dict.fromkeys(classes, 0.0), nothing)
        with redirect_stdout(StringIO()):
            truth = COCO(document)
            evaluation = COCOeval_faster(truth, truth.loadRes(rows), "bbox", print_function=lambda *_: None)
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

    def _annotations(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for index, image in enumerate(self._objects):
            for place, (box, kind) in enumerate(zip(image.boxes, image.classes, strict=True)):
                left, top, right, bottom = (float(edge) for edge in box)
                crowd = int(image.crowd is not None and bool(image.crowd[place]))
                rows.append(
                    {
                        "id": len(rows) + 1,
                        "image_id": index + 1,
                        "category_id": int(kind),
                        "bbox": [left, top, right - left, bottom - top],
                        "area": (right - left) * (bottom - top),
                        "iscrowd": crowd,
                    }
                )
        return rows

    def _rows(self) -> NDArray[np.float64]:
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
            for index, each in enumerate(self._found)
        ]
        return np.concatenate(parts).astype(np.float64) if parts else np.zeros((0, 7))
