"""Charts of the search: every candidate by accuracy and cost, and the reward as the search went on."""

from collections.abc import Sequence
from typing import Literal, cast, get_args

from n2n_edge.gate import UNITS, Cost, format_value
from n2n_edge.report.chart import Chart, Key, Line, Point, Rule, axis_ticks, x_range, y_range
from n2n_edge.report.document import BudgetJson, CandidateJson, RunReport
from n2n_edge.report.scale import fit_scale

__all__ = ["COST_NAMES", "candidate_charts", "find_winner", "metric_name", "reward_chart"]

COST_NAMES: dict[str, str] = {
    "size_mb": "File size",
    "params": "Params",
    "macs": "MACs",
    "memory_bound_mb": "Memory bound",
    "latency_ms": "Latency",
    "accuracy": "Accuracy",
}

_CandidateCost = Literal["size_mb", "params", "macs", "latency_ms"]
_MOVING_AVERAGE = 10


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


def candidate_charts(document: RunReport, rows: Sequence[CandidateJson]) -> tuple[Chart, ...]:
    """Return a scatter of accuracy against the objective, and one against each other cost that has a budget."""
    objective = document["search"].get("objective", "params")
    wanted = dict.fromkeys([objective, *(budget["cost"] for budget in document["budgets"])])
    known = [cast(_CandidateCost, cost) for cost in wanted if cost in get_args(_CandidateCost)]
    drawable = [cost for cost in known if any(row[cost] is not None for row in rows)]
    winner = find_winner(document, rows)
    return tuple(_scatter(cost, document["budgets"], rows, winner, metric_name(document)) for cost in drawable)


def metric_name(document: RunReport) -> str:
    """Return what candidates were judged by: accuracy, or fidelity to the teacher where there are no labels."""
    return "accuracy" if document["student"].get("accuracy") is not None else "fidelity"


def _scatter(
    cost: _CandidateCost,
    budgets: Sequence[BudgetJson],
    rows: Sequence[CandidateJson],
    winner: int | None,
    metric: str,
) -> Chart:
    unit = UNITS[cost]
    limit = next((budget["limit"] for budget in budgets if budget["cost"] == cost), None)
    floor = next((budget["limit"] for budget in budgets if budget["cost"] == "accuracy"), None)
    located = [(place, row, value) for place, row in enumerate(rows) if (value := row[cost]) is not None]
    accuracies = [row["accuracy"] for row in rows if row["accuracy"] is not None]
    xs = fit_scale(
        [value for _, _, value in located] + ([limit] if limit is not None else []), *x_range(), may_be_log=True
    )
    ys = fit_scale(accuracies + ([floor] if floor is not None and accuracies else []), *y_range())
    points = []
    for place, row, value in located:
        accuracy = row["accuracy"]
        # Candidates that were never trained have no accuracy: they stand on the axis, so that the search shows whole.
        y = ys.start - 5 if accuracy is None else ys.place(accuracy)
        kind = "untrained" if accuracy is None else "feasible" if row["feasible"] else "infeasible"
        if place == winner:
            kind = "winner"
        points.append(Point(xs.place(value), y, kind, _describe(place, row)))
    points.sort(key=lambda point: ("untrained", "infeasible", "feasible", "winner").index(point.kind))
    rules = [Rule(f"budget {format_value(limit, unit)}", "budget", x=xs.place(limit))] if limit is not None else []
    if floor is not None and accuracies:
        rules.append(Rule(f"at least {format_value(floor, 'fraction')}", "budget", y=ys.place(floor)))
    return Chart(
        name=f"candidates-{cost}",
        title=f"{metric.capitalize()} against {_lower(cost)}",
        description=_scatter_text(cost, located, limit, winner),
        x_label=_axis_name(cost, logarithmic=xs.logarithmic),
        y_label=f"Validation {metric}",
        x_ticks=axis_ticks(xs),
        y_ticks=axis_ticks(ys, "fraction") if accuracies else (),
        points=tuple(points),
        rules=tuple(rules),
        keys=_keys(points),
    )


def _keys(points: Sequence[Point]) -> tuple[Key, ...]:
    words = {
        "winner": "winner",
        "feasible": "meets the budgets",
        "infeasible": "breaks a budget",
        "untrained": "not trained",
    }
    present = {point.kind for point in points}
    return tuple(Key(kind, text) for kind, text in words.items() if kind in present)


