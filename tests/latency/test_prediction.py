"""What a model will cost on a device: from which evidence, and how sure that is."""

import math
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from n2n_edge.calibration.builder import Net
from n2n_edge.devices.profile import Profile
from n2n_edge.devices.registry import list_profiles, load_profile
from n2n_edge.errors import InputError
from n2n_edge.graph.load import load_model
from n2n_edge.graph.teacher import Teacher
from n2n_edge.graph.width_costs import WidthCosts
from n2n_edge.latency.basis import Basis, lender_of
from n2n_edge.latency.kernels import kernels_of
from n2n_edge.latency.model import LatencyModel, input_pixels
from n2n_edge.metrics.figures import Figure
from n2n_edge.metrics.notices import Notice, texts_of
from n2n_edge.metrics.precisions import Precision
from tests.latency.made_up import BOARD_TOML, CALIBRATION_TOML, board, calibration, gpu_board, net_model, rates
from tests.measure.small_models import write_conv_model, write_gemm_model

THREADS_1 = calibration(threads=1, rates=rates(4.0))
THREADS_4 = calibration(threads=4, rates=rates(1.0))


def spread(figure: Figure) -> float:
    """The upper bound over the lower one."""
    assert figure.low is not None
    assert figure.high is not None
    assert 0 < figure.low < figure.value < figure.high
    return figure.high / figure.low


def notes(profile: Profile, model: ir.Model | None = None, threads: int | None = None) -> tuple[str, ...]:
    return texts_of(LatencyModel(profile, threads).estimate(model or net_model()).basis.warnings)


def test_what_was_timed_on_the_device_itself_is_calibrated_and_has_its_interval() -> None:
    model = net_model()
    kernels, amounts = kernels_of(model, 4)

    figure = LatencyModel(board(THREADS_4)).estimate(model).figure

    assert (figure.unit, figure.provenance, figure.n) == ("ms", "calibrated", 30)
    assert figure.value == pytest.approx(kernels.terms(amounts).sum() / 1e6)  # all rates are 1 ns
    assert (figure.low, figure.high) == pytest.approx((0.8 * figure.value, 1.25 * figure.value))
    assert figure.predicted
    assert notes(board(THREADS_4)) == ()


@pytest.mark.parametrize("name", ["raspberry-pi-4", "jetson-orin-nano", "raspberry-pi-5", "jetson-nano"])
def test_a_wider_model_takes_longer(name: str) -> None:
    profile = load_profile(name)

    values = [LatencyModel(profile).estimate(net_model(width)).figure.value for width in (16, 32, 64, 128)]

    assert values == sorted(set(values))


def test_the_whole_is_the_sum_of_its_nodes_and_of_its_layers(tmp_path: Path) -> None:
    model = load_model(write_conv_model(tmp_path / "small.onnx", 16))
    profile = load_profile("raspberry-pi-4")

    found = LatencyModel(profile).estimate(model)

    assert [each.name for each in found.nodes] == ["conv1", "norm1", "relu1", "conv2", "add", "relu2"]
    assert [each.kernel for each in found.nodes] == ["conv_3x3", "fused", "fused", "conv_3x3", "residual", "fused"]
    assert [each.latency_ms > 0 for each in found.nodes] == [True, False, False, True, True, False]
    assert found.figure.value == pytest.approx(sum(each.latency_ms for each in found.nodes))
    layers = found.by_layer()
    assert sum(layers.values()) == pytest.approx(found.figure.value)
    assert list(layers.values()) == sorted(layers.values(), reverse=True)
    by_node: dict[str, float] = {}
    for node in found.nodes:
        by_node[node.layer] = by_node.get(node.layer, 0.0) + node.latency_ms
    assert by_node == layers
    assert len([name for name in layers if name]) == 2
    assert LatencyModel(profile).estimate(model).nodes == found.nodes
    assert LatencyModel(profile).estimate(model).figure.to_json() == pytest.approx(found.figure.to_json())


