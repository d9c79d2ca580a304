"""Calibrating a device: what is fitted, and what becomes of the profile's file."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from n2n_edge.calibration.calibrate import calibrate, with_new
from n2n_edge.calibration.own_profiles import (
    ProfileText,
    check_writable,
    new_profile,
    profile_to_calibrate,
    save_calibrations,
)
from n2n_edge.calibration.pack import calibration_pack
from n2n_edge.devices.profile_file import with_calibrations
from n2n_edge.devices.registry import load_profile, read_profile
from n2n_edge.devices.terms import TERMS
from n2n_edge.errors import InputError
from n2n_edge.graph.costs import costs
from n2n_edge.latency.data_sheet import data_sheet_rates
from n2n_edge.latency.kernels import kernels_of
from n2n_edge.latency.model import LatencyModel, input_pixels
from n2n_edge.measure.board import BoardState
from n2n_edge.measure.measurement import ConnectionLostError, MeasurementError
from n2n_edge.measure.messages import Checked, State
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.target import HostTarget
from tests.latency.made_up import (
    BOARD_TOML,
    CALIBRATED_TOML,
    board,
    calibration,
    gpu_board,
    net_model,
    rates,
    read_text,
)

FEW = 24


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of user profiles, which doesn't exist yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "n2n-edge" / "profiles"


# what is written


def test_new_calibrations_go_behind_the_rest_of_the_file_which_stays_as_it_is() -> None:
    text = with_calibrations(BOARD_TOML, [calibration()], "by a test")

    assert text.startswith(BOARD_TOML)
    assert "\n\n# Fitted by a test\n[[calibrations]]\n" in text
    assert read_text(text) == board(calibration())


def test_calibrations_take_the_place_of_those_before() -> None:
    first = with_calibrations(CALIBRATED_TOML, [calibration(threads=1), calibration(threads=4)], "by a test")

    second = with_calibrations(first, [calibration(threads=2)], "by a second test")

    assert second == with_calibrations(BOARD_TOML, [calibration(threads=2)], "by a second test")
    assert with_calibrations(second, [], "") == BOARD_TOML
    assert with_calibrations(BOARD_TOML, [], "") == BOARD_TOML


def test_what_is_written_is_read_as_it_was() -> None:
    strange = calibration(
        runtime='ncnn "20240410" \\ Vulkan, µ', source="https://example.org/a?b=c#d; [[calibrations]]",
        precisions=("fp32", "fp16"), macs=(566528.0, 15470264320.0), input_pixels=(784.0, 50176.0), quantity="energy",
        rates=rates(1e-5, mac_gemm=123456.0, launch_compute=999.9, reduction=3.0), low_ratio=0.5001, high_ratio=2.0,
    )  # fmt: skip

    assert read_text(with_calibrations(BOARD_TOML, [strange, calibration()], "by a test")).calibrations == (
        strange,
        calibration(),
    )


def test_figures_are_written_to_four_places() -> None:
    exact = calibration(rates=rates(1 / 3, mac_gemm=123456.7), median_error=0.0712345, high_ratio=1.23456789)

    (found,) = read_text(with_calibrations(BOARD_TOML, [exact], "by a test")).calibrations

    assert dict(found.rates) == pytest.approx(dict(exact.rates), rel=5e-4)
    assert (found.median_error, found.high_ratio) == pytest.approx((0.0712345, 1.23456789), rel=5e-4)


def test_new_calibrations_replace_those_of_the_same_subject_only() -> None:
    old = [
        calibration(threads=1),
        calibration(threads=4, runtime="onnxruntime 1.18"),
        calibration(threads=4, runtime="ncnn"),
        calibration(threads=4, quantity="energy"),
        calibration(threads=4, precisions=("int8",)),
        calibration(threads=4, measured_on="another-board"),
    ]
    new = calibration(threads=4, runtime="onnxruntime 1.20", models=99)

    assert with_new(board(*old), [new]) == (new, old[0], *old[2:])


def test_a_calibration_is_saved_among_the_users_own_and_comes_before_the_shipped(own_folder: Path) -> None:
    source = profile_to_calibrate("raspberry-pi-4", None)
    known, text = source.profile, source.text
    found = calibration(models=77, measured_on="raspberry-pi-4")

    path = save_calibrations(source, [found])

    assert path == own_folder / "raspberry-pi-4.toml"
    saved = load_profile("raspberry-pi-4")
    assert saved.calibrations == (found, *known.calibrations)
    assert saved.model_copy(update={"calibrations": known.calibrations}) == known
    kept = text[: text.index("[[calibrations]]")].rsplit("# Fitted", 1)[0].rstrip()
    assert path.read_text().startswith(kept)
    assert list(own_folder.iterdir()) == [path]  # nothing half written


def test_saving_twice_keeps_one_of_each(own_folder: Path) -> None:
    for models in (30, 40):
        for threads in (1, 4):
            source = profile_to_calibrate("raspberry-pi-4", None)
            found = calibration(threads=threads, models=models, measured_on="raspberry-pi-4")
            save_calibrations(source, [found])

    own = [each for each in load_profile("raspberry-pi-4").calibrations if each.runtime.startswith("onnxruntime")]
    assert [(each.threads, each.models) for each in own] == [(4, 40), (1, 40)]
    assert (own_folder / "raspberry-pi-4.toml").read_text().count("# Fitted") == 1


# profiles to calibrate


class Board(HostTarget):
    """Stands for a board at the end of a connection."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "ssh://pi@my-board.local:22/tmp"

    def check(self) -> Checked:
        return Checked.model_construct(cpu='A "fast" one', cores=2, memory_mb=900.0, available_memory_mb=500.0)


