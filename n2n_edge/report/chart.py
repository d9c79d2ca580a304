"""A chart as data: what the SVG template draws."""

import math
from dataclasses import dataclass

from n2n_edge.report.scale import Scale

__all__ = [
    "HEIGHT",
    "WIDTH",
    "Bar",
    "Chart",
    "Key",
    "Label",
    "Line",
    "Point",
    "Rule",
    "Tick",
    "axis_ticks",
    "whole_ticks",
    "x_range",
    "y_range",
]

WIDTH, HEIGHT = 560, 366
"""The size of every chart in SVG units; the page scales it to the width at hand."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 24, 50, 54

_LETTER = 11.5
"""About the width of a letter on a phone, where texts are largest."""


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Point:
    """A mark with a text that shows on hovering; `kind` is its CSS class and picks its shape."""

    x: float
    y: float
    kind: str
    text: str


@dataclass(frozen=True)
class Bar:
    """An upright or lying bar with a text that shows on hovering; one that is `struck` has a cross over it."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    text: str
    struck: bool = False


@dataclass(frozen=True)
class Label:
    """A short text in the chart itself; `anchor` is SVG's ``text-anchor``."""

    x: float
    y: float
    text: str
    kind: str = "name"
    anchor: str = "start"


@dataclass(frozen=True)
class Line:
    """A polyline through places in the chart."""

    places: tuple[tuple[float, float], ...]
    kind: str

    @property
    def path(self) -> str:
        """The `d` attribute of an SVG path."""
        return "M" + "L".join(f"{x:g},{y:g}" for x, y in self.places) if self.places else ""


@dataclass(frozen=True)
class Rule:
    """A straight line across the whole chart, such as a budget: vertical at `x` or horizontal at `y`."""

    label: str
    kind: str
    x: float | None = None
    y: float | None = None

    @property
    def label_place(self) -> tuple[float, str]:
        """Where the label of a vertical rule hangs, and by which end, so that it stays inside the chart."""
        assert self.x is not None
        room = _LETTER * len(self.label)
        places = {"start": self.x - 4, "end": self.x + 4}
        fits = {"start": places["start"] + room < WIDTH, "end": places["end"] - room > 0}
        order = ("end", "start") if self.x > WIDTH / 2 else ("start", "end")
        anchor = next((one for one in order if fits[one]), None)
        return (places[anchor], anchor) if anchor is not None else (float(WIDTH - 2), "end")


@dataclass(frozen=True)
class Key:
    """An entry of the legend: the class of a mark and what it stands for."""

    kind: str
    text: str


@dataclass(frozen=True)
class Chart:
    """Everything that the template draws; `title` and `description` are its text alternative.

    `source` says where its figures come from.
    """

    name: str
    title: str
    description: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    points: tuple[Point, ...] = ()
    lines: tuple[Line, ...] = ()
    rules: tuple[Rule, ...] = ()
    keys: tuple[Key, ...] = ()
    bars: tuple[Bar, ...] = ()
    labels: tuple[Label, ...] = ()
    source: str = ""
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = HEIGHT - _BOTTOM


def x_range() -> tuple[float, float]:
    """Return where the horizontal axis starts and ends."""
    return float(_LEFT), float(WIDTH - _RIGHT)


def y_range() -> tuple[float, float]:
    """Return where the vertical axis starts (at the bottom) and ends."""
    return float(HEIGHT - _BOTTOM), float(_TOP)


def axis_ticks(scale: Scale, unit: str = "") -> tuple[Tick, ...]:
    """Return the ticks of an axis with short labels: ``30k``, ``1.2M``, ``95%`` for fractions."""
    most = 1.0 if unit == "fraction" else math.inf  # room at an axis's end is no reason to name what can't be
    return tuple(Tick(scale.place(value), _short(value, unit)) for value in scale.ticks() if value <= most + 1e-9)


def whole_ticks(scale: Scale) -> tuple[Tick, ...]:
    """Return the ticks of an axis that counts things: whole numbers alone."""
    return tuple(tick for tick in axis_ticks(scale) if "." not in tick.label)


def _short(value: float, unit: str) -> str:
    if unit == "fraction":
        return f"{round(100 * value, 6):g}%"
    value = round(value, 12)
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"
