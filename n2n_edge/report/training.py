"""The chart of the final training."""

from n2n_edge.report.chart import Chart, Key, Line, Point, axis_ticks, x_range, y_range
from n2n_edge.report.document import TrainingJson
from n2n_edge.report.scale import fit_scale

__all__ = ["training_chart"]


def training_chart(training: TrainingJson, metric: str) -> Chart | None:
    """Return the validation metric by epoch with the best epoch marked, or None if nothing was trained."""
    epochs = training["epochs"]
    if not epochs:
        return None
    xs = fit_scale([float(epoch["epoch"]) for epoch in epochs], *x_range())
    ys = fit_scale([epoch["validation"] for epoch in epochs], *y_range())
    places = tuple((xs.place(epoch["epoch"]), ys.place(epoch["validation"])) for epoch in epochs)
    points = tuple(
        Point(
            x,
            y,
            "winner" if epoch["epoch"] == training["best_epoch"] else "epoch",
            f"epoch {epoch['epoch']}; validation {epoch['validation']:.2%}; loss {epoch['loss']:.4g}",
        )
        for (x, y), epoch in zip(places, epochs, strict=True)
    )
    best = next((epoch for epoch in epochs if epoch["epoch"] == training["best_epoch"]), None)
    text = f"{len(epochs)} epochs in {training['seconds']:.0f} s."
    if best is not None:
        text += f" Best in epoch {best['epoch']}: {best['validation']:.2%} on the validation split; its weights ship."
    whole_ticks = tuple(tick for tick in axis_ticks(xs) if "." not in tick.label)
    return Chart(
        name="training",
        title="Final training",
        description=text,
        x_label="Epoch",
        y_label=f"Validation {metric}",
        x_ticks=whole_ticks,
        y_ticks=axis_ticks(ys, "fraction"),
        points=points,
        lines=(Line(places, "validation"),),
        keys=(Key("validation", "validation split"), Key("winner", "best epoch")),
    )