def test_this_machine_is_meant_unless_a_profile_or_a_board_is_named() -> None:
    source = profile_to_calibrate(None, None)

    assert source.profile.is_host
    assert 'cores = "host"' in source.text


def test_an_unknown_board_gets_a_profile_of_what_it_tells() -> None:
    source = profile_to_calibrate(None, Board())
    profile, text = source.profile, source.text
    named = profile_to_calibrate("my-own", Board()).profile

    assert (profile.name, named.name) == ("my-board-local", "my-own")
    assert (profile.cores, profile.default_threads, profile.memory_mb, profile.usable_memory_mb) == (2, 2, 900, 500)
    assert profile.description == "A fast one, 2 cores, calibrated over ssh"
    assert "assumed" in profile.sources["bandwidth_gb_s"]
    assert read_text(text) == profile


def test_a_board_may_be_a_known_device() -> None:
    assert profile_to_calibrate("rpi4", Board()).profile == load_profile("raspberry-pi-4")


def test_an_unnamed_board_is_known_again(own_folder: Path) -> None:
    for threads in (1, 2):
        source = profile_to_calibrate(None, Board())
        save_calibrations(source, [calibration(threads=threads, measured_on="my-board-local")])

    assert [each.threads for each in load_profile("my-board-local").calibrations] == [2, 1]
    assert len(list(own_folder.iterdir())) == 1


def test_a_profile_is_saved_in_the_file_that_it_came_from(own_folder: Path, tmp_path: Path) -> None:
    own_folder.mkdir(parents=True, exist_ok=True)
    (own_folder / "v2.toml").write_text(BOARD_TOML)
    elsewhere = tmp_path / "elsewhere.toml"
    elsewhere.write_text(BOARD_TOML)

    by_name = save_calibrations(profile_to_calibrate("made-up", None), [calibration(measured_on="made-up")])
    by_path = save_calibrations(profile_to_calibrate(str(elsewhere), None), [calibration(measured_on="made-up")])

    assert (by_name, by_path) == (own_folder / "v2.toml", elsewhere)
    assert len(load_profile("made-up").calibrations) == len(read_profile(elsewhere).calibrations) == 1


def test_a_profile_with_a_mistake_is_named_and_not_replaced(own_folder: Path) -> None:
    own_folder.mkdir(parents=True, exist_ok=True)
    path = own_folder / "my-board-local.toml"
    path.write_text("coress = 4\n")

    with pytest.raises(InputError, match=r"my-board-local\.toml: .*'coress'"):
        profile_to_calibrate(None, Board())
    assert path.read_text() == "coress = 4\n"
    assert load_profile("raspberry-pi-4").name == "raspberry-pi-4"  # other devices are none the worse


def test_a_board_is_not_this_machine() -> None:
    with pytest.raises(InputError, match="profile cpu: that is this machine"):
        profile_to_calibrate("cpu", Board())


def test_a_folder_that_nothing_can_be_written_to_is_told_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be written"):
        check_writable(tmp_path / "file" / "profiles" / "x.toml")
    check_writable(tmp_path / "deep" / "x.toml")


@pytest.mark.parametrize("name", ["My Board", "no/such", "missing.toml"])
def test_a_name_that_no_profile_can_have_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"^(profile {name}: no such profile|{name}: no such profile)"):
        profile_to_calibrate(name, Board())


def test_an_unknown_name_without_a_board_is_refused() -> None:
    with pytest.raises(InputError, match="unknown device 'my-own'"):
        profile_to_calibrate("my-own", None)


# new profiles


