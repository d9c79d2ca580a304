"""Search space: the state of each step, and what actions mean."""

import numpy as np
import pytest

from n2n_edge._example import teacher_path
from n2n_edge.devices.registry import load_profile
from n2n_edge.graph.teacher import Teacher
from n2n_edge.search.precision import CandidatePrecision
from n2n_edge.search.space import FEATURES, WIDTH_RATIOS, Cuts, RemovalStage, ShrinkageStage
from tests.graph.test_branches import inverted_residuals


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return Teacher.load(teacher_path())


def test_states_are_normalised_and_of_one_length(teacher: Teacher) -> None:
    profile = load_profile("jetson")
    for problem in (
        RemovalStage(teacher, profile, {}).problem,
        ShrinkageStage(teacher, profile, {}, frozenset()).problem,
    ):
        assert problem.features.shape == (problem.steps, FEATURES)
        assert np.abs(problem.features).max() <= 2
        assert len(np.unique(problem.features, axis=0)) > problem.steps // 2  # steps can be told apart


def test_the_same_layer_weighs_differently_on_different_devices(teacher: Teacher) -> None:
    pi, jetson = (RemovalStage(teacher, load_profile(name), {}).problem for name in ("raspberry-pi-4", "jetson"))
    assert not np.allclose(pi.features, jetson.features)


def test_only_removable_layers_can_go(teacher: Teacher) -> None:
    stage = RemovalStage(teacher, load_profile("cpu"), {})
    removable = [layer.removable for layer in teacher.layers]
    assert [bool(row[0]) for row in stage.problem.mask] == removable
    assert stage.cuts(stage.problem.default) == Cuts(frozenset(), {})
    everything = tuple(0 if possible else 1 for possible in removable)
    assert stage.cuts(everything)[0] <= {layer.name for layer in teacher.layers if layer.removable}


def test_full_width_is_the_default_of_stage_two(teacher: Teacher) -> None:
    stage = ShrinkageStage(teacher, load_profile("cpu"), {}, frozenset())
    assert set(stage.cuts(stage.problem.default)[1].values()) == {1.0}
    assert tuple(sorted(WIDTH_RATIOS)) == WIDTH_RATIOS


def test_stage_two_sees_only_what_stage_one_left(teacher: Teacher) -> None:
    removed = frozenset([next(layer.name for layer in teacher.layers if layer.removable)])
    before = ShrinkageStage(teacher, load_profile("cpu"), {}, frozenset())
    after = ShrinkageStage(teacher, load_profile("cpu"), {}, removed)
    assert len(after.groups) < len(before.groups)


def test_the_state_says_how_much_the_budgets_leave(teacher: Teacher) -> None:
    profile = load_profile("cpu")
    free, tight, loose = (
        RemovalStage(teacher, profile, headroom).problem.features
        for headroom in ({}, {"params": 0.25}, {"params": 3.0})
    )
    different = (free != tight).any(axis=0)
    assert different.sum() == 1
    assert (tight[:, different] == 0.25).all()
    assert (loose == free).all()


def test_branches_hold_every_removable_layer_once(teacher: Teacher) -> None:
    stage = RemovalStage(teacher, load_profile("cpu"), {})
    steps = [step for branch in stage.branches for step in branch]
    assert sorted(steps) == [step for step, layer in enumerate(teacher.layers) if layer.removable]
    assert len(steps) == len(set(steps))
    together = next(branch for branch in stage.branches if len(branch) > 1)
    assert teacher.layers[together[0]].skip_start
    assert teacher.layers[together[-1]].skip_end


def test_a_branch_without_its_layers_is_gone(teacher: Teacher) -> None:
    stage = RemovalStage(teacher, load_profile("cpu"), {})
    together = next(branch for branch in stage.branches if len(branch) > 1)
    removed = stage.cuts(stage.without(together))[0]
    assert removed == {teacher.layers[step].name for step in together}
    adds = [
        sum(node.op_type == "Add" for node in teacher.base_graph(gone).model.graph) for gone in (frozenset(), removed)
    ]
    assert adds[1] == adds[0] - 1


def test_a_branch_that_goes_as_a_whole_alone_has_one_step() -> None:
    teacher = inverted_residuals(3)
    stage = RemovalStage(teacher, load_profile("cpu"), {})
    free = [step for step in range(len(teacher.layers)) if stage.problem.mask[step, 0]]
    assert len(free) == 3 + sum(layer.removable for layer in teacher.layers)
    whole = [steps for steps in stage.branches if len(stage.layers_of(steps)) == 3]
    assert [stage.layers_of(steps) for steps in whole] == [branch.layers for branch in teacher.branches]
    for steps in whole:
        assert stage.cuts(stage.without(steps)).base.removed == set(stage.layers_of(steps))
    everything = stage.cuts(stage.without(free)).base.removed
    assert everything == teacher.removable
    assert sorted(step for steps in stage.branches for step in steps) == free


def test_the_nearest_proposal_keeps_proportions(teacher: Teacher) -> None:
    stage = ShrinkageStage(teacher, load_profile("cpu"), {}, frozenset())
    first, second = stage.groups[0].name, stage.groups[1].name
    wanted = {group.name: 0.6 for group in stage.groups} | {first: 0.3, second: 0.01}
    got = stage.cuts(stage.nearest(wanted))[1]
    assert got[first] == 0.5  # half of the largest
    assert got[second] == WIDTH_RATIOS[0]
    assert {ratio for name, ratio in got.items() if name not in (first, second)} == {1.0}
    assert stage.nearest({}) == stage.problem.default


def test_open_regions_are_the_last_decisions_of_both_stages(teacher: Teacher) -> None:
    profile, precision = load_profile("cpu"), CandidatePrecision(teacher, "auto")
    names = [region.name for region in teacher.regions]
    removal = RemovalStage(teacher, profile, {}, precision)
    shrinkage = ShrinkageStage(teacher, profile, {}, frozenset(), precision)
    for stage in (removal, shrinkage):
        assert stage.problem.choices[-len(names) :] == (2,) * len(names)
        assert stage.problem.features.shape == (stage.problem.steps, FEATURES)
        assert stage.cuts(stage.problem.default).int8 == frozenset()
    assert removal.cuts(removal.without((), names[:2])).int8 == set(names[:2])
    assert shrinkage.cuts(shrinkage.nearest({}, names[1:])).int8 == set(names[1:])
    assert set(shrinkage.cuts(shrinkage.nearest({}, names)).ratios.values()) == {1.0}


def test_a_precision_that_was_asked_for_is_no_decision(teacher: Teacher) -> None:
    stage = RemovalStage(teacher, load_profile("cpu"), {}, CandidatePrecision(teacher, "int8"))
    assert stage.problem.steps == len(teacher.layers)
    assert stage.cuts(stage.problem.default).int8 == {region.name for region in teacher.regions}
