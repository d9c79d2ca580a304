"""Merges in a search: offered where they pay, decided with the layers, kept in the journal."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from n2n_edge.devices.registry import load_profile
from n2n_edge.graph.merging import Merge
from n2n_edge.graph.teacher import Teacher, build
from n2n_edge.latency.model import LatencyModel
from n2n_edge.measure.bench import WarmWorker
from n2n_edge.metrics.budget import Budget
from n2n_edge.search.costing import CostMeter
from n2n_edge.search.driver import SearchPlan, search
from n2n_edge.search.evaluator import Evaluator, Objective
from n2n_edge.search.merging import PricedMerge, chosen_merges, offered_merges, priced_merges
from n2n_edge.search.precision import Base
from n2n_edge.search.space import RemovalStage, ShrinkageStage
from n2n_edge.search.store import Journal
from n2n_edge.training.proxy_evaluation import ProxyResult
from tests.strategies import GraphBuilder, Tensor

PI = load_profile("raspberry-pi-4")


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    """Three inverted residuals, the middle of the first far wider than that of the others."""
    s = GraphBuilder(17, np.random.default_rng(0), batch_norm=True, activation="Clip")
    x = s.conv(Tensor("input", 3, (32, 32)), 8)
    for wide in (96, 48, 48):
        y = s.conv(s.conv(x, wide, kernel=1), wide, groups=wide)
        x = s.add(s.conv(y, 8, kernel=1, act=False), x)
    output = s.dense(s.flatten(s.global_pool(x, "GlobalAveragePool")), 4)
    return Teacher(ir.from_proto(s.to_proto(3, 32, output, free_batch=True, batch=1)))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.create(tmp_path / "journal.sqlite") as opened:
        yield opened


def latency_ms(model: ir.Model) -> float:
    return LatencyModel(PI).estimate(model).figure.value


def test_a_merge_is_priced_as_the_network_that_has_it(teacher: Teacher) -> None:
    whole = latency_ms(teacher.model)

    priced = priced_merges(teacher, PI)

    assert len(priced) == 9  # expansion and depthwise, depthwise and projection, and all three, of three blocks
    for one in priced:
        saved = whole - latency_ms(build(teacher, teacher.full.linearise(*one.merge.linear)))
        assert one.saved_ms == pytest.approx(saved, rel=0.02, abs=1e-4)
        assert one.saved == pytest.approx(one.saved_ms / whole, rel=0.02)


def test_offered_are_whole_blocks_and_nothing_that_costs_more(teacher: Teacher) -> None:
    offered = offered_merges(teacher, PI)

    assert [len(one.merge.layers) for one in offered] == [3, 3, 3]
    assert all(one.saved_ms > 0 for one in offered)
    resnet = GraphBuilder(17, np.random.default_rng(0))
    x = resnet.conv(Tensor("input", 3, (32, 32)), 32)
    x = resnet.act(resnet.add(resnet.conv(resnet.conv(x, 32), 32, act=False), x))
    output = resnet.dense(resnet.flatten(resnet.global_pool(x, "GlobalAveragePool")), 4)
    plain = Teacher(ir.from_proto(resnet.to_proto(3, 32, output, free_batch=True, batch=1)))
    assert plain.links
    assert offered_merges(plain, PI) == ()  # a kernel of five by five takes longer than two of three by three


def test_the_disjoint_merges_that_save_most_are_chosen() -> None:
    random = np.random.default_rng(0)
    names = [f"layer{index}" for index in range(7)]
    for _ in range(20):
        runs = [(start, end) for start in range(7) for end in range(start + 2, min(start + 5, 8))]
        priced = [
            PricedMerge(Merge(tuple(names[start:end]), exact_borders=True), float(random.normal()), 0.0)
            for start, end in runs
        ]
        best = 0.0
        for count in range(4):
            for some in combinations(priced, count):
                layers = [layer for one in some for layer in one.merge.layers]
                if len(set(layers)) == len(layers):
                    best = max(best, sum(one.saved_ms for one in some))

        chosen = chosen_merges(priced)

        layers = [layer for one in chosen for layer in one.merge.layers]
        assert len(set(layers)) == len(layers)
        assert sum(one.saved_ms for one in chosen) == pytest.approx(best)


def test_merges_are_steps_of_the_first_stage_that_a_removed_layer_takes_back(teacher: Teacher) -> None:
    offered = offered_merges(teacher, PI)
    stage = RemovalStage(teacher, PI, {}, merges=offered)
    assert stage.problem.steps == len(teacher.layers) + len(offered)

    cuts = stage.cuts(stage.without(stage.merge_steps[:2]))

    assert cuts.removed == frozenset()
    assert cuts.linear == {name for one in offered[:2] for name in one.merge.linear}
    depthwise = next(step for step, layer in enumerate(teacher.layers) if layer.name == offered[0].merge.layers[1])
    both = stage.cuts(stage.without([depthwise, *stage.merge_steps[:2]]))
    assert both.linear == frozenset(offered[1].merge.linear)
    assert stage.cuts(stage.problem.default).linear == frozenset()
    narrower = ShrinkageStage(teacher, PI, {}, cuts.removed, linear=cuts.linear)
    assert len(narrower.groups) == len(ShrinkageStage(teacher, PI, {}, cuts.removed).groups) - 2
    assert narrower.cuts(narrower.problem.default).linear == cuts.linear


def test_predicted_costs_are_those_of_the_merged_network(teacher: Teacher, journal: Journal) -> None:
    with WarmWorker() as worker:
        meter = CostMeter(teacher, PI, [Budget("latency_ms", 1e9)], journal, worker, accept_expected=True, merging=True)
        base = Base(linear=frozenset(meter.merges[0].merge.linear))
        widths = np.array([[group.width for group in teacher.base_graph(*base.depth).groups]], np.int64)
        known = meter.predicted(base, widths)
        built = build(teacher, teacher.full.linearise(*base.linear))

        assert known["latency_ms"][0] == pytest.approx(latency_ms(built), rel=1e-6)
        assert known["macs"][0] == meter.static(built).macs
        assert meter.fitted(base, {}).linear == base.linear


def test_merges_are_offered_where_latency_counts_and_kept_for_a_run_that_goes_on(
    teacher: Teacher, journal: Journal, tmp_path: Path
) -> None:
    latency = [Budget("latency_ms", 1.0)]
    with WarmWorker() as worker:
        offered = CostMeter(teacher, PI, latency, journal, worker, merging=True).merges
        assert len(offered) == 3
        assert CostMeter(teacher, PI, latency, journal, worker, merging=True).merges == offered
        with Journal.create(tmp_path / "other.sqlite") as other:
            assert CostMeter(teacher, PI, [Budget("params", 1e3)], other, worker, merging=True).merges == ()
            assert CostMeter(teacher, PI, latency, other, worker).merges == ()
            assert len(CostMeter(teacher, PI, [], other, worker, "latency_ms", merging=True).merges) == 3


class Judge:
    """Finds that merging costs nothing, and narrowing or removing anything a lot."""

    def __init__(self, teacher: Teacher) -> None:
        self.full = {name: value.shape for name, value in teacher.model.graph.initializers.items()}
        self.reach = self._reach(teacher.model)

    def _reach(self, model: ir.Model) -> int:
        """How far convolutions look in sum: as far when they are merged, not when one is removed."""
        kernels = [node.attributes.get_ints("kernel_shape") for node in model.graph if node.op_type == "Conv"]
        return sum(kernel[0] - 1 for kernel in kernels if kernel)

    def evaluate(self, model: ir.Model, kept: object = None, *, seed: int, shipped: object = None) -> ProxyResult:
        narrower = [
            name
            for name, value in model.graph.initializers.items()
            if name in self.full and value.shape is not None and self.full[name] is not None
            if value.shape and self.full[name] and value.shape[0] != self.full[name][0]  # type: ignore[index]
        ]
        lost = 0.02 * len(narrower) + 0.1 * (self.reach - self._reach(model))
        return ProxyResult(1.0 - min(lost, 1.0), 5.0 * lost, 0.0, 0.0, model)


@pytest.mark.parametrize("policy", ["reinforce", "n2n", "random", "greedy", "evolution"])
def test_a_search_merges_where_that_is_free_and_repeats_it_from_its_journal(
    teacher: Teacher, journal: Journal, tmp_path: Path, policy: str
) -> None:
    limit = 0.55 * latency_ms(teacher.model)
    budgets = [Budget("latency_ms", limit)]

    def found(journal: Journal) -> tuple[object, int]:
        judge = Judge(teacher)
        with WarmWorker() as worker:
            meter = CostMeter(teacher, PI, budgets, journal, worker, accept_expected=True, merging=True)
            objective = Objective.choose(None, meter.of_teacher(timed=False), budgets)
            evaluator = Evaluator(teacher, meter, judge, 1.0, 0.0, 20.0, objective, journal, 0)  # type: ignore[arg-type]
            plan = SearchPlan(policy, 0, 9, 3)
            result = search(evaluator, plan, journal, (), lambda: judge)  # type: ignore[arg-type, return-value]
        return result.winner and result.winner.architecture, len(journal.trials())

    first, trials = found(journal)

    assert first is not None
    if policy == "reinforce":
        assert first.linear  # type: ignore[attr-defined]
        begun = [trial.architecture.linear for trial in journal.trials("removal") if trial.batch == 0]
        assert len({made for made in begun if made}) >= 2  # one merge and two, whatever is promised of them
    kept = {trial.key: trial.architecture for trial in journal.trials()}
    assert any(architecture.linear for architecture in kept.values())
    assert found(journal) == (first, trials)
    again = {trial.key: trial.architecture for trial in journal.trials()}
    assert {key: value.to_json() for key, value in again.items()} == {key: a.to_json() for key, a in kept.items()}


def test_a_run_that_was_begun_before_there_were_merges_goes_on_without(teacher: Teacher, journal: Journal) -> None:
    judge = Judge(teacher)
    budgets = [Budget("latency_ms", 0.7 * latency_ms(teacher.model))]
    with WarmWorker() as worker:
        meter = CostMeter(teacher, PI, budgets, journal, worker, accept_expected=True)
        objective = Objective.choose(None, meter.of_teacher(timed=False), budgets)
        evaluator = Evaluator(teacher, meter, judge, 1.0, 0.0, 20.0, objective, journal, 0)  # type: ignore[arg-type]
        search(evaluator, SearchPlan("random", 0, 2, 2), journal, (), lambda: judge)  # type: ignore[arg-type, return-value]

        assert not any(trial.architecture.linear for trial in journal.trials())
        assert CostMeter(teacher, PI, budgets, journal, worker, merging=True).merges == ()
