"""The chart of a detector's precision by recall."""

from collections.abc import Sequence

from n2n_edge.report.chart import Chart, Key, Line, Point, axis_ticks, x_range, y_range
from n2n_edge.report.document import RunReport
from n2n_edge.report.scale import Scale

__all__ = ["precision_charts"]

_MARKED_STEP = 10
"""Every so many recalls one has a mark, which says what the precision is."""


def precision_charts(document: RunReport) -> tuple[Chart, ...]:
    """Return the curves of teacher and student, or the student's alone; nothing where the report has none."""
    curves = document.get("precision_recall")
    if curves is None:
        return ()
    labelled = curves["against"] == "labels"
    told = [("teacher", curves["teacher"])] if "teacher" in curves else []
    told.append(("student", curves["student"]))
    recall, iou = curves["recall"], f"{curves['iou']:g}"
    # room at the ends: curves begin at 100%, and two ticks called 0% would meet on a phone
    xs, ys = Scale(-0.06, 1.02, *x_range()), Scale(0.0, 1.05, *y_range())
    areas = ", ".join(f"{who} {_mean(values):.1%}" for who, values in told)
    aim = "what is labelled" if labelled else "what the teacher finds"
    return (
        Chart(
            name="precision-recall",
            title=f"Precision by recall at IoU {iou}",
            description=f"Mean over classes, against {aim}. Area under the curve: {areas}.",
            x_label="Recall (part that is detected)",
            y_label="Precision (part that is right)",
            x_ticks=axis_ticks(xs, "fraction"),
            y_ticks=axis_ticks(ys, "fraction"),
            points=tuple(
                Point(xs.place(r), ys.place(p), who, f"{who}; recall {r:.0%}; precision {p:.1%}")
                for who, values in told
                for r, p in list(zip(recall, values, strict=True))[::_MARKED_STEP]
            ),
            lines=tuple(
                Line(tuple((xs.place(r), ys.place(p)) for r, p in zip(recall, values, strict=True)), who)
                for who, values in told
            ),
            keys=tuple(Key(who, who) for who, _ in told),
            source=f"Measured on {curves['n']:,} test images; at each recall the best precision at that recall or a "
            "higher one, as COCO has it; boxes of any size, up to 100 an image.",
        ),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
