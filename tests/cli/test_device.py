import json

import pytest
import typer
from typer.testing import CliRunner, Result

from n2n_edge.cli.device import device_app
from n2n_edge.measure import BoardState, HostTarget
from n2n_edge.measure.readiness import readiness
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
    "onnxruntime_error": "ModuleNotFoundError: No module named 'onnxruntime'",
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
    monkeypatch.setattr(HostTarget, "check", lambda self: BARE)
    monkeypatch.setattr(HostTarget, "state", lambda self: BoardState.read(throttled))

    result = run("check")

    assert result.exit_code == 3
    assert "missing: onnxruntime; install it there with `/usr/bin/python3 -m pip install onnxruntime`" in result.stdout
    assert "warning: the board is throttled now" in result.stdout
    assert "warning: only 60 MB are free in /tmp" in result.stdout
    assert "warning: only 120 MB of memory are available" in result.stdout
    assert "not ready" in result.stdout


def test_an_old_python_and_a_broken_package_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {**BARE, "python": "3.7.3", "onnxruntime_error": "ImportError: libgomp.so.1: cannot open"}
    monkeypatch.setattr(HostTarget, "check", lambda self: found)

    problems = readiness(HostTarget()).missing

    assert problems[0].what == "Python 3.7.3 is older than 3.8"
    assert "can't be imported (ImportError: libgomp" in problems[1].what


def test_a_board_over_ssh(server: Server) -> None:
    result = run("check", server.url())

    assert result.exit_code == 0, result.output
    assert "ready: models can be timed here" in result.stdout
    assert server.left_behind() == []
