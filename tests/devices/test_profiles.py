import re
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from n2n_edge.calibration.own_profiles import new_profile
from n2n_edge.devices.folders import profile_names
from n2n_edge.devices.profile import Profile
from n2n_edge.devices.registry import list_profiles, load_profile, profile_errors, read_profile
from n2n_edge.errors import InputError
from n2n_edge.latency.model import LatencyModel
from tests.latency.made_up import BOARD_TOML, CALIBRATED_TOML, board, net_model, read_text, replaced

SHIPPED = (
    "cpu", "raspberry-pi-zero-2-w", "raspberry-pi-3b-plus", "raspberry-pi-4", "raspberry-pi-5", "jetson-nano",
    "jetson-tx2", "jetson-xavier-nx", "jetson-agx-xavier", "jetson-orin-nano", "jetson-orin-nx", "jetson-agx-orin",
    "coral-dev-board", "cortex-a53", "cortex-a72", "cortex-a76",
)  # fmt: skip

FILES = sorted(path.stem for path in (Path(__file__).parents[2] / "profiles").glob("*.toml"))


def edited(folder: Path, edits: dict[str, str], name: str = "board.toml") -> Path:
    path = folder / name
    path.write_text(replaced(BOARD_TOML, edits))
    return path


def figures_of(profile: Profile) -> list[str]:
    """The fields that a profile gives a number for, and what its power modes limit."""
    found = []
    for field in sorted(profile.model_fields_set):
        value = getattr(profile, field)
        if (isinstance(value, int | float) and not isinstance(value, bool)) or field == "power_modes":
            found.append(field)
    return found


@pytest.mark.parametrize("name", SHIPPED)
def test_every_promised_profile_loads_by_its_name(name: str) -> None:
    assert load_profile(name).name == name


def test_the_shipped_profiles() -> None:
    profiles = {profile.name: profile for profile in list_profiles()}

    assert set(SHIPPED) <= set(profiles)
    assert sorted(profiles) == FILES
    assert [name for name, profile in profiles.items() if profile.is_host] == ["cpu"]
    assert (profiles["raspberry-pi-4"].cores, profiles["raspberry-pi-4"].peak_gflops) == (4, 57.6)
    assert profiles["jetson-orin-nano"] == load_profile("jetson")
    assert load_profile("jetson").providers == (
        "TensorrtExecutionProvider",
        "CUDAExecutionProvider",
        "CPUExecutionProvider",
    )


@pytest.mark.parametrize("name", FILES)
def test_every_figure_of_a_shipped_profile_has_a_source(name: str) -> None:
    profile = load_profile(name)

    assert len(figures_of(profile)) >= 8
    assert [field for field in figures_of(profile) if field not in profile.sources] == []
    assert [each for each in profile.calibrations if not each.source] == []


@pytest.mark.parametrize("name", FILES)
def test_a_shipped_relative_exists_and_computes_on_the_same_unit(name: str) -> None:
    profile = load_profile(name)
    if profile.relative is None:
        assert profile.calibrations or profile.core or profile.is_host
        return
    relative = load_profile(profile.relative)

    assert relative.compute_unit == profile.compute_unit
    assert any(each.quantity == "latency" for each in relative.calibrations)


@pytest.mark.parametrize("name", FILES)
def test_every_shipped_board_predicts_a_small_model(name: str) -> None:
    profile = load_profile(name)

    found = LatencyModel(profile).estimate(net_model())

    assert found.figure.low is not None
    assert found.figure.high is not None
    assert 0 < found.figure.low < found.figure.value < found.figure.high
    assert found.figure.provenance in ("calibrated", "analytic")
    assert found.fits or profile.is_host


