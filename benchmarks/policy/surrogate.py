"""How well the surrogate orders candidates that it hasn't seen, and what it owes to what it expects beforehand.

From the repository's root: ``python -m benchmarks.policy.surrogate RUN [RUN...]`` takes finished runs with policy
``reinforce`` (those of ``benchmarks/peers``, for one). A run's candidates are told one by one, as in its search; after
each, those still to come are predicted. Writes ``surrogate.json`` and ``surrogate.md``.
"""

import argparse
import json
import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

from scipy.stats import kendalltau

import n2n_edge
from benchmarks.precision.joint import Progress
from n2n_edge.measure.bench import WarmWorker
from n2n_edge.metrics.precisions import ShippedPrecision
from n2n_edge.runs.folder import RunFolder
from n2n_edge.runs.prepare import prepare
from n2n_edge.runs.schedule import Schedule
from n2n_edge.runs.unit_order import with_kept_order
from n2n_edge.search import surrogate
from n2n_edge.search.costing import CostMeter
from n2n_edge.search.evaluator import Evaluator, Objective
from n2n_edge.search.precision import CandidatePrecision
from n2n_edge.search.proposers.estimates import Estimator
from n2n_edge.search.store import Journal
from n2n_edge.search.trial import Trial

HERE = Path(__file__).parent
WAYS: Mapping[str, Mapping[str, float]] = {
    "as it is": {},
    "nothing expected": {"_SLOPE": 0.0},
    "nothing expected, any slope": {"_SLOPE": 0.0, "_TREND_VARIANCE": 4.0},
}
LEAST, LEFT = 4, 4
"""Candidates known before the first prediction, and still to come at the last."""


@contextmanager
def settings(values: Mapping[str, float]) -> Iterator[None]:
    """Give the surrogate other settings for a while."""
    before = {name: getattr(surrogate, name) for name in values}
    vars(surrogate).update(values)
    yield
    vars(surrogate).update(before)


def unbuilt(*_: object) -> None:
    """Stand for what evaluates candidates: the journal has them all."""
    raise RuntimeError("the run's journal lacks a part of its profile")


def estimator_of(path: Path, journal: Journal) -> tuple[Evaluator, list[Trial]]:
    """Return what prices a run's candidates, and these in the order in which they were found."""
    run, folder = n2n_edge.Run.open(path), RunFolder(path)
    prepared = prepare(run.settings, (n2n_edge.load_profile(run.settings.devices[0]),), folder, Progress())
    schedule = Schedule.of_journal(journal, run.settings)
    assert schedule is not None
    prepared = with_kept_order(schedule.applied(prepared), journal)
    shipped = cast("ShippedPrecision", run.settings.precision)
    with WarmWorker() as worker:
        meter = CostMeter(
            prepared.teacher, prepared.profile, run.settings.budgets, journal, worker, run.settings.objective,
            accept_expected=run.settings.accept_expected,
            precision=CandidatePrecision(prepared.teacher, shipped, prepared.profile),
        )  # fmt: skip
        objective = Objective.choose(run.settings.objective, meter.of_teacher(timed=False), run.settings.budgets)
        evaluator = Evaluator(prepared.teacher, meter, unbuilt, 1.0, 0.0, 20.0, objective, journal, run.settings.seed)  # type: ignore[arg-type]
    trials = {trial.key: trial for trial in journal.trials() if trial.feasible and trial.score is not None}
    return evaluator, list(trials.values())


def order_of(path: Path) -> dict[str, float]:
    """Return Kendall's tau between predicted and found rewards of candidates still to come, by way: means of a run."""
    taus: dict[str, list[float]] = {way: [] for way in WAYS}
    with Journal.read(RunFolder(path).journal) as journal:
        evaluator, trials = estimator_of(path, journal)
        profile = evaluator.sensitivity(unbuilt, len(trials) + 100, lambda tried: True)  # type: ignore[arg-type]
        rewards = [trial.reward for trial in trials]
        for way, values in WAYS.items():
            with settings(values):
                estimator = Estimator(evaluator, profile)
                for known, trial in enumerate(trials[:-LEFT], start=1):
                    estimator.learn(replace(trial, quality=trial.reward))
                    if known >= LEAST:
                        coming = [estimator._estimate_of(each.architecture) for each in trials[known:]]
                        expected = estimator.surrogate.predict(coming)[0]
                        taus[way].append(float(kendalltau(expected, rewards[known:]).statistic))
    return {way: round(statistics.mean(found), 3) for way, found in taus.items()}


def main() -> None:
    """Replay every run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    given = parser.parse_args()
    rows = {path.name: order_of(path) for path in given.runs}
    rows["mean"] = {way: round(statistics.mean(row[way] for row in rows.values()), 3) for way in WAYS}
    (HERE / "surrogate.json").write_text(json.dumps(rows, indent=1) + "\n")
    lines = [f"| run | {' | '.join(WAYS)} |", "| --- " * (len(WAYS) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(f'{row[way]:.2f}' for way in WAYS)} |" for name, row in rows.items()]
    (HERE / "surrogate.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
