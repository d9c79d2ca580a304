"""Whole searches against an accuracy that is made up, so that it costs nothing and its best is known to be hard."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from n2n_edge._example import teacher_path
from n2n_edge.devices.registry import load_profile
from n2n_edge.errors import InputError
from n2n_edge.graph.teacher import Teacher, build
from n2n_edge.measure.bench import WarmWorker
from n2n_edge.metrics.budget import Budget
from n2n_edge.metrics.precisions import ShippedPrecision
from n2n_edge.search.attempts import note_crash
from n2n_edge.search.branches import branch_name, branches_of
from n2n_edge.search.clock import Clock
from n2n_edge.search.costing import CostMeter
from n2n_edge.search.driver import SearchPlan, SearchResult, search
from n2n_edge.search.evaluator import Confidence, Evaluator, Objective
from n2n_edge.search.halving import Rung
from n2n_edge.search.precision import Base, CandidatePrecision
from n2n_edge.search.proposers import base, guided
from n2n_edge.search.proposers.base import Proposer, SearchContext, make_proposer, proposer_names, register_proposer
from n2n_edge.search.proposers.baselines import random_actions
from n2n_edge.search.space import Cuts
from n2n_edge.search.store import Fact, Journal, rung_kind
from n2n_edge.search.trial import Actions, Trial
from n2n_edge.training.proxy_evaluation import ProxyResult
from n2n_edge.training.reconstruct import Kept
from tests.strategies import GraphBuilder, Tensor

REMOVAL, SHRINKAGE = 5, 6


def residual(blocks: int) -> Teacher:
    """Return a network of so many residual blocks."""
    s = GraphBuilder(17, np.random.default_rng(0), batch_norm=True)
    x = s.conv(Tensor("input", 1, (16, 16)), 16)
    for _ in range(blocks):
        x = s.act(s.add(s.conv(s.conv(x, 24), 16, act=False), x))
    output = s.flatten(s.global_pool(s.conv(x, 10, kernel=1, act=False), "GlobalAveragePool"))
    return Teacher(ir.from_proto(s.to_proto(1, 16, output, free_batch=True, batch=1)))


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    """Three residual blocks of four widths."""
    return residual(3)


@pytest.fixture(scope="module")
def example() -> Teacher:
    """A network large enough to make a difference."""
    return Teacher.load(teacher_path())


class MadeUp:
    """Scores by the widths of the layers that are left: each has a sensitivity of its own, some none at all."""

    seconds = 0.0

    def __init__(self, teacher: Teacher) -> None:
        random = np.random.default_rng(7)
        weights = [
            (name, int(value.shape[0]))  # type: ignore[index, arg-type]
            for name, value in teacher.model.graph.initializers.items()
            if value.shape is not None and len(value.shape) == 4
        ]
        dear = random.dirichlet(np.full(len(weights), 0.4))
        self.layers = {name: (full, 0.8 * float(share)) for (name, full), share in zip(weights, dear, strict=True)}
        self.scores: list[float] = []
        self.int8_costs = 0.0

    def evaluate(self, model: ir.Model, kept: Kept | None = None, *, seed: int, shipped: object = None) -> ProxyResult:
        lost = self.int8_costs if shipped is not None else 0.0
        for name, (full, dear) in self.layers.items():
            value = model.graph.initializers.get(name)
            ratio = 0.0 if value is None or value.shape is None else int(value.shape[0]) / full  # type: ignore[arg-type]
            lost += dear * (1.0 - ratio) ** 2
        self.scores.append(1.0 - lost)
        return ProxyResult(1.0 - lost, 5.0 * lost, self.seconds, 0.0, model)


Run = Callable[..., tuple[SearchResult, Journal, MadeUp]]


@pytest.fixture
def probes() -> list[tuple[int, int]]:
    """What the search told of its sensitivity profile."""
    return []


@pytest.fixture
def run(teacher: Teacher, tmp_path: Path, probes: list[tuple[int, int]]) -> Iterator[Run]:
    opened: list[Journal] = []

    def start(
        policy: str,
        seed: int = 0,
        name: str = "",
        rungs: Sequence[Rung] = (),
        removal: int = REMOVAL,
        shrinkage: int = SHRINKAGE,
        teacher: Teacher = teacher,
        budgets: Sequence[Budget] = (),
        precision: ShippedPrecision = "fp32",
        int8_costs: float = 0.0,
        **more: object,
    ) -> tuple[SearchResult, Journal, MadeUp]:
        path = tmp_path / f"{policy}-{seed}{name}.sqlite"
        journal = Journal.open(path) if path.exists() else Journal.create(path)
        opened.append(journal)
        judge = MadeUp(teacher)
        judge.int8_costs = int8_costs
        budgets = budgets or [Budget("params", 0.3 * sum(layer.params for layer in teacher.layers))]
        with WarmWorker() as worker:
            meter = CostMeter(
                teacher, load_profile("raspberry-pi-4"), budgets, journal, worker,
                precision=CandidatePrecision(teacher, precision),
            )  # fmt: skip
            base = meter.static(build(teacher, teacher.full))
            objective = Objective.choose(None, base, budgets)
            evaluator = Evaluator(teacher, meter, judge, 1.0, 0.0, 20.0, objective, journal, seed)  # type: ignore[arg-type]
            plan = SearchPlan(policy, seed, removal, shrinkage, **more)  # type: ignore[arg-type]
            steps = rungs or [Rung(2, 4, lambda: judge)]  # type: ignore[arg-type, return-value]
            found = search(
                evaluator, plan, journal, steps, lambda: judge,  # type: ignore[arg-type, return-value]
                on_probe=lambda done, total: probes.append((done, total)),
            )  # fmt: skip
        return found, journal, judge

    yield start
    for journal in opened:
        journal.close()


def best_reward(result: SearchResult) -> float:
    assert result.winner is not None
    return result.winner.reward


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_predicted_rewards_beat_sampling_and_the_plain_gradient(run: Run, example: Teacher, seed: int) -> None:
    rewards = {policy: best_reward(run(policy, seed, teacher=example)[0]) for policy in ("reinforce", "n2n", "random")}
    assert rewards["reinforce"] > rewards["random"] + 0.03
    assert rewards["reinforce"] > rewards["n2n"] + 0.03


@pytest.mark.parametrize("policy", ["reinforce", "n2n", "random", "greedy", "evolution"])
def test_every_policy_evaluates_what_was_asked_and_keeps_the_budget(run: Run, policy: str) -> None:
    result, journal, _ = run(policy)
    assert result.winner is not None
    assert result.winner.feasible
    trained = {row.key for row in journal.trials() if row.feasible}
    assert len({row.key for row in journal.trials("removal") if row.feasible}) <= REMOVAL
    assert SHRINKAGE <= len(trained) <= REMOVAL + SHRINKAGE


SMALL_FILE = {"budgets": [Budget("size_mb", 0.1)], "precision": "auto"}


@pytest.mark.slow
@pytest.mark.parametrize(("int8_costs", "pays"), [(0.0, True), (0.1, None), (0.5, False)])
def test_regions_are_in_int8_where_that_pays(run: Run, example: Teacher, int8_costs: float, pays: bool | None) -> None:
    result, journal, _ = run(
        "reinforce", teacher=example, int8_costs=int8_costs, removal=12, shrinkage=16, **SMALL_FILE
    )
    assert result.winner is not None
    assert pays in (None, bool(result.winner.architecture.int8))
    tried = {trial.architecture.int8 for trial in journal.trials()}
    assert {frozenset(), max(tried, key=len)} < tried or pays is False  # some regions alone, where that is a question
    assert {0, len(example.regions)} <= {len(regions) for regions in tried}


def test_a_journal_knows_candidates_by_architecture_and_precision(run: Run, example: Teacher) -> None:
    result, journal, _ = run("random", teacher=example, **SMALL_FILE)
    assert result.winner is not None
    assert result.winner.costs.size_mb <= 0.1
    assert len({trial.architecture.int8 for trial in journal.trials()}) > 2
    journal.close()
    again, _, silent = run("random", teacher=example, **SMALL_FILE)
    assert not silent.scores
    assert again.winner is not None
    assert again.winner.key == result.winner.key


def test_a_search_that_is_repeated_from_its_journal_evaluates_nothing_again(run: Run) -> None:
    first, journal, judge = run("reinforce", 1)
    judged = len(judge.scores)
    rows = [(row.stage, row.number, row.actions, row.key) for row in journal.trials()]
    journal.close()
    again, journal, silent = run("reinforce", 1)
    assert judged > REMOVAL + SHRINKAGE  # the sensitivity profile, too
    assert not silent.scores
    assert [(row.stage, row.number, row.actions, row.key) for row in journal.trials()] == rows
    assert best_reward(again) == best_reward(first)


def test_how_undecided_the_policy_was_is_kept_for_every_batch(run: Run) -> None:
    def entropies(journal: Journal) -> list[float | None]:
        batches = dict.fromkeys((row.stage, row.batch) for row in journal.trials())
        known = [journal.cached("entropy", f"{stage}/{batch}") for stage, batch in batches]
        return [None if one is None else one["entropy"] for one in known]

    _, journal, _ = run("reinforce", 1, removal=3, shrinkage=3)
    first = entropies(journal)
    assert len(first) > 2
    assert all(one is not None and 0 <= one <= 1 for one in first)
    assert len(set(first)) > 1
    journal.close()
    _, journal, _ = run("reinforce", 1, removal=3, shrinkage=3)
    assert entropies(journal) == first
    assert set(entropies(run("random", 1, removal=2, shrinkage=2)[1])) == {None}


def test_the_profile_shapes_the_widths_of_every_choice_of_layers(run: Run, teacher: Teacher) -> None:
    _, journal, _ = run("reinforce", 2)
    full = {group.name: group.width for group in teacher.groups}
    trained = [dict(row.architecture.widths) for row in journal.trials("removal") if row.feasible]
    shares = [{round(width / full[group], 1) for group, width in widths.items()} for widths in trained]
    assert any(len(one) > 2 for one in shares)  # not all alike: what suffers little gets narrower


def test_stage_1_tries_whole_branches_alone_and_begins_without_those_that_matter_least(run: Run) -> None:
    teacher = residual(6)
    _, journal, judge = run("reinforce", teacher=teacher, removal=6, shrinkage=1)
    branches = [branch for branch in branches_of(teacher) if len(branch) > 1]
    assert len(branches) == 6
    assert all(journal.cached(Fact.SENSITIVITY, branch_name(branch)) for branch in branches)
    lost = {b: 1.0 - judge.evaluate(build(teacher, teacher.full.remove(*b)), seed=0).accuracy for b in branches}
    starts = [trial.architecture.removed for trial in journal.trials("removal") if trial.batch == 0]
    cuts = [{branch for branch in branches if gone.issuperset(branch)} for gone in starts]
    assert len({len(cut) for cut in cuts}) > 2
    for cut in cuts:  # the branches are alike but for what they lose
        assert max((lost[branch] for branch in cut), default=0) <= min(lost[branch] for branch in {*branches} - cut)


def test_of_candidates_with_equal_hits_the_lower_loss_earns_more_where_there_are_budgets(
    teacher: Teacher, tmp_path: Path
) -> None:
    class Says:
        def __init__(self, loss: float) -> None:
            self.loss = loss

        def evaluate(self, model: ir.Model, kept: Kept | None = None, *, seed: int) -> ProxyResult:
            return ProxyResult(0.8, self.loss, 0.0, 0.0, model)

    losses = (1.0, 4.0, float("nan"))

    def rewards(unit: float, constant: float, *, bound: bool = True) -> list[float]:
        found = []
        for loss in losses:
            budgets = [Budget("params", 0.5 * sum(layer.params for layer in teacher.layers))] if bound else []
            path = tmp_path / f"{bound}{loss}{unit}{constant}.sqlite"
            with WarmWorker() as worker, Journal.create(path) as journal:
                meter = CostMeter(teacher, load_profile("raspberry-pi-4"), budgets, journal, worker)
                objective = Objective.choose("params", meter.static(build(teacher, teacher.full)), budgets)
                evaluator = Evaluator(
                    teacher, meter, Says(loss * unit), 1.0, 0.5 * unit, constant * unit, objective, journal, 0  # type: ignore[arg-type]
                )  # fmt: skip
                judged = evaluator.evaluate(meter.fitted(Base(), {}), 0.0)
                assert judged.score == 0.8
                found.append(judged.reward)
        return found

    bound = rewards(1.0, 20.0)
    assert bound[0] > bound[1] > bound[2] > 0
    assert rewards(0.01, 20.0) == pytest.approx(bound)  # losses of another unit, such as that of smaller logits
    first, second, _ = rewards(1.0, 0.5)  # the teacher itself answers the same to every image
    assert first == second
    assert len(set(rewards(1.0, 20.0, bound=False))) == 1


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Choices of layers that stage 1, which begins with the default alone, looks at: counted in the last item."""
    counts: list[int] = []
    cuts = guided.GuidedProposer.cuts

    def counted(proposer: guided.GuidedProposer, actions: Actions) -> Cuts:
        counts[-1] += proposer.stage.name == "removal"
        return cuts(proposer, actions)

    monkeypatch.setattr(guided.GuidedProposer, "cuts", counted)
    monkeypatch.setattr(guided.GuidedProposer, "starts", lambda proposer: [proposer.stage.problem.default])
    return counts