def test_the_host_profile_is_this_machine() -> None:
    profile = load_profile("cpu")

    assert 1 <= profile.default_threads <= profile.cores <= (psutil.cpu_count() or 1)
    assert profile.memory_mb == pytest.approx(psutil.virtual_memory().total / 1e6, rel=0.01)
    assert 0 < profile.usable_memory_mb <= profile.memory_mb
    assert profile.peak_gflops > 0
    assert profile.block in (8, 16)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        # keys at the top
        ("cores = 4\n", "cores = 4\nturbo = true  # here\n", "field 'turbo': unknown key; remove it"),
        ("cores = 4\n", "cores = -4  # here\n", "field 'cores': input should be greater than or equal to 1"),
        ("cores = 4\n", 'cores = "4"  # here\n', "field 'cores': input should be a valid integer"),
        ("= 48.0\n", "= 0.0  # here\n", "field 'peak_gflops': input should be greater than 0"),
        ("= 48.0\n", "= -1.0  # here\n", "field 'peak_gflops': input should be greater than 0"),
        ("= 48.0\n", "= nan  # here\n", "field 'peak_gflops': input should be a finite number"),
        ('["CPUExecutionProvider"]', "[]  # here", "field 'providers': tuple should have at least 1 item"),
        ('["CPUExecutionProvider"]', '["CPU"]  # here', "field 'providers.0': string should match pattern"),
        ('name = "made-up"', 'name = "Made Up"  # here', "field 'name': string should match pattern"),
        ("cores = 4\n", "", "field 'cores': missing"),
        # one key against another
        (
            "default_threads = 4\n",
            "default_threads = 5  # here\n",
            "field 'default_threads': 5 is more than cores (4)",
        ),
        ("= 3500.0", "= 9000.0  # here", "field 'usable_memory_mb': 9000 is more than memory_mb (4000)"),
        ('relative = "raspberry-pi-4"', 'relative = "made-up"  # here', "field 'relative': 'made-up' is the device"),
        ('relative = "raspberry-pi-4"', 'relative = "mu2"  # here', "field 'relative': 'mu2' is the device itself"),
        ('["CPUExecutionProvider"]\ncompute_unit = "cpu"', '["CPUExecutionProvider"]  # here\ncompute_unit = "gpu"',
         "field 'providers': compute_unit is 'gpu'"),
        ('["mu1", "mu2"]', '["mu1", "mu1"]  # here', "field 'aliases': a value is named twice"),
        ('["mu1", "mu2"]', '["made-up"]  # here', "field 'aliases': 'made-up' is the name itself"),
        # in tables
        ("watts = 5\ncores = 2\n", "watts = 5\ncores = 8  # here\n",
         "field 'power_modes.low.cores': 8 is more than cores (4)"),
        ("watts = 5\n", "watts = -5  # here\n", "field 'power_modes.low.watts': input should be greater than 0"),
        ("watts = 5\n", "watts = 5\nvolts = 12  # here\n", "field 'power_modes.low.volts': unknown key"),
        ("[sources]\n", '[sources]\nspeed = "x"  # here\n', "field 'sources.speed': there is no field of this name"),
        ('[sources]\nmemory_mb = "made up"\n', "[sources]  # here\n",
         "field 'sources.memory_mb': missing, say where memory_mb comes from"),
        ('peak_gflops = "made up"', 'peak_gflops = ""  # here', "field 'sources.peak_gflops': string should have at"),
        # in the second of two calibrations
        ("threads = 4\nmeasured_on", "threads = 8  # here\nmeasured_on",
         "field 'calibrations.1.threads': 8 is more than cores (4)"),
        ("threads = 4\nmeasured_on", "threads = 0  # here\nmeasured_on",
         "field 'calibrations.1.threads': input should be greater than or equal to 1"),
        ("[[calibrations]]\nthreads = 4\n", "[[calibrations]]  # here\n", "field 'calibrations.1.threads': missing"),
        ("threads = 4\nmeasured_on", "threads = 4\nratio = 2.0  # here\nmeasured_on",
         "field 'calibrations.1.ratio': unknown key"),
        ("mac_conv_3x3 = 0.125", "mac_conv_9x9 = 0.125  # here",
         "field 'calibrations.1.rates.mac_conv_9x9': there is no term of this name; terms are mac_conv_1x1, "),
        ("mac_conv_3x3 = 0.125", "mac_conv_3x3 = -0.125  # here",
         "field 'calibrations.1.rates.mac_conv_3x3': input should be greater than 0"),
        ("mac_conv_3x3 = 0.125", 'mac_conv_3x3 = "fast"  # here',
         "field 'calibrations.1.rates.mac_conv_3x3': input should be a valid number"),
        # in the first
        ("low_ratio = 0.8", "low_ratio = 1.5  # here",
         "field 'calibrations.0.low_ratio': 1 must lie between low_ratio and high_ratio"),
        ("macs = [1e3, 1e12]", "macs = [1e12, 1e3]  # here", "field 'calibrations.0.macs': the first figure is the"),
        ("macs = [1e3, 1e12]", "macs = [1e3]  # here", "field 'calibrations.0.macs.1': missing"),
        ("models = 30", "models = 0  # here", "field 'calibrations.0.models': input should be greater than"),
        ('["fp32"]', '["fp64"]  # here', "field 'calibrations.0.precisions.0': input should be 'fp32', 'fp16' or"),
        ("mac_conv_3x3 = 0.5", "mac_conv_3x3 = 0.0  # here",
         "field 'calibrations.0.rates.mac_conv_3x3': input should be greater than 0"),
    ],
)  # fmt: skip
def test_a_bad_profile_is_refused_in_one_line_with_file_line_and_field(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    text = replaced(CALIBRATED_TOML, {old: new})
    path = tmp_path / "board.toml"
    path.write_text(text)
    marked = [number for number, line in enumerate(text.splitlines(), 1) if "# here" in line]

    with pytest.raises(InputError) as caught:
        load_profile(str(path))

    assert str(caught.value).startswith(f"{path}: line {marked[0] if marked else 1}: {says}")
    assert "\n" not in str(caught.value)


def test_what_the_bad_profiles_were_made_of_is_a_good_one() -> None:
    profile = read_text(CALIBRATED_TOML)

    assert [each.threads for each in profile.calibrations] == [1, 4]
    assert profile.calibrations[1].rates["mac_conv_3x3"] == 0.125


def test_a_gpu_can_not_be_relative_of_a_cpu() -> None:
    profile = board(relative="jetson-orin-nano")

    with pytest.raises(InputError, match="made-up: field 'relative': jetson-orin-nano computes on its gpu"):
        LatencyModel(profile).estimate(net_model())


def test_what_is_no_toml_is_refused_with_its_line(tmp_path: Path) -> None:
    path = edited(tmp_path, {"cores = 4\n": "cores = \n"})

    with pytest.raises(InputError, match=r"board\.toml: not readable as TOML .*line 4"):
        read_profile(path)


def test_only_this_machine_takes_its_figures_from_here(tmp_path: Path) -> None:
    path = edited(tmp_path, {"cores = 4\n": 'cores = "host"\n'})

    with pytest.raises(InputError, match=r"field 'cores': \"host\" is only allowed where is_host = true"):
        read_profile(path)


def test_several_mistakes_are_named_together(tmp_path: Path) -> None:
    path = edited(tmp_path, {"cores = 4\n": "kores = 4\n"})

    with pytest.raises(InputError, match=r"line 1: field 'cores': missing; line 4: field 'kores': unknown key"):
        read_profile(path)


def test_the_users_own_profile_comes_before_the_shipped_one(own_folder: Path) -> None:
    edited(own_folder, {'"made-up"': '"raspberry-pi-4"', '"mu1"': '"rpi4"', 'relative = "raspberry-pi-4"\n': ""})

    assert load_profile("raspberry-pi-4").peak_gflops == 48.0
    assert load_profile("rpi4").peak_gflops == 48.0
    assert {profile.name: profile for profile in list_profiles()}["raspberry-pi-4"].peak_gflops == 48.0


def test_a_path_comes_before_everything(tmp_path: Path, own_folder: Path) -> None:
    edited(own_folder, {})
    path = edited(tmp_path, {"peak_gflops = 48.0": "peak_gflops = 30.0"})

    assert load_profile("made-up").peak_gflops == 48.0
    assert load_profile(str(path)).peak_gflops == 30.0


def test_a_users_alias_comes_before_a_shipped_name(own_folder: Path) -> None:
    edited(own_folder, {'["mu1", "mu2"]': '["jetson"]'})

    assert load_profile("jetson").name == "made-up"
    assert load_profile("jetson-orin-nano").name == "jetson-orin-nano"


def test_home_is_searched_without_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".config" / "n2n-edge" / "profiles"
    folder.mkdir(parents=True)
    edited(folder, {'name = "made-up"': 'name = "from-home"'})

    assert load_profile("from-home").name == "from-home"


def test_two_profiles_with_one_name_in_a_folder_are_refused(own_folder: Path) -> None:
    edited(own_folder, {}, name="one.toml")
    edited(own_folder, {}, name="two.toml")

    taken = r"two\.toml: field 'name': 'made-up' is already taken by one\.toml"
    with pytest.raises(InputError, match=taken):
        load_profile("made-up")
    (error,) = profile_errors()
    assert re.search(taken, str(error))
    assert "made-up" in {profile.name for profile in list_profiles()}
    assert load_profile("cpu").is_host  # other devices are none the worse


BROKEN = {
    "not TOML": "name = [",
    "a wrong field": 'name = "broken"\ncores = -1\nrelative = "raspberry-pi-4"\n',
    "nested": 'name = "broken"\nx = ' + "[" * 5000,
    "digits": 'name = "broken"\ncores = ' + "9" * 5000,
    "dotted keys": 'name = "broken"\n' + ".".join("a" * 2_000) + " = 1",
    "bytes": "\ud800",
    "empty": "",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_profile_is_in_nobodys_way(own_folder: Path, text: str) -> None:
    (own_folder / "broken.toml").write_bytes(text.encode("utf-8", "surrogatepass"))

    for name in ("cpu", "raspberry-pi-4", "jetson"):
        assert load_profile(name)
    assert "cpu" in {profile.name for profile in list_profiles()}
    (error,) = profile_errors()
    assert str(error).startswith(f"{own_folder / 'broken.toml'}: ")
    assert "\n" not in str(error)
    with pytest.raises(InputError, match=r"broken\.toml"):
        load_profile("broken")
    with pytest.raises(InputError, match="unknown device"):
        load_profile("unheard-of")


def test_a_broken_profile_is_known_by_the_name_that_it_claims(own_folder: Path) -> None:
    (own_folder / "file.toml").write_text('name = "my-board"\naliases = [\n')

    with pytest.raises(InputError, match=r"file\.toml: not readable as TOML"):
        load_profile("my-board")


def no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", missing)


def home_is_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))