def test_threads_that_were_not_timed_lie_between_those_that_were() -> None:
    profile, model = board(THREADS_1, THREADS_4), net_model()
    one, two, three, four = (LatencyModel(profile, threads).estimate(model).figure for threads in (1, 2, 3, 4))

    assert LatencyModel(profile).estimate(model).figure == four
    assert one.value > two.value > three.value > four.value
    assert two.value == pytest.approx(math.sqrt(one.value * four.value))
    assert [each.provenance for each in (one, two, three, four)] == ["calibrated", "analytic", "analytic", "calibrated"]
    assert spread(two) > spread(four)
    assert notes(profile, threads=2) == ("timed with 1 and 4 threads",)


def test_a_term_that_only_some_numbers_of_threads_use_fades_out_between_them() -> None:
    model = net_model()
    plain = {"mac_conv_3x3": 1.0, "byte_dense": 1.0, "launch_compute": 1000.0}
    kernels, amounts = kernels_of(model, 4)
    profile = board(calibration(threads=1, rates={**plain, "byte_weights": 9.0}), calibration(threads=4, rates=plain))

    figures = [LatencyModel(profile, threads).estimate(model).figure.value for threads in (1, 2, 4)]

    told = [float(kernels.total_ns(amounts, {**plain, "byte_weights": rate})[0]) / 1e6 for rate in (9.0, 4.5, 0.0)]
    assert figures == pytest.approx(told)


def test_threads_beyond_all_that_were_timed_only_speed_up_arithmetic() -> None:
    model = net_model()
    timed = calibration(threads=2, rates={"mac_conv_3x3": 1.0, "byte_dense": 1.0, "launch_compute": 1000.0})
    kernels, amounts = kernels_of(model, 4)
    macs = float(kernels.total_ns(amounts, {"mac_conv_3x3": 1.0})[0]) / 1e6
    rest = float(kernels.total_ns(amounts, {"byte_dense": 1.0, "launch_compute": 1000.0})[0]) / 1e6

    one, two, four = (LatencyModel(board(timed), threads).estimate(model).figure for threads in (1, 2, 4))

    assert [each.value for each in (one, two, four)] == pytest.approx([2 * macs + rest, macs + rest, macs / 2 + rest])
    assert [each.provenance for each in (one, two, four)] == ["analytic", "calibrated", "analytic"]
    assert spread(one) == spread(four) > spread(two)
    assert notes(board(timed), threads=1) == ("timed with 2 threads",)


@pytest.mark.parametrize("threads", [-1, 0, 5])
def test_threads_that_the_device_does_not_have_are_refused(threads: int) -> None:
    with pytest.raises(InputError, match=f"{threads} threads: made-up has 4 cores; give 1 to 4"):
        LatencyModel(board(THREADS_4), threads)


def test_threads_do_not_matter_to_a_gpu() -> None:
    model = net_model()
    for profile in (gpu_board(THREADS_4), load_profile("jetson"), load_profile("jetson-nano")):
        figures = [LatencyModel(profile, threads).estimate(model).figure for threads in (None, 1, 2, profile.cores)]
        assert figures == figures[:1] * 4
        assert figures[0].provenance == "calibrated"
    with pytest.raises(InputError, match="9 threads"):
        LatencyModel(load_profile("jetson"), 9)


def write_relative(folder: Path, name: str = "lender", **figures: float) -> None:
    """Write a profile of this name, with figures of its own, that was timed with four threads."""
    text = BOARD_TOML + CALIBRATION_TOML.format(threads=4, mac=1.0).replace('measured_on = "made-up"', "")
    text = text.replace("threads = 4\n\n", f'threads = 4\nmeasured_on = "{name}"\n')
    text = text.replace('name = "made-up"', f'name = "{name}"').replace('["mu1", "mu2"]', "[]")
    for field, value in figures.items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"{field} = ") and "made up" not in line]
        text = text.replace(line, f"{field} = {value}", 1)
    (folder / f"{name}.toml").write_text(text)