@pytest.mark.slow
def test_of_a_large_network_fewer_choices_of_layers_are_analysed(
    run: Run, monkeypatch: pytest.MonkeyPatch, looked_at: list[int]
) -> None:
    for name, nodes in (("whole", 150), ("few", 15)):
        monkeypatch.setattr(guided, "_WHOLE_NODES", nodes)
        looked_at.append(0)
        assert run("reinforce", name=name, removal=2, shrinkage=1, teacher=residual(12))[0].winner is not None
    whole, few = looked_at
    assert few < whole / 2


def test_for_less_than_a_batch_fewer_choices_of_layers_are_analysed(run: Run, looked_at: list[int]) -> None:
    for removal in (2, 1 + guided.GuidedProposer.batch):  # one of them is what stage 1 starts with
        looked_at.append(0)
        run("reinforce", name=str(removal), removal=removal, shrinkage=1)
    one, batch = looked_at
    assert one < batch / 2


def test_the_time_of_a_search_counts_its_finalists(run: Run, teacher: Teacher, tmp_path: Path) -> None:
    before: list[float] = []

    class Longer(MadeUp):
        def evaluate(self, model: ir.Model, kept: Kept | None = None, *, seed: int) -> ProxyResult:
            with Journal.read(opened) as journal:
                before.append(float(journal.meta()["search_seconds"]))
            return super().evaluate(model, kept, seed=seed)

    def finals() -> Longer:
        return Longer(teacher)

    opened = tmp_path / "random-3.sqlite"
    _, journal, _ = run("random", 3, rungs=[Rung(2, 2, finals)])  # type: ignore[arg-type]
    assert len(before) == 2
    assert float(journal.meta()["search_seconds"]) > before[-1]


