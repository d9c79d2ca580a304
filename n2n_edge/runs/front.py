"""Trials of a run as its journal tells them: figures, the Pareto front, and those that have been shipped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from n2n_edge.devices.profile import Profile
from n2n_edge.errors import InputError
from n2n_edge.metrics.budget import Budget
from n2n_edge.metrics.costs import COSTS, STATIC_COSTS
from n2n_edge.metrics.figures import SCHEMA_VERSION, Figure
from n2n_edge.report.candidates import find_winner
from n2n_edge.report.document import RunReport
from n2n_edge.report.front import pareto_front
from n2n_edge.report.score import metric_of
from n2n_edge.runs.candidates import STAGES, entropy_of, latencies_of, listed_candidates
from n2n_edge.runs.devices import profiles_of_run
from n2n_edge.runs.document import read_report
from n2n_edge.runs.folder import RunFolder
from n2n_edge.runs.settings import CompressSettings
from n2n_edge.search.store import Journal
from n2n_edge.search.trial import Trial

__all__ = ["Axis", "RunTrial", "RunTrials", "read_trials"]

_COSTS = tuple(row.key for row in COSTS.values() if not row.quality)


@dataclass(frozen=True)
class Axis:
    """The cost that a front is drawn against; `device` is whose latency, None for other costs."""

    cost: str
    device: str | None


@dataclass(frozen=True)
class RunTrial:
    """A trial as a run shows it: in figures, with its `number` from one in the order evaluated, as reports count.

    `trial` is the record that the search keeps; `latencies` are by device, `shipped` is the student that was made of
    it.

    >>> trial = n2n_edge.Run.open(example_run).trials[0]
    >>> trial.costs["params"].unit, trial.meets_budgets
    ('params', True)
    """

    number: int
    trial: Trial
    latencies: Mapping[str, Figure]
    entropy: float | None
    shipped: Path | None

    @property
    def stage(self) -> int:
        """1 (removal) or 2 (shrinkage)."""
        return STAGES[self.trial.stage]

    @property
    def metric(self) -> Figure | None:
        """The score in the run's metric after the short distillation; None where it was never trained."""
        return None if self.trial.score is None else Figure(self.trial.score, "fraction", "measured")

    @property
    def costs(self) -> Mapping[str, Figure]:
        """What follows from the graph: params, size_mb, macs, memory_bound_mb."""
        costs = self.trial.costs.as_mapping()
        return {row.key: Figure(costs[row.key], row.unit, "computed") for row in STATIC_COSTS}

    @property
    def reward(self) -> float:
        """What the search sought to raise."""
        return self.trial.reward

    @property
    def meets_budgets(self) -> bool:
        """Whether it met every budget on its costs."""
        return self.trial.feasible

    def on(self, axis: Axis) -> Figure | None:
        """Return the cost that `axis` asks for; None where it isn't known."""
        return self.costs.get(axis.cost) if axis.device is None else self.latencies.get(axis.device)


