import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from n2n_edge.cli.profiles import profiles_app
from n2n_edge.errors import InputError


@pytest.fixture(autouse=True)
def plain_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(profiles_app, list(arguments))


def test_list_names_every_device_and_how_its_latency_is_had() -> None:
    result = run("list")

    assert result.exit_code == 0, result.output
    (board,) = [line for line in result.stdout.splitlines() if "raspberry-pi-4" in line]
    (host,) = [line for line in result.stdout.splitlines() if "cpu" in line and "host" in line]
    assert "analytic" in board
    assert "measured" in host
    assert "jetson" in result.stdout


def test_list_as_json() -> None:
    document = json.loads(run("list", "--json").stdout)

    assert document["schema_version"] == 1
    assert {"cpu", "jetson-orin-nano", "raspberry-pi-4"} <= {profile["name"] for profile in document["profiles"]}


def test_show_takes_an_alias_and_names_sources() -> None:
    result = run("show", "jetson")

    assert result.exit_code == 0, result.output
    assert "jetson-orin-nano" in result.stdout
    (peak,) = [line for line in result.stdout.splitlines() if "peak_gflops" in line]
    assert "1280" in peak
    assert "data sheet" in peak


def test_show_as_json() -> None:
    document = json.loads(run("show", "raspberry-pi-4", "--json").stdout)

    assert (document["profile"]["name"], document["profile"]["bandwidth_gb_s"]) == ("raspberry-pi-4", 12.8)
    assert "https://" in document["profile"]["sources"]["peak_gflops"]


def test_show_an_unknown_device() -> None:
    result = run("show", "jetsen")

    assert isinstance(result.exception, InputError)
    assert "nearest: jetson" in str(result.exception)
