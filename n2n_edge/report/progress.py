"""Charts of how the search went: the reward of each candidate, and how undecided the policy was."""

from collections.abc import Sequence

from n2n_edge.report.chart import Chart, Key, Line, Point, Rule, axis_ticks, whole_ticks, x_range, y_range
from n2n_edge.report.document import CandidateJson
from n2n_edge.report.scale import Scale, fit_scale, without_low_outliers

__all__ = ["entropy_chart", "reward_chart"]

_MOVING_AVERAGE = 10


def reward_chart(rows: Sequence[CandidateJson], texts: Sequence[str]) -> Chart:
    """Return the reward of each candidate in the order evaluated, the best so far, and a moving average per stage."""
    rewards = [row["reward"] for row in rows]
    xs, ys = _numbers(rows), fit_scale(without_low_outliers(rewards), *y_range())
    points, best = [], []
    average: list[list[tuple[float, float]]] = []
    highest: float | None = None
    for place, row in enumerate(rows):
        x = xs.place(place + 1)
        if place == 0 or rows[place - 1]["stage"] != row["stage"]:
            average.append([])
        points.append(Point(x, ys.place(row["reward"]), f"stage{row['stage']}", texts[place]))
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
        x_ticks=whole_ticks(xs),
        y_ticks=axis_ticks(ys),
        points=tuple(points),
        lines=(Line(tuple(best), "best"), *(Line(tuple(places), "average") for places in average)),
        rules=_stage_rules(rows, xs),
        keys=(
            *(Key(f"stage{stage}", f"stage {stage}") for stage in stages),
            Key("best", "best so far"),
            Key("average", f"mean of the last {_MOVING_AVERAGE}"),
        ),
        source="Computed from each candidate's costs and score; below nought where a budget is broken.",
    )


def entropy_chart(rows: Sequence[CandidateJson], texts: Sequence[str]) -> Chart | None:
    """Return how undecided the policy was at each candidate, or None where the run didn't note it."""
    known = [(place, entropy) for place, row in enumerate(rows) if (entropy := row.get("entropy")) is not None]
    if not known:
        return None
    xs, ys = _numbers(rows), fit_scale([0.0, 1.0], *y_range())
    places = {place: (xs.place(place + 1), ys.place(entropy)) for place, entropy in known}
    stages = dict.fromkeys(rows[place]["stage"] for place, _ in known)
    first, last = known[0][1], known[-1][1]
    return Chart(
        name="entropy",
        title="Entropy of the policy",
        description="1: the policy proposes at random; 0: it has settled. "
        f"It was {first:.2f} at candidate {known[0][0] + 1} and {last:.2f} at candidate {known[-1][0] + 1}.",
        x_label="Candidate",
        y_label="Entropy, share of the largest",
        x_ticks=whole_ticks(xs),
        y_ticks=axis_ticks(ys),
        points=tuple(
            Point(*places[place], f"stage{rows[place]['stage']}", f"entropy {entropy:.3f}; {texts[place]}")
            for place, entropy in known
        ),
        lines=tuple(
            Line(tuple(at for place, at in places.items() if rows[place]["stage"] == stage), "entropy")
            for stage in stages
        ),
        rules=_stage_rules(rows, xs),
        keys=tuple(Key(f"stage{stage}", f"stage {stage}") for stage in stages),
        source="Computed from the policy's probabilities when it proposed the candidate.",
    )


def _numbers(rows: Sequence[CandidateJson]) -> Scale:
    return fit_scale([1.0, float(max(len(rows), 2))], *x_range())


def _stage_rules(rows: Sequence[CandidateJson], xs: Scale) -> tuple[Rule, ...]:
    return tuple(
        Rule(f"stage {row['stage']}", "stage", x=xs.place(place + 1))
        for place, row in enumerate(rows)
        if place == 0 or rows[place - 1]["stage"] != row["stage"]
    )


def _reward_text(rewards: Sequence[float], stages: Sequence[int]) -> str:
    if not rewards:
        return "No candidate was judged."
    return (
        f"{len(rewards)} candidates in {len(stages)} stage{'s' if len(stages) > 1 else ''}; the reward starts at "
        f"{rewards[0]:.3f} and the best is {max(rewards):.3f}, from candidate {rewards.index(max(rewards)) + 1}."
    )
