"""The whole search against an accuracy that is made up, so that it costs nothing and its best is known to be hard."""

from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import onnx_ir as ir
import pytest

from n2n_edge._example import teacher_path
from n2n_edge.devices import load_profile
from n2n_edge.distill import Judgement, Kept
from n2n_edge.gate import Budget
from n2n_edge.graph import Teacher, build
from n2n_edge.measure import WarmWorker
from n2n_edge.search import CostMeter, Evaluator, Journal, Objective, SearchPlan, SearchResult, search

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return Teacher.load(teacher_path())


class MadeUp:
    """Judges by the widths of the layers that are left: each has a sensitivity of its own, some none at all."""

    def __init__(self, teacher: Teacher) -> None:
        random = np.random.default_rng(7)
        weights = [
            (name, int(value.shape[0]))  # type: ignore[index, arg-type]
            for name, value in teacher.model.graph.initializers.items()
            if value.shape is not None and len(value.shape) == 4
        ]
        dear = random.dirichlet(np.full(len(weights), 0.4))
        self.layers = {name: (full, 0.8 * float(share)) for (name, full), share in zip(weights, dear, strict=True)}
        self.judged: list[float] = []

    def judge(self, model: ir.Model, kept: Kept | None = None, *, seed: int) -> Judgement:
        lost = 0.0
        for name, (full, dear) in self.layers.items():
            value = model.graph.initializers.get(name)
            ratio = 0.0 if value is None or value.shape is None else int(value.shape[0]) / full  # type: ignore[arg-type]
            lost += dear * (1.0 - ratio) ** 2
        self.judged.append(1.0 - lost)
        return Judgement(1.0 - lost, 5.0 * lost, 0.0, 0.0, model)


Run = Callable[..., tuple[SearchResult, Journal, MadeUp]]


@pytest.fixture
def run(teacher: Teacher, tmp_path: Path) -> Iterator[Run]:
    opened: list[Journal] = []

    def start(policy: str, seed: int = 0, name: str = "", **more: object) -> tuple[SearchResult, Journal, MadeUp]:
        path = tmp_path / f"{policy}-{seed}{name}.sqlite"
        journal = Journal.open(path) if path.exists() else Journal.create(path)
        opened.append(journal)
        judge = MadeUp(teacher)
        budgets = [Budget("params", 0.3 * sum(layer.params for layer in teacher.layers))]
        with WarmWorker() as worker:
            meter = CostMeter(teacher, load_profile("raspberry-pi-4"), budgets, journal, worker)
            base = meter.static(build(teacher, teacher.full))
            objective = Objective.choose(None, base, budgets)
            evaluator = Evaluator(teacher, meter, judge, 1.0, objective, journal, seed)  # type: ignore[arg-type]
            plan = SearchPlan(policy, seed, 12, 16, 2, **more)  # type: ignore[arg-type]
            found = search(evaluator, plan, journal, lambda: judge, lambda: judge)  # type: ignore[arg-type, return-value]
        return found, journal, judge

    yield start
    for journal in opened:
        journal.close()


def best_reward(result: SearchResult) -> float:
    assert result.winner is not None
    return result.winner.reward


def test_practice_beats_sampling_and_the_plain_gradient(run: Run) -> None:
    rewards = {
        policy: [best_reward(run(policy, seed)[0]) for seed in SEEDS] for policy in ("reinforce", "n2n", "random")
    }
    assert median(rewards["reinforce"]) > median(rewards["random"]) + 0.01
    assert median(rewards["reinforce"]) > median(rewards["n2n"]) + 0.01


@pytest.mark.parametrize("policy", ["reinforce", "n2n", "random", "greedy", "evolution"])
def test_every_policy_judges_what_was_asked_and_keeps_the_budget(run: Run, policy: str) -> None:
    result, journal, _ = run(policy)
    assert result.winner is not None
    assert result.winner.feasible
    trained = {row.key for row in journal.candidates() if row.feasible}
    assert len({row.key for row in journal.candidates("removal") if row.feasible}) <= 12
    assert 14 <= len(trained) <= 28


def test_a_search_that_is_repeated_from_its_journal_judges_nothing_again(run: Run) -> None:
    first, journal, judge = run("reinforce", 1)
    judged = len(judge.judged)
    rows = [(row.stage, row.position, row.actions, row.key) for row in journal.candidates()]
    journal.close()
    again, journal, silent = run("reinforce", 1)
    assert judged > 28  # the sensitivity profile, too
    assert not silent.judged
    assert [(row.stage, row.position, row.actions, row.key) for row in journal.candidates()] == rows
    assert best_reward(again) == best_reward(first)


def test_a_policy_goes_on_from_another_run(run: Run) -> None:
    first, _, _ = run("reinforce", 0)
    assert set(first.policy_states) == {"removal", "shrinkage"}
    second, _, _ = run("reinforce", 5, name="-from", policy_states=first.policy_states)
    assert best_reward(second) > 0.9 * best_reward(first)