def test_a_device_without_measurements_borrows_those_of_its_relative(own_folder: Path) -> None:
    write_relative(own_folder)
    model, lender = net_model(), load_profile("lender")
    same = board(relative="lender")

    figure, lent = LatencyModel(same).estimate(model).figure, LatencyModel(lender).estimate(model).figure

    assert lent.provenance == "calibrated"
    assert figure.provenance == "analytic"
    assert figure.value == pytest.approx(lent.value)  # the data sheets are the same
    assert spread(figure) > 2 * spread(lent)
    assert notes(same) == ("made-up has no measurements: lender's, scaled by data sheets",)
    assert LatencyModel(same).estimate(model).basis.evidence == lender.calibrations[0]


def test_borrowed_rates_are_scaled_by_what_the_data_sheets_say() -> None:
    lender = board(calibration(rates={"mac_conv_3x3": 3.0, "byte_dense": 5.0, "launch_compute": 700.0}))
    other = {"name": "other", "relative": "made-up"}

    def borrowed(threads: int | None = None, precision: Precision = "fp32", **figures: float) -> dict[str, float]:
        return dict(LatencyModel(board(**other, **figures), threads, precision, relative=lender).basis().rates)

    assert borrowed() == {"mac_conv_3x3": 3.0, "byte_dense": 5.0, "launch_compute": 700.0}
    assert borrowed(peak_gflops=96.0)["mac_conv_3x3"] == 1.5
    assert borrowed(bandwidth_gb_s=3.0)["byte_dense"] == 20.0
    assert borrowed(clock_mhz=3000)["launch_compute"] == 350.0
    assert borrowed(cores=8, default_threads=8)["mac_conv_3x3"] == 3.0  # as many operations a second in all
    assert borrowed(threads=4, cores=8, default_threads=8)["mac_conv_3x3"] == 6.0
    assert borrowed(threads=2)["mac_conv_3x3"] == 6.0  # as the relative's with two threads


def test_a_device_without_measurements_is_told_by_all_boards() -> None:
    for profile in (board(relative=None), gpu_board(relative=None), load_profile("cortex-a73")):
        estimate = LatencyModel(profile).estimate(net_model())
        assert estimate.basis.evidence.measured_on == "all-boards"
        assert estimate.figure.provenance == "analytic"
        assert "pooled" in [each.code for each in estimate.basis.warnings]
        assert spread(estimate.figure) > 1
        assert "boards that it had not seen" in str(estimate.evidence[0])


def test_all_boards_tell_a_faster_board_and_more_threads() -> None:
    model = net_model()

    def latency(threads: int | None = None, **figures: float) -> float:
        profile = load_profile("cortex-a53").model_copy(update={"relative": None, **figures})
        return LatencyModel(profile, threads).estimate(model).figure.value

    assert latency(clock_mhz=1800.0, peak_gflops=57.6) < latency()
    assert latency() < latency(threads=1)


def test_all_boards_tell_fp32_of_a_core_that_was_timed_in_fp16() -> None:
    profile = load_profile("cortex-a78")

    half, single = (LatencyModel(profile, precision=each).estimate(net_model()) for each in ("fp16", "fp32"))

    assert half.figure.value < single.figure.value <= 2 * half.figure.value
    assert "other-precision" in [each.code for each in single.basis.warnings]


def test_a_core_that_no_board_has_is_less_certain() -> None:
    known = load_profile("cortex-a53").model_copy(update={"relative": None})
    unknown = known.model_copy(update={"core": "no-such-core"})

    found = LatencyModel(unknown).estimate(net_model())

    assert any("no-such-core" in each.text for each in found.basis.warnings)
    assert found.figure.value > 0


def test_this_machine_is_told_how_to_know_better() -> None:
    profile = load_profile("cpu")

    assert LatencyModel(profile).estimate(net_model()).figure.provenance == "analytic"
    assert any("n2n-edge device calibrate --host" in note for note in notes(profile))