def home_may_not_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def iterdir(folder: Path) -> Iterator[Path]:
        if tmp_path in folder.parents:
            raise PermissionError(13, "Permission denied", str(folder))
        return ITERDIR(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    monkeypatch.setenv("HOME", str(tmp_path))


def home_is_a_loop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.setenv("HOME", str(tmp_path / "loop"))


def home_is_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")


def configuration_has_a_long_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/" + "x" * 300)


ITERDIR = Path.iterdir


@pytest.mark.parametrize(
    "spoil",
    [no_home, home_is_a_file, home_may_not_be_read, home_is_a_loop, home_is_nowhere, configuration_has_a_long_name],
)
def test_without_a_home_the_shipped_profiles_are_there(
    spoil: Callable[[pytest.MonkeyPatch, Path], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    spoil(monkeypatch, tmp_path)

    assert load_profile("raspberry-pi-4").name == "raspberry-pi-4"
    assert "cpu" in {profile.name for profile in list_profiles()}
    assert profile_errors() == ()
    assert "jetson" in profile_names()
    with pytest.raises(InputError, match="no such profile file"):
        load_profile("~nobody-by-this-name/x.toml")


def test_without_a_home_a_new_profile_is_told_where_to_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    no_home(monkeypatch, tmp_path)

    with pytest.raises(InputError, match="set XDG_CONFIG_HOME"):
        new_profile("my-own", "rpi4")
    assert new_profile("my-own", "rpi4", tmp_path / "mine.toml").is_file()


def test_an_unknown_device_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown device 'rasberry-pi-4' \(nearest: raspberry-pi-4"):
        load_profile("rasberry-pi-4")


def test_an_unknown_device_like_no_other_says_where_to_look() -> None:
    with pytest.raises(InputError, match=r"see `n2n-edge profiles list WORD`.*such as cortex-a55"):
        load_profile("zzzzzz")


def test_a_missing_file() -> None:
    with pytest.raises(InputError, match=r"nothing\.toml: no such profile file"):
        load_profile("nothing.toml")


def test_profiles_are_values() -> None:
    profile = load_profile("raspberry-pi-4")

    assert profile == load_profile("rpi4")
    with pytest.raises(ValueError, match="frozen"):
        profile.cores = 8  # type: ignore[misc]
    assert profile == Profile.model_validate_json(profile.model_dump_json())


def test_a_precision_without_a_peak_of_its_own_has_that_of_the_next_wider() -> None:
    assert [board(peak_fp16_gflops=96.0).peak(precision) for precision in ("fp32", "fp16", "int8")] == [48, 96, 96]
    assert board(peak_int8_gops=192.0).peak("int8") == 192