def test_a_new_profile_is_a_copy_that_borrows_of_its_model(own_folder: Path) -> None:
    path = new_profile("my-own", "rpi4")

    assert path == own_folder / "my-own.toml"
    mine, like = load_profile("my-own"), load_profile("raspberry-pi-4")
    changes = {"name": "my-own", "aliases": (), "relative": "raspberry-pi-4", "calibrations": ()}
    assert mine == like.model_copy(update=changes)
    lent, figure = LatencyModel(like).estimate(net_model()).figure, LatencyModel(mine).estimate(net_model()).figure
    assert (figure.value, figure.provenance) == (pytest.approx(lent.value), "analytic")
    assert "# 3200 MT/s" in path.read_text()  # remarks are copied, too


def test_a_new_profile_like_this_machine_makes_no_sense() -> None:
    with pytest.raises(InputError, match="like cpu: that is this machine"):
        new_profile("my-own", "cpu")


def test_a_new_profile_like_one_that_borrows_borrows_too() -> None:
    new_profile("my-own", "cortex-a76")

    lent = LatencyModel(load_profile("cortex-a76")).estimate(net_model()).figure
    assert LatencyModel(load_profile("my-own")).estimate(net_model()).figure.value == pytest.approx(lent.value)


def test_a_name_that_is_taken_is_refused(own_folder: Path) -> None:
    with pytest.raises(InputError, match="rpi4: raspberry-pi-4 goes by that name already"):
        new_profile("rpi4", "jetson")
    assert not list(own_folder.glob("*")) if own_folder.exists() else True


def test_a_new_profile_goes_where_it_is_told(tmp_path: Path, own_folder: Path) -> None:
    path = new_profile("my-own", "jetson", tmp_path / "deep" / "mine.toml")

    assert path == tmp_path / "deep" / "mine.toml"
    assert read_profile(path).relative == "jetson-orin-nano"
    assert not own_folder.exists()


def test_a_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("precious")

    with pytest.raises(InputError, match=r"mine\.toml: exists already; give another name"):
        new_profile("my-own", "rpi4", path)

    new_profile("my-own", "rpi4")
    with pytest.raises(InputError, match=r"my-own\.toml: exists already"):
        new_profile("my-own", "jetson")
    assert path.read_text() == "precious"
    assert load_profile("my-own").compute_unit == "cpu"


@pytest.mark.parametrize("name", ["My-Own", "my own", "-x", "x-", 'x"y', "ü", "", "a\\d"])
def test_a_bad_name_for_a_new_profile_is_refused_and_nothing_written(name: str, own_folder: Path) -> None:
    with pytest.raises(InputError, match="not a name for a profile"):
        new_profile(name, "rpi4")

    assert not own_folder.exists()


def test_a_new_profile_like_an_unknown_one() -> None:
    with pytest.raises(InputError, match="unknown device 'rasberry'"):
        new_profile("my-own", "rasberry")


# timing and fitting

Timer = Callable[[ir.Model, BenchOptions], float]
Asked = list[BenchOptions]


@dataclass
class Timed:
    p50_ms: float
    runtime: str = "onnxruntime 9.9"


class MadeUpWorker:
    """Times models by a function of what their bytes hold instead of running them."""

    timer: Timer
    asked: Asked

    def __init__(self, target: HostTarget) -> None:
        self.target = target

    def __enter__(self) -> "MadeUpWorker":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def measure(self, model: bytes, options: BenchOptions) -> Timed:
        self.asked.append(options)
        return Timed(type(self).timer(ir.from_proto(onnx.load_from_string(model)), options))


@pytest.fixture(scope="module")
def few() -> list[tuple[str, ir.Model]]:
    """The models of the pack with the fewest weights: they make shorter tests."""
    return sorted(calibration_pack(), key=lambda item: costs(item[1]).params)[:FEW]


@pytest.fixture
def timed_by(few: list[tuple[str, ir.Model]], monkeypatch: pytest.MonkeyPatch) -> Callable[[Timer], Asked]:
    """Give a function that sets how a few models are timed, and returns a list of what is going to be asked for."""
    module = importlib.import_module("n2n_edge.calibration.calibrate")

    def use(timer: Timer) -> Asked:
        asked: Asked = []
        worker = type("Worker", (MadeUpWorker,), {"timer": staticmethod(timer), "asked": asked})
        monkeypatch.setattr(module, "WarmWorker", worker)
        monkeypatch.setattr(module, "calibration_pack", lambda: iter(few))
        return asked

    return use


SHEET = board(calibration(rates=dict(data_sheet_rates(board()))))
"""A board that is known by its data sheet alone."""