def _describe(place: int, row: CandidateJson) -> str:
    facts = [f"candidate {place + 1}, stage {row['stage']}", f"{row['params']:,} params, {row['size_mb']:.3g} MB"]
    facts.append(format_value(row["macs"], "MACs"))
    if row["latency_ms"] is not None:
        facts.append(f"{row['latency_ms']:.3g} ms")
    facts.append("not trained" if row["accuracy"] is None else f"accuracy {row['accuracy']:.1%}")
    facts.append(f"reward {row['reward']:.3f}")
    facts.append("meets the budgets" if row["feasible"] else "breaks a budget")
    return "; ".join(facts)


def _scatter_text(
    cost: _CandidateCost,
    located: Sequence[tuple[int, CandidateJson, float]],
    limit: float | None,
    winner: int | None,
) -> str:
    feasible = sum(row["feasible"] for _, row, _ in located)
    text = f"{len(located)} candidates, {feasible} of them within all budgets."
    if limit is not None:
        text += f" The budget is {format_value(limit, UNITS[cost])}."
    for place, row, value in located:
        if place == winner and row["accuracy"] is not None:
            text += f" The winner: {format_value(value, UNITS[cost])} at {row['accuracy']:.1%}."
    return text


def reward_chart(rows: Sequence[CandidateJson]) -> Chart:
    """Return the reward of each candidate in the order judged, with the best so far and a moving average per stage."""
    rewards = [row["reward"] for row in rows]
    xs = fit_scale([1.0, float(max(len(rows), 2))], *x_range())
    ys = fit_scale(rewards, *y_range())
    points, best, rules = [], [], []
    average: list[list[tuple[float, float]]] = []
    highest: float | None = None
    for place, row in enumerate(rows):
        x = xs.place(place + 1)
        first_of_stage = place == 0 or rows[place - 1]["stage"] != row["stage"]
        if first_of_stage:
            rules.append(Rule(f"stage {row['stage']}", "stage", x=x))
            average.append([])
        points.append(Point(x, ys.place(row["reward"]), f"stage{row['stage']}", _describe(place, row)))
        if highest is not None:
            best.append((x, ys.place(highest)))
        highest = row["reward"] if highest is None else max(highest, row["reward"])
        best.append((x, ys.place(highest)))
        window = [
            one["reward"]
            for one in rows[max(0, place - _MOVING_AVERAGE + 1) : place + 1]
            if one["stage"] == row["stage"]
        ]
        average[-1].append((x, ys.place(sum(window) / len(window))))
    stages = dict.fromkeys(row["stage"] for row in rows)
    return Chart(
        name="reward",
        title="Reward over the search",
        description=_reward_text(rewards, list(stages)),
        x_label="Candidate",
        y_label="Reward",
        x_ticks=axis_ticks(xs),
        y_ticks=axis_ticks(ys),
        points=tuple(points),
        lines=(Line(tuple(best), "best"), *(Line(tuple(places), "average") for places in average)),
        rules=tuple(rules),
        keys=(
            *(Key(f"stage{stage}", f"stage {stage}") for stage in stages),
            Key("best", "best so far"),
            Key("average", f"mean of the last {_MOVING_AVERAGE}"),
        ),
    )


def _reward_text(rewards: Sequence[float], stages: Sequence[int]) -> str:
    if not rewards:
        return "No candidate was judged."
    return (
        f"{len(rewards)} candidates in {len(stages)} stage{'s' if len(stages) > 1 else ''}; the reward starts at "
        f"{rewards[0]:.3f} and the best is {max(rewards):.3f}, from candidate {rewards.index(max(rewards)) + 1}."
    )


def _axis_name(cost: _CandidateCost, *, logarithmic: bool) -> str:
    name = (
        COST_NAMES[cost] if UNITS[cost].lower() == COST_NAMES[cost].lower() else f"{COST_NAMES[cost]} ({UNITS[cost]})"
    )
    return f"{name}, log scale" if logarithmic else name


def _lower(cost: Cost) -> str:
    name = COST_NAMES[cost]
    return name if name == "MACs" else name.lower()
