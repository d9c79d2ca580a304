"""A handful of timings of a board: what they change, and how sure they make a prediction."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from typer.testing import CliRunner

from n2n_edge.calibration.pack import calibration_pack
from n2n_edge.calibration.timings import Timing, parse_timing, with_timings
from n2n_edge.cli.app import app
from n2n_edge.devices.profile import Profile
from n2n_edge.devices.registry import load_profile
from n2n_edge.errors import InputError
from n2n_edge.graph.load import save_model
from n2n_edge.latency.model import LatencyModel

PACK = dict(calibration_pack())
NAMES = list(PACK)
HELD_OUT = NAMES[-1]
SPREAD = NAMES[: -1 : len(NAMES) // 10][:10]


def ratio(profile: Profile, model: ir.Model) -> tuple[float, float]:
    figure = LatencyModel(profile).estimate(model).figure
    assert figure.low is not None
    assert figure.high is not None
    return figure.value, figure.high / figure.low


def timings(profile: Profile, factor: float, count: int) -> list[Timing]:
    """Timings of a board that takes `factor` times as long as predicted, of networks of all kinds."""
    known = LatencyModel(profile)
    return [Timing(PACK[name], known.estimate(PACK[name]).figure.value * factor) for name in SPREAD[:count]]


@pytest.mark.parametrize("name", ["cortex-a73", "raspberry-pi-4"])
def test_timings_move_a_prediction_and_narrow_it(name: str) -> None:
    profile = load_profile(name)
    before, wide = ratio(profile, PACK[HELD_OUT])

    one, narrower = ratio(with_timings(profile, timings(profile, 1.5, 1)), PACK[HELD_OUT])
    known = with_timings(profile, timings(profile, 1.5, 10))
    ten, narrowest = ratio(known, PACK[HELD_OUT])
    moved = [ratio(known, PACK[name])[0] / ratio(profile, PACK[name])[0] for name in NAMES if name not in SPREAD]

    assert before < one < 1.5 * before * 1.01
    # unlike those that were timed, it follows less: more so where a board's own timings count as well
    assert ten / before == pytest.approx(1.5, rel=0.06 if name == "cortex-a73" else 0.1)
    assert ten / before < 1.5 * 1.01
    assert np.median(moved) == pytest.approx(1.5, rel=0.06)
    assert narrowest < narrower
    if name == "cortex-a73":  # no board of its own: a single timing says much
        assert narrower < wide


def test_what_rests_on_timings_says_so() -> None:
    profile = with_timings(load_profile("cortex-a73"), timings(load_profile("cortex-a73"), 1.2, 3))

    estimate = LatencyModel(profile).estimate(PACK[HELD_OUT])

    assert estimate.figure.provenance == "calibrated"
    assert estimate.basis.evidence.models == 3
    assert "--measured" in estimate.basis.evidence.source


def test_predict_takes_timings(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save_model(PACK[HELD_OUT], path)
    expected = LatencyModel(load_profile("cortex-a73")).estimate(PACK[HELD_OUT]).figure.value

    result = CliRunner().invoke(
        app, ["predict", str(path), "--device", "cortex-a73", "--measured", f"{path}={expected * 2}ms", "--json"]
    )

    assert result.exit_code == 0, result.output
    assert '"provenance": "calibrated"' in result.output


@pytest.mark.parametrize("text", ["model.onnx", "model.onnx=12", "model.onnx=0ms", "=3ms", "missing.onnx=3ms"])
def test_a_timing_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_timing(text)


def test_calibrate_writes_timings_into_the_users_own_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    path = tmp_path / "model.onnx"
    save_model(PACK[HELD_OUT], path)

    result = CliRunner().invoke(
        app, ["device", "calibrate", "--profile", "cortex-a73", "--measured", f"{path}=20 ms", "--json"]
    )

    assert result.exit_code == 0, result.output
    assert load_profile("cortex-a73").calibrations[0].models == 1
