"""Charts of the search's outcome: every candidate by its score and one cost, with the front and the budgets."""

from collections.abc import Sequence

from n2n_edge.metrics.costs import COSTS, cost_named
from n2n_edge.metrics.formats import format_value
from n2n_edge.metrics.scores import metric_label, metric_title
from n2n_edge.report.chart import Chart, Key, Line, Point, Rule, axis_ticks, x_range, y_range
from n2n_edge.report.document import CandidateJson, RunReport
from n2n_edge.report.known_costs import KnownCost
from n2n_edge.report.scale import Scale, fit_scale, without_low_outliers
from n2n_edge.report.score import metric_of, score_of

__all__ = ["candidate_charts", "describe_candidate", "find_winner"]

_KEYS = {
    "winner": "chosen",
    "feasible": "meets the budgets",
    "infeasible": "breaks a budget",
    "untrained": "not trained: has no score",
}


def find_winner(document: RunReport, rows: Sequence[CandidateJson]) -> int | None:
    """Return the winner's place in `rows`: as the run noted it, else the last one that costs what the student does."""
    noted = document["search"].get("winner")
    if noted is not None:
        return noted if 0 <= noted < len(rows) else None
    params, macs = (document["student"][cost]["value"] for cost in ("params", "macs"))
    alike = [
        place for place, row in enumerate(rows) if row["feasible"] and (row["params"], row["macs"]) == (params, macs)
    ]
    return alike[-1] if alike else None


def candidate_charts(
    document: RunReport, rows: Sequence[CandidateJson], costs: Sequence[KnownCost]
) -> tuple[Chart, ...]:
    """Return a scatter of the score against each cost."""
    winner, metric = find_winner(document, rows), metric_of(document)
    floor = next((budget["limit"] for budget in document["budgets"] if cost_named(budget["cost"]) == "score"), None)
    texts = [describe_candidate(place, costs, rows, metric) for place in range(len(rows))]
    return tuple(_scatter(cost, rows, winner, metric, floor, texts) for cost in costs)


def describe_candidate(place: int, costs: Sequence[KnownCost], rows: Sequence[CandidateJson], metric: str) -> str:
    """Return everything known of a candidate in one line; its number is what ``pareto --ship`` takes.

    `metric` is the name of what scores are in.
    """
    row = rows[place]
    score = score_of(row)
    facts = [f"candidate {place + 1}, stage {row['stage']}"]
    facts.append("not trained" if score is None else f"{metric_label(metric)} {score:.1%}")
    for cost in costs:
        value = cost.values[place]
        if value is not None:
            text = format_value(value, cost.unit)
            told = text if cost.unit in ("params", "MACs") else f"{_lower(cost.title)} {text}"
            facts.append(f"{told} (predicted)" if cost.predicted else told)
    facts.append(f"reward {row['reward']:.3f}")
    facts.append("meets the budgets" if row["feasible"] else "breaks a budget")
    return "; ".join(facts)


def _scatter(
    cost: KnownCost,
    rows: Sequence[CandidateJson],
    winner: int | None,
    metric: str,
    floor: float | None,
    texts: Sequence[str],
) -> Chart:
    located = [(place, row, value) for place, row in enumerate(rows) if (value := cost.values[place]) is not None]
    scores = [score for row in rows if (score := score_of(row)) is not None]
    limits = [] if cost.limit is None else [cost.limit]
    xs = fit_scale([value for _, _, value in located] + limits, *x_range(), may_be_log=True)
    needed = [score for place, row, _ in located if place == winner and (score := score_of(row)) is not None]
    needed += [floor] if floor is not None and scores else []
    ys = fit_scale(without_low_outliers(scores, keep=needed), *y_range())
    below = sum(score < ys.low for score in scores)
    points = []
    for place, row, value in located:
        score = score_of(row)
        # Candidates that were never trained have no score: they stand on the axis, so that the search shows whole.
        y = ys.start - 5 if score is None else ys.place(score)
        kind = "untrained" if score is None else "feasible" if row["feasible"] else "infeasible"
        points.append(Point(xs.place(value), y, "winner" if place == winner else kind, texts[place]))
    points.sort(key=lambda point: list(_KEYS).index(point.kind), reverse=True)
    held = " (upper bound)" if cost.by_upper_bound else ""
    rules = [Rule(f"budget {format_value(limit, cost.unit)}{held}", "budget", x=xs.place(limit)) for limit in limits]
    if floor is not None and scores:
        rules.append(Rule(f"at least {format_value(floor, 'fraction')}", "budget", y=ys.place(floor)))
    front = _front_line(cost, rows, xs, ys)
    keys = [Key(kind, text) for kind, text in _KEYS.items() if kind in {point.kind for point in points}]
    return Chart(
        name=f"candidates-{cost.key}",
        title=f"{metric_title(metric)} against {_lower(cost.title)}",
        description=_scatter_text(cost, located, winner, metric),
        x_label=_axis_name(cost, logarithmic=xs.logarithmic),
        y_label=f"Validation {metric_label(metric)}",
        x_ticks=axis_ticks(xs),
        y_ticks=axis_ticks(ys, "fraction") if scores else (),
        points=tuple(points),
        lines=(front,) if len(front.places) > 1 else (),
        rules=tuple(rules),
        keys=(*keys, Key("front", "front: nothing is cheaper and as good")) if len(front.places) > 1 else tuple(keys),
        source=f"{metric_title(metric)}: measured on validation images after a short distillation. "
        f"{cost.title}: {cost.source}."
        + (f" {below} far below the others {'stands' if below == 1 else 'stand'} at the lower edge." if below else ""),
    )


def _front_line(cost: KnownCost, rows: Sequence[CandidateJson], xs: Scale, ys: Scale) -> Line:
    """Return the front as stairs: at every cost, the best score that is to be had for it."""
    places: list[tuple[float, float]] = []
    for place in cost.front:
        value, score = cost.values[place], score_of(rows[place])
        assert value is not None
        assert score is not None
        x, y = xs.place(value), ys.place(score)
        if places:
            places.append((x, places[-1][1]))
        places.append((x, y))
    return Line(tuple(places), "front")


def _scatter_text(
    cost: KnownCost, located: Sequence[tuple[int, CandidateJson, float]], winner: int | None, metric: str
) -> str:
    feasible = sum(row["feasible"] for _, row, _ in located)
    text = f"{len(located)} candidates, {feasible} of them within all budgets."
    if cost.front:
        numbers = ", ".join(str(place + 1) for place in cost.front)
        text += f" On the front, the cheapest first: {numbers}."
    if cost.limit is not None:
        held = ", for the upper bound" if cost.by_upper_bound else ""
        text += f" The budget is {format_value(cost.limit, cost.unit)}{held}."
    for place, row, value in located:
        if place == winner and (score := score_of(row)) is not None:
            price = format_value(value, cost.unit)
            text += f" Chosen: candidate {place + 1}, {price} at {score:.1%} {metric_label(metric)}."
    return text


def _axis_name(cost: KnownCost, *, logarithmic: bool) -> str:
    """Return what the axis shows; on which device is in the chart's title."""
    name = COSTS[cost.cost].label
    if cost.unit.lower() != name.lower():
        name = f"{name} ({cost.unit})"
    if cost.predicted:
        name = f"{name}, predicted"
    return f"{name}, log scale" if logarithmic else name


def _lower(title: str) -> str:
    return title if title == "MACs" else title[:1].lower() + title[1:]