TRUTH = {
    term: 3 * rate * float(np.exp(shift))
    for (term, rate), shift in zip(
        data_sheet_rates(board()).items(), 0.4 * np.random.default_rng(0).standard_normal(len(TERMS)), strict=True
    )
}
"""How long that board really takes."""


def true_ms(model: ir.Model, threads: int = 4) -> float:
    kernels, amounts = kernels_of(model, SHEET.block)
    return float(kernels.total_ns(amounts, TRUTH)[0]) / 1e6 * 3 / (threads**0.5 + 1)


def noisy(noise: float) -> Timer:
    random = np.random.default_rng(0)
    return lambda model, options: true_ms(model, options.threads or 0) * float(np.exp(noise * random.standard_normal()))


def test_a_calibration_finds_how_fast_a_board_really_is(timed_by: Callable[[Timer], Asked]) -> None:
    asked = timed_by(noisy(0.03))
    said: list[str] = []

    run = calibrate(HostTarget(), SHEET, [1, 4], say=said.append)

    assert [each.threads for each in run.calibrations] == [1, 4]
    assert run.failures == ()
    assert len(run.timed) == len(said) // 3 == len(asked) // 3 == 2 * FEW
    assert sorted(options.threads or 0 for options in asked) == [1] * 3 * FEW + [4] * 3 * FEW
    assert {options.providers for options in asked} == {()}
    for each in run.calibrations:
        before, now = run.errors(each.threads)
        assert now < 0.15
        assert before > 2 * now
        assert each.median_error == pytest.approx(now, abs=0.001)
        assert each.median_error <= each.p90_error < 0.4
        assert 0.5 < each.low_ratio < 1 < each.high_ratio < 2
        assert (each.measured_on, each.runtime, each.models) == ("made-up", "onnxruntime 9.9", FEW)
        assert (each.quantity, each.precisions) == ("latency", ("fp32",))
        assert set(each.rates) == set(TERMS)

        calibrated = board(each)
        for model in (net_model(48, 40), net_model(96, 56)):
            figure = LatencyModel(calibrated, each.threads).estimate(model).figure
            assert figure.provenance == "calibrated"
            assert figure.value == pytest.approx(true_ms(model, each.threads), rel=0.25)


def test_rows_tell_what_was_measured_and_predicted_before_and_after(
    timed_by: Callable[[Timer], Asked], few: list[tuple[str, ir.Model]]
) -> None:
    timed_by(noisy(0.0))

    run = calibrate(HostTarget(), SHEET, [4])

    assert [row.name for row in run.timed] == [name for name, _ in few]
    for row, (_, model) in zip(run.timed, few, strict=True):
        kernels, amounts = kernels_of(model, SHEET.block)
        assert row.measured_ms == pytest.approx(true_ms(model))
        assert row.before_ms == pytest.approx(float(kernels.total_ns(amounts, SHEET.calibrations[0].rates)[0]) / 1e6)
    (found,) = run.calibrations
    macs = [float(kernels_of(model)[1].macs[0]) for _, model in few]
    pixels = [input_pixels(model) for _, model in few]
    assert found.macs == (min(macs), max(macs))
    assert found.input_pixels == (min(pixels), max(pixels))


def test_a_disturbed_pass_counts_for_nothing_and_models_that_fail_are_left_out(
    timed_by: Callable[[Timer], Asked], few: list[tuple[str, ir.Model]]
) -> None:
    def timer(model: ir.Model, options: BenchOptions) -> float:
        if model.graph.name == "decoder":
            raise MeasurementError("the board ran out of memory")
        return true_ms(model) * (10.0 if len(asked) <= FEW else 1.0)  # all of the first pass is disturbed

    asked = timed_by(timer)

    run = calibrate(HostTarget(), SHEET, [4])

    failed = [name for name, model in few if model.graph.name == "decoder"]
    assert failed
    assert sorted(run.failures) == sorted(f"{name}: the board ran out of memory" for name in failed)
    assert len(asked) == 3 * FEW - 2 * len(failed)  # they aren't tried again
    assert run.calibrations[0].models == len(run.timed) == FEW - len(failed)
    assert not {row.name for row in run.timed} & set(failed)
    graphs = dict(few)
    for row in run.timed:
        assert row.measured_ms == pytest.approx(true_ms(graphs[row.name]))


def test_one_disturbed_model_does_not_spoil_the_rest(timed_by: Callable[[Timer], Asked]) -> None:
    timed_by(lambda model, options: true_ms(model) * (5.0 if model.graph.name == "fire" else 1.0))

    run = calibrate(HostTarget(), SHEET, [4])

    off = {row.name: abs(np.log(row.after_ms / row.measured_ms)) for row in run.timed}
    assert min(error for name, error in off.items() if name.startswith("fire")) > 1
    assert np.median([error for name, error in off.items() if not name.startswith("fire")]) < 0.15