def test_what_a_profile_took_is_told(run: Run) -> None:
    found, journal, _ = run("reinforce", 3)
    assert found.spent.profile is not None
    assert 0 < found.spent.profile < found.spent.total == float(journal.meta()["search_seconds"])
    assert run("random", 3, name="random")[0].spent.profile is None


def test_finalists_are_halved_on_more_and_more_images(run: Run, teacher: Teacher) -> None:
    judged: list[tuple[int, int]] = []

    class Longer(MadeUp):
        def __init__(self, rung: int) -> None:
            super().__init__(teacher)
            self.rung = rung

        def evaluate(self, model: ir.Model, kept: Kept | None = None, *, seed: int) -> ProxyResult:
            found = super().evaluate(model, kept, seed=seed)
            judged.append((self.rung, len(judged)))
            return found

    rungs = [Rung(5, 2, lambda: Longer(0)), Rung(2, 8, lambda: Longer(1))]  # type: ignore[arg-type, return-value]
    result, _, _ = run("random", 3, rungs=rungs)
    assert [rung for rung, _ in judged] == [0] * 5 + [1] * 2
    assert result.winner is not None


@pytest.mark.parametrize("seed", range(3))
def test_finalists_are_of_several_choices_of_layers(run: Run, teacher: Teacher, seed: int) -> None:
    def depth(trial: Trial) -> object:
        return trial.architecture.removed, trial.architecture.linear

    most = 4
    rung = Rung(most, 2, lambda: MadeUp(teacher))  # type: ignore[arg-type, return-value]
    _, journal, _ = run("random", seed, rungs=[rung], removal=6, shrinkage=8)
    ranked = {trial.key: trial for trial in sorted(journal.trials(), key=lambda trial: trial.reward) if trial.feasible}
    trials = list(reversed(ranked.values()))
    chosen = [trial for trial in trials if journal.cached(rung_kind(0), trial.key) is not None]
    assert len(chosen) == most
    half = most // 2
    assert [trial.key for trial in chosen[:half]] == [trial.key for trial in trials[:half]]
    best = {depth(trial) for trial in trials[:half]}
    others = {depth(trial) for trial in trials} - best
    assert others
    assert len({depth(trial) for trial in chosen[half:]} - best) == min(half, len(others))


