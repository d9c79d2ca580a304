"""The widths that budgets leave, and what candidates cost."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from n2n_edge._example import teacher_path
from n2n_edge.devices.registry import load_profile
from n2n_edge.graph.costs import costs, counted
from n2n_edge.graph.load import size_of
from n2n_edge.graph.teacher import Teacher, build
from n2n_edge.graph.width_costs import WidthCosts
from n2n_edge.latency.model import LatencyModel
from n2n_edge.measure import runtimes
from n2n_edge.measure.bench import WarmWorker
from n2n_edge.measure.runtimes import ConversionError, Runtime
from n2n_edge.metrics.budget import Budget
from n2n_edge.metrics.precisions import ShippedPrecision
from n2n_edge.search.costing import FAILED_EXCESS, CostMeter
from n2n_edge.search.fitting import Widths, fit_widths
from n2n_edge.search.precision import Base, CandidatePrecision
from n2n_edge.search.store import Fact, Journal


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return Teacher.load(teacher_path())


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.create(tmp_path / "journal.sqlite") as opened:
        yield opened


def params_at(teacher: Teacher, widths: Widths) -> NDArray[np.int64]:
    return WidthCosts(teacher.base_graph(frozenset())).costs(widths).params


@pytest.mark.parametrize("share", [0.5, 0.2, 0.08])
def test_fitted_widths_use_the_budget_and_never_break_it(teacher: Teacher, share: float) -> None:
    limit = costs(teacher.model).params * share
    ratios = np.random.default_rng(0).uniform(0.25, 1.0, (5, len(teacher.groups)))
    ratios[0] = 1.0
    params = params_at(teacher, fit_widths(teacher.groups, ratios, lambda w: params_at(teacher, w) <= limit, 4))
    assert (params <= limit).all()
    assert (params >= 0.85 * limit).all()


def test_many_are_fitted_as_each_alone(teacher: Teacher) -> None:
    ratios = np.random.default_rng(0).uniform(0.25, 1.0, (6, len(teacher.groups)))

    def fits(widths: Widths) -> NDArray[np.bool_]:
        return params_at(teacher, widths) <= 60_000

    together = fit_widths(teacher.groups, ratios, fits, 4)
    assert (together == np.concatenate([fit_widths(teacher.groups, row[None], fits, 4) for row in ratios])).all()


def test_fitted_widths_follow_the_ratios(teacher: Teacher) -> None:
    full = np.array([group.width for group in teacher.groups])
    favoured = max((g for g, group in enumerate(teacher.groups) if group.shrinkable), key=lambda g: int(full[g]))
    ratios = np.full((1, len(full)), 0.25)
    ratios[0, favoured] = 1.0
    share = fit_widths(teacher.groups, ratios, lambda w: params_at(teacher, w) <= 60_000)[0] / full
    others = [share[g] for g, group in enumerate(teacher.groups) if group.shrinkable and g != favoured]
    assert share[favoured] > 2 * max(others)


def test_where_nothing_fits_the_narrowest_comes_back(teacher: Teacher) -> None:
    ratios = np.ones((1, len(teacher.groups)))
    widths = fit_widths(teacher.groups, ratios, lambda w: np.zeros(len(w), bool), 4)
    assert params_at(teacher, widths)[0] < costs(teacher.model).params / 20


def test_widths_are_multiples_of_what_the_device_likes(teacher: Teacher) -> None:
    ratios = np.ones((1, len(teacher.groups)))
    widths = fit_widths(teacher.groups, ratios, lambda w: params_at(teacher, w) <= 70_000, 8)[0]
    changed = [int(w) for w, group in zip(widths, teacher.groups, strict=True) if w < group.width]
    assert changed
    assert all(width % 8 == 0 for width in changed)


@pytest.mark.parametrize("accept_expected", [False, True])
def test_a_board_is_predicted_and_the_budget_holds_for_the_prediction(
    teacher: Teacher, journal: Journal, accept_expected: bool
) -> None:
    profile = load_profile("raspberry-pi-4")
    full = LatencyModel(profile).estimate(teacher.model).figure
    limit = 0.6 * full.held(accept_expected=accept_expected)
    with WarmWorker() as worker:
        budgets = [Budget("latency_ms", limit)]
        meter = CostMeter(teacher, profile, budgets, journal, worker, accept_expected=accept_expected)
        architecture = meter.fitted(Base(), {group.name: 1.0 for group in teacher.groups})
        found = meter.evaluate(architecture)
        assert worker.pid is None  # nothing was run here
    assert found.latency is not None
    assert found.latency.provenance == "calibrated"
    assert found.held_ms == (found.latency.value if accept_expected else found.latency.high)
    assert found.as_mapping()["latency_ms"] == found.held_ms
    assert 0.85 * limit < found.held_ms <= limit
    assert not meter.excesses(found)


@pytest.mark.parametrize("device", ["raspberry-pi-4", "jetson", "cpu"])
def test_many_are_predicted_as_each_is(teacher: Teacher, journal: Journal, device: str) -> None:
    profile = load_profile(device)
    rng = np.random.default_rng(0)
    groups = teacher.base_graph(frozenset()).groups
    widths = np.array([[rng.integers(max(1, g.width // 4), g.width + 1) if g.shrinkable else g.width for g in groups]])
    with WarmWorker() as worker:
        meter = CostMeter(teacher, profile, [Budget("params", 1e9)], journal, worker)
        architecture = teacher.full
        for group, width in zip(groups, widths[0].tolist(), strict=True):
            architecture = architecture.resize(group.name, width) if group.shrinkable else architecture
        figure = meter.devices[0].predicted(counted(build(teacher, architecture)))
        predicted = meter.predicted(Base(), widths)["latency_ms"][0]
    assert predicted == pytest.approx(figure.value if profile.is_host else figure.high, rel=1e-6)


def test_a_latency_budget_holds_on_every_device(teacher: Teacher, journal: Journal) -> None:
    profiles = [load_profile(name) for name in ("raspberry-pi-4", "jetson")]
    full = {profile.name: LatencyModel(profile).estimate(teacher.model).figure.held() for profile in profiles}
    limit = 0.7 * max(full.values())
    with WarmWorker() as worker:
        meter = CostMeter(teacher, profiles[0], [Budget("latency_ms", limit)], journal, worker, others=profiles[1:])
        architecture = meter.fitted(Base(), {group.name: 1.0 for group in teacher.groups})
        model = build(teacher, architecture)
        found, whole = meter.evaluate(architecture), meter.evaluate(teacher.full)
    assert {name: found.held_on(name) for name in full} == pytest.approx(
        {profile.name: LatencyModel(profile).estimate(model).figure.held() for profile in profiles}, rel=1e-6
    )
    assert found.held_ms == max(found.held_on(name) for name in full) <= limit
    assert found.held_ms > 0.85 * limit
    assert not meter.excesses(found)
    assert meter.excesses(whole) == {"latency_ms": pytest.approx(max(full.values()) / limit - 1)}


def test_widths_suit_every_device(teacher: Teacher, journal: Journal) -> None:
    pi, jetson = load_profile("raspberry-pi-4"), load_profile("jetson")
    other = jetson.model_copy(update={"name": "odd", "channel_multiple": 6})
    with WarmWorker() as worker:
        meter = CostMeter(teacher, pi, [Budget("params", 90_000)], journal, worker, others=[other])
        widths = meter.fitted(Base(), {group.name: 1.0 for group in teacher.groups}).widths
    assert widths
    assert all(width % 12 == 0 for _, width in widths)


def test_what_is_predicted_of_several_devices_is_what_is_predicted_of_each(teacher: Teacher, journal: Journal) -> None:
    pi, jetson = load_profile("raspberry-pi-4"), load_profile("jetson")
    budgets = [Budget("latency_ms", 0.5), Budget("params", 80_000)]
    widths = np.array([[max(1, group.width // part) for group in teacher.groups] for part in (1, 2, 4)])
    with WarmWorker() as worker:
        both = CostMeter(teacher, pi, budgets, journal, worker, others=[jetson])
        alone = [CostMeter(teacher, profile, budgets, journal, worker) for profile in (pi, jetson)]
        known = both.predicted(Base(), widths)
        each = [meter.predicted(Base(), widths) for meter in alone]
        excesses = [meter.predicted_excesses(found) for meter, found in zip(alone, each, strict=True)]
    for profile, found in zip((pi, jetson), each, strict=True):
        assert (known[f"latency_ms:{profile.name}"] == found["latency_ms"]).all()
    assert (known["latency_ms"] == np.maximum(*(found["latency_ms"] for found in each))).all()
    assert both.predicted_excesses(known) == pytest.approx(np.maximum(*excesses))


def test_this_host_may_be_one_of_several_and_is_timed_only_where_the_others_allow(
    teacher: Teacher, journal: Journal
) -> None:
    cpu, pi = load_profile("cpu"), load_profile("raspberry-pi-4")
    full = LatencyModel(pi).estimate(teacher.model).figure.held()
    for limit, timed in ((0.5 * full, False), (1000.0, True)):
        with WarmWorker() as worker:
            meter = CostMeter(teacher, cpu, [Budget("latency_ms", limit)], journal, worker, others=[pi])
            found = meter.evaluate(teacher.full)
            assert (worker.pid is not None) == timed
            assert bool(meter.excesses(found)) == (not timed)
        assert [figure.provenance for figure in found.latencies.values()] == ["calibrated", "measured"][: 1 + timed]


def test_this_host_is_timed_once_per_architecture(teacher: Teacher, journal: Journal) -> None:
    with WarmWorker() as worker:
        meter = CostMeter(teacher, load_profile("cpu"), [Budget("latency_ms", 1000.0)], journal, worker)
        first = meter.evaluate(teacher.full).latency
        pid = worker.pid
    again = meter.evaluate(teacher.full).latency
    assert pid is not None
    assert worker.pid is None  # the second figure came from the journal
    assert first is not None
    assert first.provenance == "measured"
    assert first == again


def test_a_missed_budget_is_told_in_proportion(teacher: Teacher, journal: Journal) -> None:
    with WarmWorker() as worker:
        meter = CostMeter(teacher, load_profile("raspberry-pi-4"), [Budget("params", 154_105.0)], journal, worker)
        found = meter.evaluate(teacher.full)
    assert meter.excesses(found) == {"params": pytest.approx(1.0)}


def shuffled_with_shared_constants(blocks: int = 12) -> ir.Model:
    """Blocks of Split, convolution, Concat and channel shuffle that share one constant for each kind of shape."""
    random = np.random.default_rng(0)
    constants = {
        "stem.weight": random.normal(size=(64, 3, 3, 3)).astype(np.float32),
        "halves": np.array([32, 32]),
        "apart": np.array([0, 2, 32, 16, 16]),
        "together": np.array([0, 64, 16, 16]),
        "fc.weight": random.normal(size=(10, 64)).astype(np.float32),
    }
    nodes = [helper.make_node("Conv", ["x", "stem.weight"], ["v0"], pads=[1] * 4)]
    for i in range(blocks):
        constants[f"{i}.weight"] = random.normal(size=(32, 32, 1, 1)).astype(np.float32)
        nodes += [
            helper.make_node("Split", [f"v{i}", "halves"], [f"a{i}", f"b{i}"], axis=1),
            helper.make_node("Conv", [f"b{i}", f"{i}.weight"], [f"c{i}"]),
            helper.make_node("Relu", [f"c{i}"], [f"r{i}"]),
            helper.make_node("Concat", [f"a{i}", f"r{i}"], [f"j{i}"], axis=1),
            helper.make_node("Reshape", [f"j{i}", "apart"], [f"s{i}"]),
            helper.make_node("Transpose", [f"s{i}"], [f"t{i}"], perm=[0, 2, 1, 3, 4]),
            helper.make_node("Reshape", [f"t{i}", "together"], [f"v{i + 1}"]),
        ]
    nodes += [
        helper.make_node("GlobalAveragePool", [f"v{blocks}"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "fc.weight"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


@pytest.mark.parametrize(("cost", "shares"), [("size_mb", (0.75, 0.8, 0.85)), ("memory_bound_mb", (0.9, 0.92, 0.95))])
def test_what_cuts_add_to_the_file_is_reckoned_with(
    journal: Journal, cost: Literal["size_mb", "memory_bound_mb"], shares: tuple[float, ...]
) -> None:
    teacher = Teacher(shuffled_with_shared_constants())
    profile = load_profile("raspberry-pi-4")
    with WarmWorker() as worker:
        full = CostMeter(teacher, profile, [], journal, worker).static(build(teacher, teacher.full)).as_mapping()[cost]
        for share in shares:
            meter = CostMeter(teacher, profile, [Budget(cost, share * full)], journal, worker)
            architecture = meter.fitted(Base(), {group.name: 1.0 for group in teacher.groups})
            found = meter.static(build(teacher, architecture))
            assert not meter.excesses(found)
            assert found.as_mapping()[cost] > 0.9 * share * full


@pytest.mark.parametrize(
    ("asked", "regions"), [("auto", slice(None)), ("auto", slice(1, 2)), ("fp16", slice(0))], ids=str
)
def test_many_quantized_are_predicted_as_each_is(
    teacher: Teacher, journal: Journal, asked: ShippedPrecision, regions: slice
) -> None:
    int8 = [region.name for region in teacher.regions[regions]]
    groups = teacher.base_graph(frozenset()).groups
    rng = np.random.default_rng(0)
    widths = np.array([[rng.integers(max(1, g.width // 4), g.width + 1) if g.shrinkable else g.width for g in groups]])
    architecture = teacher.full.in_int8(*int8)
    for group, width in zip(groups, widths[0].tolist(), strict=True):
        architecture = architecture.resize(group.name, width) if group.shrinkable else architecture
    with WarmWorker() as worker:
        precision = CandidatePrecision(teacher, asked)
        profile = load_profile("raspberry-pi-4")
        meter = CostMeter(teacher, profile, [Budget("size_mb", 1e9)], journal, worker, precision=precision)
        found = meter.evaluate(architecture)
        told = meter.predicted(Base(int8=frozenset(int8)), widths)
    exact = found.as_mapping()
    assert {name: told[name][0] for name in ("params", "macs")} == {name: exact[name] for name in ("params", "macs")}
    assert told["memory_bound_mb"][0] == pytest.approx(exact["memory_bound_mb"])
    assert told["latency_ms"][0] == pytest.approx(exact["latency_ms"])
    assert exact["size_mb"] <= told["size_mb"][0] < exact["size_mb"] + 0.001
    assert found.size_mb < costs(build(teacher, architecture)).size_bytes / 1e6


def test_a_budget_on_the_file_leaves_quantized_candidates_more_params(teacher: Teacher, journal: Journal) -> None:
    with WarmWorker() as worker:
        precision = CandidatePrecision(teacher, "auto")
        profile = load_profile("raspberry-pi-4")
        meter = CostMeter(teacher, profile, [Budget("size_mb", 0.1)], journal, worker, precision=precision)
        found = []
        for int8 in (frozenset[str](), precision.most):
            architecture = meter.fitted(Base(int8=int8), {})
            model = precision.shipped(build(teacher, architecture), int8)
            assert size_of(model) <= 100_000
            found.append(costs(model).params)
    assert found[1] > 2 * found[0]


def test_a_candidate_that_cannot_be_converted_for_the_runtime_misses_its_budget_and_says_why(
    teacher: Teacher, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(model: Path, folder: Path, inputs: object) -> None:
        raise ConversionError("it can't be converted for ncnn: no such operator")

    monkeypatch.setitem(runtimes.RUNTIMES, "ncnn", Runtime("ncnn", (), (".param",), refuse))
    host = load_profile("cpu").under("ncnn")
    with WarmWorker() as worker:
        meter = CostMeter(teacher, host, [Budget("latency_ms", 1000.0)], journal, worker)
        found = meter.evaluate(teacher.full)

    assert found.failed
    assert meter.excesses(found) == {"latency_ms": FAILED_EXCESS}
    known = journal.cached(Fact.LATENCY, f"{teacher.full.key}/cpu/{host.default_threads}/ncnn")
    assert known == {"failed": "candidate.onnx (ncnn): it can't be converted for ncnn: no such operator"}