def test_too_few_models_are_an_error_that_tells_why(timed_by: Callable[[Timer], Asked]) -> None:
    def timer(model: ir.Model, options: BenchOptions) -> float:
        if model.graph.name not in ("plain", "vgg"):
            return true_ms(model)
        raise MeasurementError("killed by signal 9")

    timed_by(timer)

    with pytest.raises(MeasurementError, match=r"only \d+ models ran with 4 threads, 20 are needed; .*signal 9"):
        calibrate(HostTarget(), SHEET, [4])


def test_a_board_on_which_nothing_runs_is_given_up(timed_by: Callable[[Timer], Asked]) -> None:
    def timer(model: ir.Model, options: BenchOptions) -> float:
        raise MeasurementError("killed by signal 9")

    asked = timed_by(timer)

    with pytest.raises(MeasurementError, match=r"9 models failed, the last one by: killed by signal 9"):
        calibrate(HostTarget(), SHEET, [4])
    assert len(asked) == 9


def test_a_board_that_throttles_is_not_calibrated(timed_by: Callable[[Timer], Asked]) -> None:
    asked = timed_by(noisy(0.0))

    class Hot(HostTarget):
        def state(self) -> BoardState:
            return BoardState.read(State(clocks=[], millidegrees=[], tools={"get_throttled": "throttled=0x4"}))

    with pytest.raises(MeasurementError, match="device calibrate: void"):
        calibrate(Hot(), SHEET, [4])
    assert asked == []


def test_when_time_is_up_as_many_models_as_are_needed_do(timed_by: Callable[[Timer], Asked]) -> None:
    asked = timed_by(noisy(0.0))

    run = calibrate(HostTarget(), SHEET, [1, 4], minutes=1e-9)

    assert len(asked) == len(run.timed) == 40
    assert {each.models for each in run.calibrations} == {20}


def test_a_lost_connection_ends_it(timed_by: Callable[[Timer], Asked]) -> None:
    def timer(model: ir.Model, options: BenchOptions) -> float:
        raise ConnectionLostError("the board is gone")

    asked = timed_by(timer)

    with pytest.raises(ConnectionLostError, match="the board is gone"):
        calibrate(HostTarget(), SHEET, [4])
    assert len(asked) == 2  # once more after connecting again


@pytest.mark.parametrize("threads", [[0], [1, 5], [-1]])
def test_threads_that_the_profile_does_not_have_are_refused_before_anything_runs(
    timed_by: Callable[[Timer], Asked], threads: list[int]
) -> None:
    asked = timed_by(noisy(0.0))

    with pytest.raises(InputError, match=f"threads {threads[-1]}: made-up has 4 cores; give 1 to 4"):
        calibrate(HostTarget(), SHEET, threads)
    assert asked == []


def test_a_gpu_is_calibrated_on_its_own_providers(timed_by: Callable[[Timer], Asked]) -> None:
    asked = timed_by(noisy(0.0))
    profile = gpu_board(calibration(rates=dict(data_sheet_rates(gpu_board()))))

    run = calibrate(HostTarget(), profile, [4])

    assert {options.providers for options in asked} == {("CUDAExecutionProvider",)}
    assert run.errors(4)[1] < run.errors(4)[0]


def test_what_was_found_can_be_saved_and_loaded(timed_by: Callable[[Timer], Asked], own_folder: Path) -> None:
    timed_by(noisy(0.03))
    guess = calibration(runtime="ncnn", rates=dict(SHEET.calibrations[0].rates))
    text = with_calibrations(BOARD_TOML, [guess], "by a test")
    profile = read_text(text)

    run = calibrate(HostTarget(), profile, [4])
    path = save_calibrations(ProfileText(profile, text, own_folder / "made-up.toml"), run.calibrations)

    saved = load_profile("made-up")
    assert path == own_folder / "made-up.toml"
    assert path.read_text().startswith(BOARD_TOML)
    assert [each.runtime for each in saved.calibrations] == ["onnxruntime 9.9", "ncnn"]
    assert dict(saved.calibrations[0].rates) == pytest.approx(dict(run.calibrations[0].rates), rel=1e-3)
    model = net_model()
    found = LatencyModel(saved).estimate(model).figure
    assert (found.provenance, found.n) == ("calibrated", FEW)
    assert found.value == pytest.approx(true_ms(model), rel=0.25)
