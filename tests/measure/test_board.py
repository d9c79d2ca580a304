"""Board state from recorded outputs of the boards' own tools, and from files of sysfs."""

from pathlib import Path
from typing import Any

import pytest

from n2n_edge.measure.board import BoardState, parse_throttled, refuse_throttled, state_warnings
from n2n_edge.measure.measurement import MeasurementError
from n2n_edge.measure.messages import State, parse
from n2n_edge.measure.worker.energy import Energy, power_rails
from n2n_edge.measure.worker.state import board_state, cpu_mhz

JETSON_CLOCKS = """SOC family:tegra194  Machine:NVIDIA Jetson Xavier NX Developer Kit
Online CPUs: 0-3
cpu0: Online=1 Governor=schedutil MinFreq={least} MaxFreq=1907200 CurrentFreq=1190400 IdleStates: C1=1 c6=1
cpu1: Online=1 Governor=schedutil MinFreq={least} MaxFreq=1907200 CurrentFreq=1190400 IdleStates: C1=1 c6=1
cpu4: Online=0 Governor=schedutil MinFreq=1190400 MaxFreq=1907200 CurrentFreq=1190400 IdleStates: C1=1 c6=1
GPU MinFreq=114750000 MaxFreq=1109250000 CurrentFreq=114750000
NV Power Mode: MODE_15W_6CORE
"""


def state(clocks: list[dict[str, Any]] | None = None, **tools: str) -> BoardState:
    return BoardState.read(parse(State, {"clocks": clocks or [], "millidegrees": [48312.0, 51000.0], "tools": tools}))


def put(path: Path, text: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("text", "now", "since_start"),
    [
        ("throttled=0x0\n", (), ()),
        ("throttled=0x50000\n", (), ("under-voltage", "throttled")),
        ("throttled=0x50005\n", ("under-voltage", "throttled"), ("under-voltage", "throttled")),
        ("throttled=0x60008\n", ("at its soft temperature limit",), ("the clock is capped", "throttled")),
        ("VCHI initialization failed\n", (), ()),
    ],
)  # fmt: skip
def test_throttle_bits(text: str, now: tuple[str, ...], since_start: tuple[str, ...]) -> None:
    assert parse_throttled(text) == (now, since_start)


def test_a_raspberry_pi() -> None:
    clocks = [{"cpu": f"cpu{n}", "governor": "ondemand", "khz": 600000.0, "max_khz": 1500000.0} for n in range(4)]

    found = state(clocks, get_throttled="throttled=0x0\n", measure_clock="frequency(48)=1500398464\n")

    assert (found.governor, found.max_clock_mhz, found.temperature_c) == ("ondemand", 1500.0, 51.0)
    assert found.clock_mhz == pytest.approx(1500.398464)
    assert found.tells_throttling
    assert found.throttled == ()
    assert [(one.code, "is ondemand" in one.text) for one in found.warnings()] == [("governor", True)]


@pytest.mark.parametrize(("least", "locked"), [("1907200", True), ("1190400", False)])
def test_a_jetson(least: str, locked: bool) -> None:
    text = JETSON_CLOCKS.format(least=least)

    found = state(nvpmodel="NV Power Mode: MODE_15W_6CORE\n2\n", jetson_clocks=text)

    assert (found.power_mode, found.clocks_locked) == ("MODE_15W_6CORE", locked)
    assert [one.code for one in found.warnings()] == ([] if locked else ["clocks-unlocked"])
    assert not found.tells_throttling


def test_a_machine_that_tells_nothing() -> None:
    found = BoardState.read(parse(State, {"clocks": [], "millidegrees": [], "tools": {}}))

    assert (found.governor, found.clock_mhz, found.temperature_c, found.power_mode) == (None, None, None, None)
    assert found.warnings() == ()
    assert found.to_json() == {"throttled": [], "was_throttled": []}


