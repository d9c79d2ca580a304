import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from n2n_edge.cli.profiles import profiles_app
from n2n_edge.devices.registry import load_profile
from n2n_edge.errors import InputError
from tests.latency.made_up import BOARD_TOML, CALIBRATED_TOML


@pytest.fixture(autouse=True)
def plain_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(profiles_app, [str(argument) for argument in arguments])


def row_of(result: Result, name: str) -> str:
    (row,) = [line for line in result.stdout.splitlines() if name in line.replace("│", " ").split()[:1]]
    return row


def test_list_names_every_device_and_how_its_latency_is_had() -> None:
    result = run("list")

    assert result.exit_code == 0, result.output
    pi = load_profile("raspberry-pi-4")
    timed = sum(each.models for each in pi.calibrations if each.quantity == "latency")
    assert f"{timed} timings" in row_of(result, "raspberry-pi-4")
    assert "4 of 4" in row_of(result, "raspberry-pi-4")
    assert "from all boards, by its core" in row_of(result, "cortex-a76")
    assert "measured" in row_of(result, "cpu")
    assert "jetson" in row_of(result, "jetson-orin-nano").split("│")[2]


def test_list_names_the_users_own(tmp_path: Path) -> None:
    assert run("new", "my-own", "--like", "jetson").exit_code == 0

    assert "as jetson-orin-nano, scaled" in row_of(run("list"), "my-own")


def test_list_is_grouped_by_family_and_takes_words() -> None:
    everything = run("list").stdout
    assert everything.index("raspberry-pi-4") < everything.index("rockchip") < everything.index("orange-pi-5")
    assert everything.index("orange-pi-5") < everything.index("snapdragon-855-plus")

    found = run("list", "RK-3588", "a76").stdout
    assert "orange-pi-5-plus" in found
    assert "raspberry" not in found
    nothing = run("list", "no-such-board")
    assert nothing.exit_code == 0
    assert "no device has no-such-board" in nothing.stdout


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
    (mode,) = [line for line in result.stdout.splitlines() if "power mode 15W" in line]
    assert "watts 15" in mode


def test_show_tells_of_calibrations_what_they_rest_on(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_text(CALIBRATED_TOML)

    lines = [line for line in run("show", path).stdout.splitlines() if "calibrated latency" in line]

    assert len(lines) == 2
    for text in ("4 threads", "fp32", "30 models", "onnxruntime 1.20", "5.0%", "0.80 to 1.25", "made up"):
        assert text in lines[1]


def test_show_as_json() -> None:
    document = json.loads(run("show", "raspberry-pi-4", "--json").stdout)

    assert (document["profile"]["name"], document["profile"]["bandwidth_gb_s"]) == ("raspberry-pi-4", 12.8)
    assert "https://" in document["profile"]["sources"]["peak_gflops"]
    for each in document["profile"]["calibrations"]:
        assert each["rates"]
        assert each["source"]


def test_show_an_unknown_device() -> None:
    result = run("show", "jetsen")

    assert isinstance(result.exception, InputError)
    assert "nearest: jetson" in str(result.exception)


def test_new_writes_a_profile_that_is_known_from_then_on(tmp_path: Path) -> None:
    result = run("new", "my-own")

    path = tmp_path / "config" / "n2n-edge" / "profiles" / "my-own.toml"
    assert (result.exit_code, result.stdout) == (0, f"{path}\n")
    assert load_profile("my-own").relative == "raspberry-pi-4"
    assert run("validate", path).stdout == f"{path}: ok, my-own, 0 calibrations\n"
    assert "my-own" in run("show", "my-own").stdout


def test_new_goes_where_it_is_told_and_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"

    assert run("new", "my-own", "--like", "jetson", "--out", path).exit_code == 0
    written = path.read_text()
    again = run("new", "my-own", "--out", path)

    assert isinstance(again.exception, InputError)
    assert str(again.exception).startswith(f"{path}: exists already")
    assert path.read_text() == written


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["My Board"], "My Board: not a name for a profile"),
        (["my-own", "--like", "rasberry-pi-4"], "unknown device 'rasberry-pi-4' (nearest: raspberry-pi-4"),
    ],
)
def test_new_with_a_name_that_can_not_be(arguments: list[str], says: str, tmp_path: Path) -> None:
    result = run("new", *arguments)

    assert isinstance(result.exception, InputError)
    assert says in str(result.exception)
    assert not (tmp_path / "config").exists()


def test_validate_tells_of_each_file_what_it_is(tmp_path: Path) -> None:
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    one.write_text(BOARD_TOML)
    two.write_text(CALIBRATED_TOML)

    result = run("validate", one, two)

    assert result.exit_code == 0
    assert result.stdout == f"{one}: ok, made-up, 0 calibrations\n{two}: ok, made-up, 2 calibrations\n"


def test_validate_refuses_with_line_and_field(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text(BOARD_TOML)
    bad.write_text(BOARD_TOML.replace("cores = 4\n", "cores = 0\n", 1))

    result = run("validate", good, bad)

    assert isinstance(result.exception, InputError)
    assert result.exception.exit_code == 2
    assert str(result.exception).startswith(f"{bad}: line 4: field 'cores': ")


def test_validate_a_file_that_is_not_there(tmp_path: Path) -> None:
    result = run("validate", tmp_path / "nothing.toml")

    assert isinstance(result.exception, InputError)
    assert "nothing.toml" in str(result.exception)


def test_every_shipped_profile_is_valid() -> None:
    files = sorted((Path(__file__).parents[2] / "profiles").glob("*.toml"))

    result = run("validate", *files)

    assert result.exit_code == 0, result.output
    assert len(files) == len(result.stdout.splitlines()) >= 16


def test_a_broken_profile_is_a_warning_in_the_list_and_no_trouble_elsewhere(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    folder = tmp_path / "config" / "n2n-edge" / "profiles"
    folder.mkdir(parents=True)
    (folder / "broken.toml").write_text('name = "broken"\nrelative = "raspberry-pi-4"\ncores = "many"\n')

    code, printed, said = call("profiles", "list")
    assert code == 0
    assert "raspberry-pi-4" in printed
    assert said.startswith(f"warning: left out: {folder / 'broken.toml'}: line ")
    assert call("profiles", "list", "--json")[0] == 0
    assert call("profiles", "show", "raspberry-pi-4")[0] == 0
    assert call("profiles", "show", "broken")[0] == 2
