"""Average precision of detections, as COCO defines it (Lin et al., Microsoft COCO, 2014, and its evaluation server)."""

from collections.abc import Sequence
from contextlib import redirect_stdout
from copy import copy
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from n2n_edge.data.labels.values import Objects
from n2n_edge.tasks.boxes import Detections, Floats

__all__ = ["AveragePrecision", "Matches", "average_precision"]


@dataclass(frozen=True)
class AveragePrecision:
    """Average precision over overlaps of 0.50 to 0.95, `at_50` at 0.50 alone, each a mean over classes, in 0..1.

    None where no image holds an object. `by_class` is that of every class that is there; `precision` ``(101,)`` is the
    mean over classes at an overlap of 0.50, by recall from 0 to 1: the best precision at that recall or a higher one,
    so that its mean is `at_50`.
    """

    value: float | None
    at_50: float | None
    by_class: dict[int, float]
    precision: Floats


def average_precision(found: Sequence[Detections], objects: Sequence[Objects]) -> AveragePrecision:
    """Return how well detections meet the objects of the same images; boxes of both in the same units."""
    return Matches(found, objects).average_precision()


class Matches:
    """Detections matched with the objects of the same images: once, whatever samples of the images are then asked for.

    Raises ValueError where there are detections of more or fewer images than there are objects of.
    """

    def __init__(self, found: Sequence[Detections], objects: Sequence[Objects]) -> None:
        if len(found) != len(objects):
            raise ValueError(f"detections of {len(found)} images, objects of {len(objects)}")
        self._found, self._objects, self._none_found = found, objects, not any(map(len, found))
        self._classes = sorted({int(each) for image in objects for each in image.classes})
        if not self._classes or self._none_found:
            return
        from faster_coco_eval import COCO, COCOeval_faster

        document = {
            "info": {},
            "images": [{"id": index + 1} for index in range(len(objects))],
            "categories": [{"id": each, "name": str(each)} for each in self._classes],
            "annotations": _annotations(objects),
        }
        with redirect_stdout(StringIO()):
            truth, quiet = COCO(document), lambda *_: None
            self._evaluation = COCOeval_faster(
                truth, truth.loadRes(_rows(found)), "bbox", print_function=quiet, separate_eval=True
            )
            parameters = self._evaluation.params
            parameters.maxDets, parameters.areaRng, parameters.areaRngLbl = [100], parameters.areaRng[:1], ["all"]
            self._evaluation.evaluate()

    def average_precision(self, chosen: Sequence[int] | None = None) -> AveragePrecision:
        """Return that of these images, by number, some of them perhaps several times; of all without `chosen`."""
        nothing = np.zeros(101, np.float32)
        if not self._classes:
            return AveragePrecision(None, None, {}, nothing)
        if self._none_found:
            objects = self._objects if chosen is None else [self._objects[each] for each in chosen]
            missed = dict.fromkeys(sorted({kind for each in objects for kind in _counted(each)}), 0.0)
            return AveragePrecision(0.0, 0.0, missed, nothing) if missed else AveragePrecision(None, None, {}, nothing)
        if chosen is not None and not hasattr(self._evaluation, "_evalImgs_cpp"):  # another version of the library
            return average_precision([self._found[each] for each in chosen], [self._objects[each] for each in chosen])
        # overlaps, recalls, classes, sizes, most detections; -1 where a class has no object
        precision = self._precision(chosen)[:, :, :, 0, -1]
        by_class = {
            each: float(table.mean())
            for each, table in zip(self._classes, precision.transpose(2, 0, 1), strict=True)
            if table.max() > -1
        }
        if not by_class:
            return AveragePrecision(None, None, {}, nothing)
        told = precision[0][:, precision[0].max(axis=0) > -1]
        value, at_50 = float(np.mean(list(by_class.values()))), float(told.mean())
        return AveragePrecision(value, at_50, by_class, told.mean(axis=1).astype(np.float32))

    def _precision(self, chosen: Sequence[int] | None) -> NDArray[np.float64]:
        """Return precision ``(overlaps, recalls, classes, 1, 1)``, as the library adds up its matches of the images."""
        if chosen is None:
            self._evaluation.accumulate()
            return np.asarray(self._evaluation.eval["precision"], np.float64)
        from faster_coco_eval import faster_eval_api_cpp

        count, matches = len(self._objects), self._evaluation._evalImgs_cpp  # class by class, image by image
        parameters = copy(self._evaluation._paramsEval)
        parameters.imgIds = list(range(len(chosen)))
        sample = [matches[place * count + image] for place in range(len(self._classes)) for image in chosen]
        return np.asarray(faster_eval_api_cpp.COCOevalAccumulate(parameters, sample)["precision"], np.float64)


def _counted(objects: Objects) -> set[int]:
    """Return the classes of the objects of an image that are to be found; crowds may be."""
    kinds = objects.classes if objects.crowd is None else objects.classes[~objects.crowd.astype(bool)]
    return {int(each) for each in kinds}


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