def test_a_relative_that_borrows_itself_lends_what_it_borrows() -> None:
    found = LatencyModel(board(relative="cortex-a76")).estimate(net_model()).basis

    assert found.evidence.measured_on == load_profile("cortex-a76").relative == "raspberry-pi-5"


def test_relatives_that_lead_nowhere_are_named(own_folder: Path) -> None:
    for name, relative in (("one", "two"), ("two", "one")):
        text = BOARD_TOML.replace('"made-up"', f'"{name}"').replace('"raspberry-pi-4"', f'"{relative}"')
        (own_folder / f"{name}.toml").write_text(text.replace('["mu1", "mu2"]', "[]"))

    with pytest.raises(InputError, match=r"one: none of its relatives .* has a calibration"):
        LatencyModel(load_profile("one")).estimate(net_model())


def test_this_machine_may_lend_fewer_cores_than_it_was_calibrated_with() -> None:
    host = load_profile("cpu")
    timed = [calibration(threads=threads, measured_on="cpu") for threads in (1, 512)]

    profile = Profile.model_validate({**host.model_dump(), "calibrations": timed})

    assert LatencyModel(profile, threads=1).estimate(net_model()).figure.provenance == "calibrated"


def test_work_that_is_not_counted_is_told(tmp_path: Path) -> None:
    net = Net("recurrent", 4, 8, 8)
    x = net.reshape(net.input, 8, 1, 32)
    lstm = ir.node("LSTM", [x, net.weights(1, 64, 32), net.weights(1, 64, 16)], {"hidden_size": 16}, num_outputs=1)
    net._nodes.append(lstm)
    lstm.outputs[0].name, lstm.outputs[0].shape = "hidden", ir.Shape((8, 1, 1, 16))
    lstm.outputs[0].dtype = ir.DataType.FLOAT

    found = LatencyModel(board(THREADS_4)).estimate(net.model(lstm.outputs[0]))

    assert found.figure.provenance == "analytic"
    assert spread(found.figure) > 50
    assert any("LSTM" in each.text for each in found.basis.warnings)


def test_what_was_timed_elsewhere_is_less_certain_and_analytic() -> None:
    model = net_model()
    here, elsewhere = board(THREADS_4), board(calibration(measured_on="another-board"))

    figure = LatencyModel(elsewhere).estimate(model).figure

    assert figure.provenance == "analytic"
    assert figure.value == LatencyModel(here).estimate(model).figure.value
    assert spread(figure) > spread(LatencyModel(here).estimate(model).figure)
    assert notes(elsewhere) == ("timed on another-board",)


def test_a_precision_that_was_timed_is_taken_as_it_is() -> None:
    model = net_model()
    profile = board(THREADS_4, calibration(precisions=("int8",), rates=rates(0.25)))

    fp32, int8 = (LatencyModel(profile, precision=precision).estimate(model).figure for precision in ("fp32", "int8"))

    assert int8.value == pytest.approx(fp32.value / 4)
    assert (fp32.provenance, int8.provenance) == ("calibrated", "calibrated")
    assert LatencyModel(profile, precision="int8").basis().warnings == ()


def test_half_precision_follows_from_peaks_and_widths_of_numbers() -> None:
    timed = {"mac_conv_3x3": 1.0, "byte_dense": 1.0, "launch_compute": 1000.0}
    profile = board(calibration(rates=timed), peak_fp16_gflops=96.0)
    exact, basis = LatencyModel(profile).basis(), LatencyModel(profile, precision="fp16").basis()

    assert dict(basis.rates) == {"mac_conv_3x3": 0.5, "byte_dense": 0.5, "launch_compute": 1000.0}
    assert not basis.measured_here
    assert texts_of(basis.warnings) == ("timed in fp32, told by peaks and widths of numbers",)
    assert basis.low_ratio < exact.low_ratio < exact.high_ratio < basis.high_ratio
    figure = LatencyModel(profile, precision="fp16").estimate(net_model()).figure
    assert figure.provenance == "analytic"
    assert figure.value < LatencyModel(profile).estimate(net_model()).figure.value