@pytest.mark.parametrize("rank", range(3))
def test_the_choice_of_layers_that_is_best_on_more_images_leads_stage_2(run: Run, example: Teacher, rank: int) -> None:
    judged: list[int] = []

    class Longer(MadeUp):
        def evaluate(self, model: ir.Model, kept: Kept | None = None, *, seed: int) -> ProxyResult:
            judged.append(len(judged))
            score = 0.9 if judged[-1] == rank else 0.5
            return ProxyResult(score, 1.0 - score, 0.0, 0.0, model)

    rung = Rung(4, 2, lambda: Longer(example))  # type: ignore[arg-type, return-value]
    _, journal, _ = run("reinforce", rungs=[rung], removal=6, shrinkage=6, teacher=example)
    compared = [trial for trial in journal.trials("removal") if journal.cached(rung_kind(0), trial.key) is not None]
    rewards = {trial.key: journal.cached(rung_kind(0), trial.key) for trial in compared}
    leader = next(trial for trial in compared if (rewards[trial.key] or {})["accuracy"] == 0.9)
    first = journal.trials("shrinkage")[0]
    near = leader.architecture.removed ^ first.architecture.removed
    branches = [frozenset(branch) for branch in branches_of(example)]
    assert len({Base.of(trial.architecture).depth for trial in compared}) >= 3
    assert not near or any(near <= example.repaired(branch) for branch in branches)
    assert len(judged) <= 3 + 4  # who was compared isn't judged again as a finalist


