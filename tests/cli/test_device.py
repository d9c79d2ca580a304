import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from n2n_edge.cli.device import device_app
from n2n_edge.cli.predict import predict
from n2n_edge.devices.registry import read_profile
from n2n_edge.errors import InputError
from n2n_edge.measure.board import BoardState
from n2n_edge.measure.messages import Checked, State, parse
from n2n_edge.measure.readiness import readiness
from n2n_edge.measure.target import HostTarget
from tests.measure.small_models import write_conv_model
from tests.sshd import Server

app = typer.Typer()
app.add_typer(device_app, name="device")

BARE = {
    "cpu": "Raspberry Pi Zero 2 W Rev 1.0",
    "cores": 4,
    "logical_cpus": 4,
    "memory_mb": 437,
    "available_memory_mb": 120,
    "machine": "aarch64",
    "os": "Linux 6.6.31",
    "python": "3.11.2",
    "executable": "/usr/bin/python3",
    "numpy": "1.24.2",
    "onnxruntime": None,
    "onnxruntime_error": "",
    "providers": [],
    "folder": "/tmp",
    "free_disk_mb": 60,
}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["device", *arguments])


def test_this_host_is_ready() -> None:
    result = run("check")

    assert result.exit_code == 0, result.output
    assert "onnxruntime" in result.stdout
    assert "ready: models can be timed here" in result.stdout


def test_json_is_one_document() -> None:
    document = json.loads(run("check", "--json").stdout)

    assert (document["schema_version"], document["target"], document["ready"]) == (1, "host", True)
    assert document["found"]["numpy"]
    assert document["missing"] == []


def test_what_is_missing_comes_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    throttled = {"clocks": [], "millidegrees": [], "tools": {"get_throttled": "throttled=0x4"}}
    monkeypatch.setattr(HostTarget, "check", lambda self: parse(Checked, BARE))
    monkeypatch.setattr(HostTarget, "state", lambda self: BoardState.read(parse(State, throttled)))

    result = run("check")

    assert result.exit_code == 3
    assert "missing: onnxruntime; install it there with `/usr/bin/python3 -m pip install onnxruntime`" in result.stdout
    assert "warning: the board is throttled now" in result.stdout
    assert "warning: only 60 MB are free in /tmp" in result.stdout
    assert "warning: only 120 MB of memory are available" in result.stdout
    assert "not ready" in result.stdout


def test_an_old_python_and_a_broken_package_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {**BARE, "python": "3.7.3", "onnxruntime_error": "ImportError: libgomp.so.1: cannot open"}
    monkeypatch.setattr(HostTarget, "check", lambda self: parse(Checked, found))

    problems = readiness(HostTarget()).missing

    assert problems[0].what == "Python 3.7.3 is older than 3.8"
    assert "can't be imported (ImportError: libgomp" in problems[1].what


def test_a_board_over_ssh(server: Server) -> None:
    result = run("check", server.url())

    assert result.exit_code == 0, result.output
    assert "ready: models can be timed here" in result.stdout
    assert server.left_behind() == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give either ssh://user@board or --host"),
        (["ssh://board", "--host"], "give either ssh://user@board or --host"),
        (["board"], "board: not a board; give ssh://user@board, or --host"),
        (["host"], "host: not a board; give ssh://user@board, or --host"),
        (["--host", "--minutes", "0"], "--minutes 0: must be a number above 0"),
        (["--host", "--minutes", "-1"], "--minutes -1: must be a number above 0"),
        (["--host", "--minutes", "nan"], "--minutes nan: must be a number above 0"),
        (["--host", "--threads", "many"], "--threads many: not numbers of threads; give such as 1,4"),
        (["--host", "--threads", "1,"], "--threads 1,: not numbers of threads"),
        (["--host", "--threads", "0"], "--threads 0: not numbers of threads"),
        (["--host", "--threads", "-1"], "--threads -1: not numbers of threads"),
        (["--host", "--threads", "4096"], "--threads 4096: cpu has "),
        (["--host", "--profile", "rasberry-pi-4"], "unknown device 'rasberry-pi-4' (nearest: raspberry-pi-4"),
        (["--host", "--profile", "no.toml"], "no.toml: no such profile file"),
        (["ssh://-oProxyCommand=x"], "ssh://[user@]host"),
    ],
)
def test_a_calibration_that_can_not_be_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    result = run("calibrate", *arguments)

    assert isinstance(result.exception, InputError), result.output
    assert says in result.exception.on_command_line()
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_calibration_over_ssh_that_has_more_threads_than_the_profile(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    result = run("calibrate", server.url(), "--profile", "raspberry-pi-4", "--threads", "1,8")

    assert isinstance(result.exception, InputError)
    assert "threads 8: raspberry-pi-4 has 4 cores" in str(result.exception)
    assert not (tmp_path / "config").exists()
    assert server.left_behind() == []


@pytest.mark.slow
def test_a_board_is_calibrated_over_ssh_and_predicted_from_then_on(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    model = write_conv_model(tmp_path / "small.onnx", 32, 64)

    def predicted() -> dict[str, Any]:
        app = typer.Typer()
        app.command()(predict)
        result = CliRunner().invoke(app, [str(model), "--device", "raspberry-pi-4", "--threads", "1", "--json"])
        assert result.exit_code == 0, result.output
        document: dict[str, Any] = json.loads(result.stdout)
        return document

    before = predicted()
    result = run("calibrate", server.url(), "--minutes", "1", "--threads", "1", "--profile", "raspberry-pi-4", "--json")
    after = predicted()

    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    path = tmp_path / "config" / "n2n-edge" / "profiles" / "raspberry-pi-4.toml"
    assert (document["schema_version"], document["profile"], document["file"]) == (1, "raspberry-pi-4", str(path))
    (row,) = document["calibrations"]
    assert len(document["models"]) == row["models"] >= 20
    assert row["median_error"] < row["median_error_before"]  # this machine is no Raspberry Pi
    saved = read_profile(path)
    (found,) = [each for each in saved.calibrations if each.runtime.startswith("onnxruntime")]
    assert (found.measured_on, found.threads, found.models) == ("raspberry-pi-4", 1, row["models"])
    assert len(saved.calibrations) > 1  # what shipped is kept
    assert before["evidence"]["runtime"] == "ncnn"
    assert after["evidence"]["runtime"] == found.runtime
    assert after["evidence"]["source"].startswith("n2n-edge device calibrate")
    assert (after["latency_ms"]["provenance"], after["latency_ms"]["n"]) == ("calibrated", found.models)
    assert after["latency_ms"]["value"] != before["latency_ms"]["value"]
    assert server.left_behind() == []