def test_int8_that_was_not_timed_may_be_faster_or_slower() -> None:
    profile = board(calibration(), peak_int8_gops=384.0)
    exact, basis = LatencyModel(profile).basis(), LatencyModel(profile, precision="int8").basis()

    assert basis.rates == exact.rates
    assert not basis.measured_here
    assert [each.code for each in basis.warnings] == ["quantized"]
    assert basis.low_ratio < exact.low_ratio / 2
    assert basis.high_ratio > exact.high_ratio * 2


@pytest.mark.parametrize(
    ("name", "precision", "provenance"),
    [
        ("raspberry-pi-4", "fp16", "analytic"),
        ("raspberry-pi-4", "int8", "calibrated"),
        ("raspberry-pi-5", "fp16", "calibrated"),
        ("raspberry-pi-5", "int8", "calibrated"),
        ("jetson-orin-nano", "fp16", "calibrated"),
        ("jetson-orin-nano", "int8", "analytic"),
        ("jetson-agx-xavier-cpu", "fp16", "analytic"),
        ("jetson-agx-xavier-cpu", "int8", "calibrated"),
    ],
)
def test_narrower_numbers_are_predicted_on_shipped_boards(name: str, precision: Precision, provenance: str) -> None:
    model, profile = net_model(64, 64), load_profile(name)
    exact, found = (LatencyModel(profile, precision=each).estimate(model).figure for each in ("fp32", precision))

    assert found.provenance == provenance
    timed_alike = any({"fp32", precision} <= set(one.precisions) for one in profile.calibrations)
    if timed_alike:
        assert (found.value, spread(found)) == (exact.value, spread(exact))
    elif provenance == "analytic":
        assert found.value < exact.value or (name, precision) == ("jetson-orin-nano", "int8")
        assert exact.provenance == "analytic" or spread(found) > spread(exact)
    else:  # timed by itself, for better or worse
        assert found.value != exact.value


def test_models_outside_of_what_was_timed_are_less_certain() -> None:
    model = net_model()
    (macs,) = kernels_of(model)[1].macs.tolist()

    def found(least: float, most: float) -> tuple[float, float, tuple[str, ...]]:
        profile = board(calibration(macs=(least * macs, most * macs)))
        figure = LatencyModel(profile).estimate(model).figure
        assert figure.provenance == "calibrated"
        return figure.value, spread(figure), notes(profile)

    value, within, nothing = found(0.5, 2)
    spreads = {ratio: found(ratio, 100 * ratio)[1] for ratio in (1.0, 1.5, 4.0, 1000.0)}
    smaller = {ratio: found(ratio / 100, ratio)[1] for ratio in (1.0, 1 / 1.5, 1 / 4)}

    assert nothing == ()
    assert spreads[1.0] == smaller[1.0] == within
    assert within < spreads[1.5] < spreads[4.0] < spreads[1000.0]
    assert [spreads[1.5], spreads[4.0]] == pytest.approx([smaller[1 / 1.5], smaller[1 / 4]])
    assert found(4, 100)[0] == value
    (note,) = found(4, 100)[2]
    assert "MACs were timed, this has" in note


def test_weights_that_a_caller_may_replace_make_a_model_less_certain(tmp_path: Path) -> None:
    path = write_conv_model(tmp_path / "small.onnx")
    closed, opened = load_model(path), onnx.load(path)
    for tensor in opened.graph.initializer:
        opened.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))

    latency = LatencyModel(board(THREADS_4))
    open_weights, constants = latency.estimate(ir.from_proto(opened)), latency.estimate(closed)

    assert spread(open_weights.figure) > 2 * spread(constants.figure)
    assert constants.warnings == ()
    assert [warning.code for warning in open_weights.warnings] == ["open-weights"]