def test_a_run_under_throttling_is_void() -> None:
    with pytest.raises(MeasurementError, match=r"m\.onnx: void, board is under-voltage now"):
        refuse_throttled("m.onnx", "board", state(get_throttled="throttled=0x1"))
    refuse_throttled("m.onnx", "board", state(get_throttled="throttled=0x10000"))


def test_so_is_one_that_was_throttled_meanwhile() -> None:
    before, after = state(get_throttled="throttled=0x10000"), state(get_throttled="throttled=0x50000")

    with pytest.raises(MeasurementError, match="void, board was throttled meanwhile"):
        refuse_throttled("m.onnx", "board", after, before)
    refuse_throttled("m.onnx", "board", after, after)


def test_changes_of_clock_and_power_mode_are_named() -> None:
    before, after = state(nvpmodel="NV Power Mode: MAXN\n0\n"), state(nvpmodel="NV Power Mode: 15W\n2\n")

    assert [(one.code, str(one)) for one in state_warnings(before, after, [1500.0, None, 1200.0])] == [
        ("clock-changed", "the clock changed meanwhile, between 1200 and 1500 MHz"),
        ("power-mode-changed", "the power mode changed meanwhile, from MAXN to 15W"),
    ]
    assert state_warnings(before, before, [1500.0, 1490.0]) == []


def test_sysfs_is_read(tmp_path: Path) -> None:
    for cpu in (0, 1):
        folder = tmp_path / f"devices/system/cpu/cpu{cpu}/cpufreq"
        put(folder / "scaling_governor", "performance")
        put(folder / "scaling_cur_freq", 1_500_000)
        put(folder / "scaling_max_freq", 1_800_000)
    put(tmp_path / "class/thermal/thermal_zone0/temp", 61_500)
    put(tmp_path / "class/thermal/thermal_zone1/temp", "broken")

    found = BoardState.read(parse(State, board_state(tmp_path)))

    assert (found.governor, found.clock_mhz, found.max_clock_mhz) == ("performance", 1500.0, 1800.0)
    assert found.temperature_c == 61.5
    assert found.warnings() == ()
    assert cpu_mhz(tmp_path) == 1500.0


def test_energy_by_rapl_even_when_its_counter_starts_again(tmp_path: Path) -> None:
    package = tmp_path / "class/powercap/intel-rapl:0"
    put(package / "energy_uj", 9_000_000)
    put(package / "max_energy_range_uj", 10_000_000)
    put(tmp_path / "class/powercap/intel-rapl:0:0/energy_uj", 5_000_000)  # a part of the package
    put(tmp_path / "class/powercap/intel-rapl:1/energy_uj", 1_000_000)  # the platform, which contains the package
    put(tmp_path / "class/powercap/intel-rapl:1/name", "psys")

    with Energy(tmp_path) as energy:
        assert (energy.available, energy.source) == (True, "RAPL")
        put(package / "energy_uj", 9_500_000)
        assert energy.read() == pytest.approx(0.5)
        put(package / "energy_uj", 1_000_000)
        assert energy.read() == pytest.approx(2.0)


def test_energy_by_the_sensors_of_a_jetson(tmp_path: Path) -> None:
    sensor = tmp_path / "bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
    put(sensor / "in1_label", "VDD_IN")
    put(sensor / "in1_input", 5000)  # mV
    put(sensor / "curr1_input", 2000)  # mA
    put(sensor / "in2_label", "VDD_CPU_GPU_CV")

    with Energy(tmp_path) as energy:
        start = energy.time
        assert (energy.available, energy.source) == (True, "INA")
        joules = energy.read()
        assert joules == pytest.approx(10 * (energy.time - start), rel=0.01)


def test_energy_by_the_sensors_of_an_older_jetson(tmp_path: Path) -> None:
    sensor = tmp_path / "bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    put(sensor / "rail_name_0", "POM_5V_IN")
    put(sensor / "in_power0_input", 3100)  # mW

    assert power_rails(tmp_path) == [(sensor / "in_power0_input", None)]


def test_no_sensor_no_energy(tmp_path: Path) -> None:
    with Energy(tmp_path) as energy:
        assert (energy.available, energy.source) == (False, None)