@pytest.mark.parametrize(("seconds", "compared"), [(100.0, 0), (70.0, 2), (10.0, 3)])
def test_choices_of_layers_are_compared_as_far_as_the_time_goes(
    run: Run, example: Teacher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seconds: float, compared: int
) -> None:
    monkeypatch.setattr(MadeUp, "seconds", seconds)
    shrunk: list[int] = []

    class Longer(MadeUp):
        def evaluate(self, model: ir.Model, kept: Kept | None = None, *, seed: int) -> ProxyResult:
            with Journal.read(tmp_path / "reinforce-0.sqlite") as journal:
                shrunk.append(len(journal.trials("shrinkage")))
            return super().evaluate(model, kept, seed=seed)

    rungs = [Rung(4, 2, lambda: Longer(example))]  # type: ignore[arg-type, return-value]
    run("reinforce", rungs=rungs, removal=6, shrinkage=6, teacher=example, deadline_s=3600.0)
    assert shrunk.count(0) == compared


def test_the_winner_is_told_to_be_as_sure_as_samples_of_the_images_make_it(run: Run, teacher: Teacher) -> None:
    class Sampled(MadeUp):
        def __init__(self, *lead: float | None) -> None:
            super().__init__(teacher)
            self.lead, self.count = lead, 0

        def evaluate(self, model: ir.Model, kept: Kept | None = None, *, seed: int) -> ProxyResult:
            self.count += 1  # the first is the better one, by so much in each sample
            resampled = tuple(lead if lead is None else 0.5 + lead * (self.count == 1) for lead in self.lead)
            return ProxyResult(0.9 - 0.1 * self.count, 0.0, 0.0, 0.0, model, resampled)

    def found(name: str, *rungs: Rung) -> Confidence | None:
        return run("random", 3, name=name, rungs=rungs)[0].confidence

    def rung(finalists: int, *lead: float | None) -> Rung:
        return Rung(finalists, 2, lambda: Sampled(*lead))  # type: ignore[arg-type, return-value]

    sure = found("sure", rung(3), rung(2, 0.1, 0.1, 0.1, 0.1))
    assert sure == Confidence(1.0, 2)
    ties_and_losses = found("unsure", rung(2, 0.1, 0.0, -0.1, 0.1, None))
    assert ties_and_losses == Confidence((1 + 0.5 + 0 + 1) / 4, 2)
    assert found("untold", rung(2)) is None
    assert found("alone", rung(1, 0.1)) is None