@dataclass(frozen=True)
class RunTrials:
    """All trials of one run, finished or not.

    `metric` is the name of what they were evaluated by, that of the task or fidelity; the first of `devices` is the
    primary one.
    """

    run: Path
    metric: str
    objective: str
    devices: tuple[Profile, ...]
    budgets: tuple[Budget, ...]
    trials: tuple[RunTrial, ...]

    @property
    def trained(self) -> tuple[RunTrial, ...]:
        """Those that were trained for a short while; only these can be shipped."""
        return tuple(candidate for candidate in self.trials if candidate.metric is not None)

    def axis(self, cost: str | None, device: str | None) -> Axis:
        """Return what to draw the front against: by default the run's objective, and of latencies the first device's.

        Raises:
            InputError: no such cost, a device that the run wasn't for, or one named for a cost that has none.
        """
        wanted = cost or ("latency_ms" if device is not None else self.objective)
        if wanted not in _COSTS:
            raise InputError(f"‹cost› {wanted}: no such cost; give one of {', '.join(_COSTS)}")
        if wanted != "latency_ms":
            if device is not None:
                raise InputError(f"‹device› {device}: {wanted} is the same on every device; leave one of them out")
            return Axis(wanted, None)
        names = ", ".join(profile.name for profile in self.devices)
        profile = self.devices[0] if device is None else self._device(device)
        if profile is None:
            raise InputError(f"‹device› {device}: this run was for {names}; give one of these")
        if self.trained and not any(profile.name in candidate.latencies for candidate in self.trials):
            raise InputError(
                f"‹cost› latency_ms: this run didn't find out its candidates' latency on {profile.name}, since no "
                "budget or objective asked for it; give another cost"
            )
        return Axis(wanted, profile.name)

    def front(self, axis: Axis) -> tuple[RunTrial, ...]:
        """Return the candidates that no other beats, from the cheapest to the dearest."""
        costs = [candidate.on(axis) for candidate in self.trials]
        points = [
            (None if cost is None else cost.value, None if candidate.metric is None else candidate.metric.value)
            for cost, candidate in zip(costs, self.trials, strict=True)
        ]
        return tuple(self.trials[place] for place in pareto_front(points))

    def to_json(self, axis: Axis) -> dict[str, object]:
        """Return the document that `pareto --json` prints: every trained candidate, and the front by their numbers."""
        front = [candidate.number for candidate in self.front(axis)]
        timed = [profile.name for profile in self.devices]
        return {
            "schema_version": SCHEMA_VERSION,
            "run": str(self.run),
            "metric": self.metric,
            "objective": self.objective,
            "cost": axis.cost,
            "device": axis.device,
            "devices": timed,
            "budgets": [
                {"cost": budget.cost, "option": budget.option, "limit": budget.limit} for budget in self.budgets
            ],
            "front": front,
            "latency_fronts": {
                name: [candidate.number for candidate in self.front(Axis("latency_ms", name))] for name in timed
            },
            "candidates": [self._candidate_json(candidate, candidate.number in front) for candidate in self.trained],
        }

    def _candidate_json(self, candidate: RunTrial, on_front: bool) -> dict[str, object]:
        assert candidate.metric is not None
        return {
            "candidate": candidate.number,
            "stage": candidate.stage,
            self.metric: candidate.metric.to_json(),
            **{cost: figure.to_json() for cost, figure in candidate.costs.items()},
            "latency_ms": {name: figure.to_json() for name, figure in candidate.latencies.items()},
            "reward": candidate.reward,
            "entropy": candidate.entropy,
            "meets_budgets": candidate.meets_budgets,
            "on_front": on_front,
            "shipped": None if candidate.shipped is None else str(candidate.shipped),
        }

    def _device(self, name: str) -> Profile | None:
        wanted = name.strip().lower()
        return next((each for each in self.devices if wanted in (each.name, *each.aliases)), None)


def read_trials(run: Path) -> RunTrials:
    """Return the candidates of the run in folder `run`, even while it goes on.

    Raises:
        InputError: there is no run, or it has evaluated no candidate yet.
    """
    folder, settings = RunFolder.existing(run)
    with Journal.read(folder.journal) as journal:
        meta, listed = journal.meta(), listed_candidates(journal)
        entropies = [entropy_of(journal, candidate) for candidate in listed]
    if not listed:
        raise InputError(f"{run} has judged no candidate yet; go on with `n2n-edge compress --resume --out {run}`")
    report = _report_of(folder)
    winner = None if report is None else find_winner(report, report["search"]["candidates"])
    evaluated_by = "accuracy" if report is None else metric_of(report)
    devices = profiles_of_run(meta, run, settings.devices, settings.measured or (), settings.runtime)
    return RunTrials(
        run=run,
        metric=str(meta.get("metric", evaluated_by)),
        objective=objective_of(meta, folder, settings),
        devices=devices,
        budgets=settings.budgets,
        trials=tuple(
            _candidate(
                place + 1,
                candidate,
                entropy,
                devices,
                folder.student if place == winner else _shipped(folder, place + 1),
            )
            for place, (candidate, entropy) in enumerate(zip(listed, entropies, strict=True))
        ),
    )


def objective_of(meta: Mapping[str, object], folder: RunFolder, settings: CompressSettings) -> str:
    """Return the cost that a run's search counted; of an older run that wasn't finished, what is likeliest."""
    if "objective" in meta:
        return str(meta["objective"])
    report = _report_of(folder)
    if report is not None:
        return str(report["search"].get("objective", "params"))
    return settings.objective or "params"


def _report_of(folder: RunFolder) -> RunReport | None:
    """Return a run's report; None where there is none, or it is damaged: the journal tells all but the winner."""
    try:
        return read_report(folder.report_json)
    except InputError:
        return None


def _shipped(folder: RunFolder, number: int) -> Path | None:
    shipped = RunFolder(folder.of_candidate(number))
    return shipped.student if shipped.report_json.exists() else None


def _candidate(
    number: int, trial: Trial, entropy: float | None, devices: Sequence[Profile], shipped: Path | None
) -> RunTrial:
    latencies = latencies_of(trial, devices[0].name)
    asked = {each.name: latencies[each.name] for each in devices if each.name in latencies}
    return RunTrial(number, trial, asked, entropy, shipped)