def test_many_candidates_are_bounded_as_each_alone() -> None:
    teacher = Teacher(net_model())
    base = teacher.base_graph(frozenset())
    at = WidthCosts(base)
    own = kernels_of(base.model, 4)[1]
    full = np.array([group.width for group in base.groups])
    widths = np.stack([full, np.maximum(full // 2, 1), np.maximum(full // 4, 1)])
    widths[:, [not group.shrinkable for group in base.groups]] = full[[not group.shrinkable for group in base.groups]]
    amounts = at.costs(widths)
    latency = LatencyModel(board(calibration(macs=(0.9 * own.macs[0], 2 * own.macs[0]))))
    graph = latency.of_graph(base.model, at.plan.nodes)

    upper, latencies = graph.upper_ms(amounts), graph.latencies_ms(amounts)

    assert latencies.tolist() == sorted(latencies, reverse=True)
    figure = latency.estimate(base.model).figure
    assert (latencies[0], upper[0]) == pytest.approx((figure.value, figure.high))
    assert upper[0] / latencies[0] == pytest.approx(latency.basis().high_ratio)
    assert (np.diff(upper / latencies) > 0).all()  # ever farther outside


def test_an_image_is_the_largest_input_of_four_axes() -> None:
    assert input_pixels(net_model(size=48)) == 48**2
    net = Net("rows", 3, 20, 30)
    assert input_pixels(net.model(net.conv(net.input, 4, 3))) == 600


def test_channels_may_come_last_and_sizes_be_free() -> None:
    last = net_model(size=48)
    last.graph.inputs[0].shape = ir.Shape((1, 48, 40, 3))
    assert input_pixels(last) == 48 * 40
    last.graph.inputs[0].shape = ir.Shape(("n", 3, "h", "w"))
    assert input_pixels(last) == 224 * 224


def test_what_has_no_image_is_as_near_to_all_evidence_but_to_that_of_small_ones(tmp_path: Path) -> None:
    model = load_model(write_gemm_model(tmp_path / "gemm.onnx", 16))
    assert input_pixels(model) == 0
    small = calibration(input_pixels=(1024.0, 1024.0), models=500, source="small")
    large = calibration(input_pixels=(16384.0, 90000.0), models=10, source="large")
    assert LatencyModel(board(small, large)).estimate(model).basis.evidence.source == "large"


def test_inputs_far_from_all_that_were_timed_are_less_certain() -> None:
    near, far = (board(calibration(input_pixels=span)) for span in ((1024.0, 90000.0), (50000.0, 90000.0)))

    assert spread(LatencyModel(far).estimate(net_model(size=32)).figure) > spread(
        LatencyModel(near).estimate(net_model(size=32)).figure
    )
    assert any("inputs of" in note for note in notes(far, net_model(size=32)))
    assert not any("inputs of" in note for note in notes(near, net_model(size=32)))


def test_the_own_runtime_counts_for_inputs_somewhat_outside_of_what_was_timed() -> None:
    own = calibration(input_pixels=(784.0, 50176.0), runtime="onnxruntime 1.20", models=20)
    ncnn = calibration(input_pixels=(16384.0, 500000.0), runtime="ncnn", models=500)

    for size, runtime in ((224, "onnxruntime 1.20"), (416, "onnxruntime 1.20"), (700, "ncnn")):
        assert LatencyModel(board(own, ncnn)).estimate(net_model(size=size)).basis.evidence.runtime == runtime


def test_runtimes_are_not_mixed_between_threads() -> None:
    own = calibration(threads=1, runtime="onnxruntime 1.20", rates=rates(4.0))
    ncnn = [calibration(threads=threads, runtime="ncnn", rates=rates(1.0)) for threads in (1, 4)]

    found = LatencyModel(board(own, *ncnn), threads=2).estimate(net_model()).basis

    assert found.evidence == own
    assert "timed with 1 thread" in texts_of(found.warnings)


def test_the_evidence_with_the_nearest_inputs_counts() -> None:
    small = calibration(input_pixels=(1024.0, 1024.0), models=500, source="small")
    large = calibration(input_pixels=(16384.0, 90000.0), models=10, source="large")
    profile = board(small, large)

    chosen = {
        size: LatencyModel(profile).estimate(net_model(size=size)).basis.evidence.source
        for size in (8, 32, 48, 96, 224)
    }

    assert chosen == {8: "small", 32: "small", 48: "small", 96: "large", 224: "large"}


def test_the_jetson_nano_has_evidence_for_small_and_for_large_inputs() -> None:
    profile = load_profile("jetson-nano")

    small, large = (LatencyModel(profile).estimate(net_model(size=size)).basis for size in (32, 224))

    assert small.evidence.runtime == "HW-NAS-Bench's"
    assert small.evidence.input_pixels == (1024.0, 1024.0)
    assert large.evidence.runtime.startswith("ncnn")
    assert (small.measured_here, large.measured_here) == (True, True)


def test_of_evidence_that_spans_the_model_the_profiles_runtime_comes_first() -> None:
    ncnn = calibration(runtime="ncnn", models=500)
    own = calibration(runtime="onnxruntime 1.20", models=20)
    elsewhere = calibration(runtime="onnxruntime 1.20", models=900, measured_on="another-board")

    for order in ((ncnn, own, elsewhere), (elsewhere, own, ncnn)):
        assert LatencyModel(board(*order)).estimate(net_model()).basis.evidence == own
    assert LatencyModel(board(elsewhere, ncnn)).estimate(net_model()).basis.evidence == ncnn


def test_energy_is_told_where_it_was_measured() -> None:
    model = net_model(size=128)

    pi, jetson = (LatencyModel(load_profile(name)).estimate(model) for name in ("raspberry-pi-4", "jetson-orin-nano"))

    assert pi.energy is not None
    assert pi.energy.unit == "mJ"
    assert spread(pi.energy) > 1
    assert pi.energy.provenance == "calibrated"
    assert jetson.energy is None


def test_energy_is_neither_latency_nor_borrowed() -> None:
    energy = calibration(quantity="energy", rates=rates(7.0))
    profile = board(THREADS_4, energy)
    found = LatencyModel(profile).estimate(net_model())

    assert found.energy is not None
    assert found.energy.value == pytest.approx(7 * found.figure.value)
    assert found.figure == LatencyModel(board(THREADS_4)).estimate(net_model()).figure
    assert LatencyModel(profile, precision="int8").estimate(net_model()).energy is None
    assert LatencyModel(profile, threads=2).estimate(net_model()).energy is None
    assert LatencyModel(board()).estimate(net_model()).energy is None
    assert load_profile("cortex-a72").relative == "raspberry-pi-4"
    assert LatencyModel(load_profile("cortex-a72")).estimate(net_model()).energy is None


def test_memory_is_the_bound_and_the_runtime_and_fits_or_not() -> None:
    model = net_model(256, 64)
    needed = LatencyModel(board(THREADS_4)).estimate(model).memory

    assert (needed.unit, needed.provenance) == ("MB", "analytic")
    assert needed.value > LatencyModel(board(THREADS_4)).estimate(net_model()).memory.value > 10
    for room, fits in ((needed.value * 1.01, True), (needed.value * 0.99, False)):
        assert LatencyModel(board(THREADS_4, usable_memory_mb=room)).estimate(model).fits is fits
    assert LatencyModel(gpu_board(THREADS_4)).estimate(model).memory.value > needed.value


def test_an_estimate_names_its_evidence_and_what_makes_it_less_certain() -> None:
    estimate = LatencyModel(board(calibration(threads=1, measured_on="another-board")), threads=1).estimate(net_model())
    evidence, source = estimate.evidence
    (warning,) = estimate.warnings

    assert evidence.text == (
        "evidence: 30 models timed with onnxruntime 1.20 on another-board, 1 thread, fp32; left out one by one they "
        "were off by 5% (median) and 20% (nine of ten)"
    )
    assert source.text == "source: made up"
    assert warning == Notice("other-device", "less certain: timed on another-board")
    assert estimate.basis.to_json() == {
        "measured_on": "another-board", "runtime": "onnxruntime 1.20", "threads": 1, "precisions": ["fp32"],
        "models": 30, "median_error": 0.05, "p90_error": 0.2, "source": "made up", "notes": ["timed on another-board"],
    }  # fmt: skip


def test_widening_keeps_the_value_and_adds_the_reason() -> None:
    basis = Basis(rates(), True, 0.8, 1.25, THREADS_4)

    wider = basis.widened(Notice("a", "because"), 1.5).widened(Notice("b", "and because"), 2.0)

    assert (wider.low_ratio, wider.high_ratio) == pytest.approx((0.8 / 3, 1.25 * 3))
    assert texts_of(wider.warnings) == ("because", "and because")
    assert wider.figure(10.0, "ms").value == 10.0
    assert basis.warnings == ()


def test_a_shipped_board_is_predicted_from_its_own_measurements_or_those_of_others() -> None:
    for profile in list_profiles():
        basis = LatencyModel(profile).estimate(net_model()).basis
        own = [each for each in profile.calibrations if each.quantity == "latency"]
        as_asked = [each for each in own if profile.compute_unit == "gpu" or each.threads == profile.default_threads]
        assert basis.measured_here == any("fp32" in each.precisions for each in as_asked)
        if own:
            assert basis.evidence.measured_on == profile.name
        else:
            lender = lender_of(profile)
            assert basis.evidence.measured_on == ("all-boards" if lender is None else lender.name)


def test_timings_with_the_runtime_that_is_asked_for_speak_first(tmp_path: Path) -> None:
    own, other = calibration(rates=rates(4.0)), calibration(runtime="ncnn", rates=rates(1.0), models=40)
    profile, model = board(own, other), net_model()

    figures = [LatencyModel(profile.under(name)).estimate(model) for name in ("onnxruntime", "ncnn", "openvino")]

    first, second, third = (each.figure for each in figures)
    assert [each.figure.runtime for each in figures] == ["onnxruntime", "ncnn", "openvino"]
    assert first.value == pytest.approx(4 * second.value)
    assert third.value == second.value  # the most models, since neither is of that runtime
    assert spread(first) == spread(second) < spread(third)
    assert texts_of(figures[2].basis.warnings) == ("timed with ncnn, told for openvino",)
    assert [texts_of(each.basis.warnings) for each in figures[:2]] == [(), ()]


def test_ncnn_takes_float16_where_there_is_arithmetic_for_it_and_its_interval_is_narrower() -> None:
    model = net_model(width=64, size=128)
    pi5, pi4 = load_profile("raspberry-pi-5"), load_profile("raspberry-pi-4")

    own, ncnn = (LatencyModel(profile).estimate(model) for profile in (pi5, pi5.under("ncnn")))

    assert (own.precision, ncnn.precision, LatencyModel(pi4.under("ncnn")).precision) == ("fp32", "fp16", "fp32")
    assert ncnn.figure.high is not None
    assert ncnn.figure.high <= 1.5 * ncnn.figure.value
    assert spread(ncnn.figure) < spread(own.figure)
    assert ncnn.figure.provenance == "calibrated"


def test_weights_that_are_inputs_are_constants_for_another_runtime() -> None:
    profile, model = board(calibration(), calibration(runtime="ncnn")), net_model()
    weight = next(iter(model.graph.initializers.values()))
    model.graph.inputs.append(weight)

    open_weights, converted = (LatencyModel(profile.under(name)).estimate(model) for name in (None, "ncnn"))

    assert [notice.code for notice in open_weights.basis.warnings] == ["open-weights"]
    assert converted.basis.warnings == ()