def test_a_search_with_a_time_limit_is_repeated_as_it_was(run: Run) -> None:
    first, journal, _ = run("reinforce", 4, deadline_s=3600.0, removal=3, shrinkage=2)
    rows = [(row.stage, row.number, row.actions, row.key) for row in journal.trials()]
    journal.set_meta("search_seconds", 3600.0)  # it took all of its time, and was killed just before it was done
    journal.close()
    again, journal, silent = run("reinforce", 4, deadline_s=3600.0, removal=3, shrinkage=2)
    assert not silent.scores
    assert [(row.stage, row.number, row.actions, row.key) for row in journal.trials()] == rows
    assert best_reward(again) == best_reward(first)


@pytest.mark.parametrize("policy", ["reinforce", "random", "n2n"])
def test_a_search_without_time_evaluates_one_candidate_and_is_repeated_as_it_was(run: Run, policy: str) -> None:
    first, journal, judge = run(policy, 4, deadline_s=1e-9)
    rows = [(row.stage, row.number, row.key) for row in journal.trials()]
    assert [row[:2] for row in rows] == [("removal", 0)]  # not a whole batch, and no second stage
    assert len(judge.scores) == (2 if policy == "reinforce" else 1)  # with one part of the profile
    assert first.winner is not None
    journal.close()
    again, journal, silent = run(policy, 4, deadline_s=1e-9)
    assert not silent.scores
    assert [(row.stage, row.number, row.key) for row in journal.trials()] == rows
    assert again.winner is not None
    assert again.winner.architecture == first.winner.architecture


def test_the_profile_tells_of_its_progress_before_its_first_part_and_after_every_one(
    run: Run, probes: list[tuple[int, int]]
) -> None:
    run("reinforce", 4, removal=2, shrinkage=2)
    total = probes[0][1]
    assert total > 1
    assert probes == [(done, total) for done in range(total + 1)]


def test_an_evaluation_that_ended_the_process_is_left_out(run: Run) -> None:
    _, journal, _ = run("random", 5, removal=2, shrinkage=1)
    first = journal.trials("removal")[0]
    journal.close()
    # as it would stand there after a crash: begun, and never ended
    journal = Journal.create(journal.path.with_name("random-5-crashed.sqlite"))
    journal.store("evaluation", "begun", {"kind": "accuracy", "key": first.key, "times": 1})
    assert note_crash(journal)
    journal.close()
    result, journal, _ = run("random", 5, "-crashed", removal=2, shrinkage=1)
    failed = journal.trials("removal")[0]
    assert (failed.key, failed.feasible, failed.score) == (first.key, False, None)
    assert failed.reward < 0
    assert result.winner is not None
    assert result.winner.architecture.key != first.key


def test_no_more_is_trained_than_was_asked_for(run: Run) -> None:
    _, journal, _ = run("reinforce", 6, removal=1, shrinkage=1)
    for stage in ("removal", "shrinkage"):
        assert len({row.key for row in journal.trials(stage) if row.feasible}) == 1


def test_without_finalists_the_best_candidate_wins(run: Run, teacher: Teacher) -> None:
    result, journal, _ = run("random", 7, rungs=[Rung(0, 4, lambda: MadeUp(teacher))], removal=2, shrinkage=2)  # type: ignore[arg-type, return-value]
    assert result.winner is not None
    assert result.winner.reward == max(row.reward for row in journal.trials())


