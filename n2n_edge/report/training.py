"""The charts of the final training."""

import math
from collections.abc import Callable

from n2n_edge.metrics.scores import metric_label
from n2n_edge.report.chart import Chart, Key, Line, Point, Tick, axis_ticks, whole_ticks, x_range, y_range
from n2n_edge.report.document import EpochJson, TrainingJson
from n2n_edge.report.scale import Scale, fit_scale

__all__ = ["training_charts"]


def training_charts(training: TrainingJson, metric: str) -> tuple[Chart, ...]:
    """Return the validation metric and the loss by epoch, the best epoch marked; nothing if nothing was trained."""
    epochs = training["epochs"]
    if not epochs:
        return ()
    best = next((epoch for epoch in epochs if epoch["epoch"] == training["best_epoch"]), None)
    text = f"{len(epochs)} epoch{'s' if len(epochs) > 1 else ''} in {training['seconds']:.0f} s."
    validation = loss = text
    if best is not None:
        validation += f" Best in epoch {best['epoch']}: {best['validation']:.2%}; its weights ship."
        loss += f" {epochs[0]['loss']:.3g} in the first, {best['loss']:.3g} in the best, epoch {best['epoch']}."
    return (
        _chart(
            training,
            "training",
            "Validation during the final training",
            validation,
            f"Validation {metric_label(metric)}",
            lambda epoch: epoch["validation"],
            lambda ys: axis_ticks(ys, "fraction"),
            Key("validation", "validation split"),
            "Measured on the validation split after each epoch.",
        ),
        _chart(
            training,
            "loss",
            "Loss during the final training",
            loss,
            "Distillation loss",
            lambda epoch: epoch["loss"],
            axis_ticks,
            Key("loss", "training loss"),
            "Measured on the training images, mean over each epoch.",
        ),
    )


def _chart(
    training: TrainingJson,
    name: str,
    title: str,
    description: str,
    label: str,
    value: Callable[[EpochJson], float],
    ticks: Callable[[Scale], tuple[Tick, ...]],
    key: Key,
    source: str,
) -> Chart:
    epochs = [epoch for epoch in training["epochs"] if math.isfinite(value(epoch))]
    xs = fit_scale([float(epoch["epoch"]) for epoch in epochs], *x_range())
    ys = fit_scale([value(epoch) for epoch in epochs], *y_range())
    places = tuple((xs.place(epoch["epoch"]), ys.place(value(epoch))) for epoch in epochs)
    points = tuple(
        Point(
            x,
            y,
            "winner" if epoch["epoch"] == training["best_epoch"] else "epoch",
            f"epoch {epoch['epoch']}; validation {epoch['validation']:.2%}; loss {epoch['loss']:.4g}",
        )
        for (x, y), epoch in zip(places, epochs, strict=True)
    )
    return Chart(
        name=name,
        title=title,
        description=description,
        x_label="Epoch",
        y_label=label,
        x_ticks=whole_ticks(xs),
        y_ticks=ticks(ys),
        points=points,
        lines=(Line(places, key.kind),),
        keys=(key, Key("winner", "best epoch")) if any(point.kind == "winner" for point in points) else (key,),
        source=source,
    )