class Alternating(Proposer):
    """A proposer from outside the package: random candidates, half of them near the best so far."""

    def __init__(self, context: SearchContext) -> None:
        super().__init__(context)
        self.told: list[Trial] = []

    def ask(self, count: int) -> list[Actions]:
        generator = np.random.default_rng([self.seed, len(self.told)])
        mine = [trial for trial in self.told if trial.stage == self.stage.name]
        best = max(mine, key=self.reward)
        near = base.varied(self.problem, best.actions, generator)
        return [near, *random_actions(self.problem, count, generator)][:count]

    def tell(self, trial: Trial) -> None:
        self.told.append(trial)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_registered", {})


@pytest.mark.usefixtures("registered")
def test_a_registered_proposer_runs_a_search_and_is_replayed(run: Run) -> None:
    made: list[Alternating] = []

    def factory(context: SearchContext) -> Alternating:
        made.append(Alternating(context))
        return made[-1]

    register_proposer("alternating", factory)
    with pytest.raises(ValueError, match="'alternating' already"):
        register_proposer("alternating", factory)
    result, journal, proxy = run("alternating", removal=3, shrinkage=3)
    rows = journal.trials()
    assert result.winner is not None
    assert [trial.actions for trial in made[0].told] == [row.actions for row in rows]
    assert {row.stage for row in rows} == {"removal", "shrinkage"}
    assert len(proxy.scores) >= 4
    journal.close()
    again, journal, silent = run("alternating", removal=3, shrinkage=3)
    assert not silent.scores
    assert journal.trials() == rows
    assert best_reward(again) == best_reward(result)


class Entry:
    """An entry point of an installed package."""

    name = "offered"

    def __init__(self, load: Callable[[], object]) -> None:
        self.load = load


@pytest.mark.usefixtures("registered")
def test_a_proposer_of_an_installed_package_runs_a_search(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def entry_points(*, group: str, name: str = "offered") -> list[Entry]:
        assert group == "n2n_edge.proposers"
        return [Entry(lambda: loaded.append(name) or Alternating)] if name == "offered" else []

    monkeypatch.setattr(base, "entry_points", entry_points)
    assert proposer_names()[-1] == "offered"
    assert not loaded  # only when it is used
    assert run("offered", removal=2, shrinkage=1)[0].winner is not None
    assert loaded == ["offered"]


def broken_load() -> object:
    raise ImportError("no module named\n'gone'")


class Wrong(Alternating):
    def ask(self, count: int) -> list[Actions]:
        return [(7,)]


class Fails(Alternating):
    def tell(self, trial: Trial) -> None:
        raise KeyError("told")


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("load", "text"),
    [(broken_load, "gone"), (lambda: Wrong, "1 actions were given"), (lambda: Fails, "told"), (lambda: None, "None")],
)
def test_what_a_foreign_proposer_does_wrong_is_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, load: Callable[[], object], text: str
) -> None:
    monkeypatch.setattr(base, "entry_points", lambda **_: [Entry(load)])
    with pytest.raises(InputError, match="policy offered") as caught:
        run("offered", removal=2, shrinkage=1)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_policy_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="no such policy; give one of reinforce, n2n, random, greedy, evolution"):
        make_proposer("ppo", SearchContext(0))


def test_a_search_without_a_limit_bounds_its_profile(tmp_path: Path) -> None:
    with Journal.create(tmp_path / "journal.sqlite", {}) as journal:
        assert not Clock(journal, None).stage_is_over("profile", 5, 0.15, 1)
        assert not Clock(journal, None).stage_is_over("profile", 0, 0.15, 1, 0.0)  # one part in any case
        assert not Clock(journal, None).stage_is_over("profile", 1, 0.15, 1, 1000.0)
        assert Clock(journal, None).stage_is_over("profile", 2, 0.15, 1, 0.0)
        # resumed with time to spare it ends where it ended
        assert not Clock(journal, None).stage_is_over("profile", 1, 0.15, 1, 1000.0)
        assert Clock(journal, None).stage_is_over("profile", 2, 0.15, 1, 1000.0)
