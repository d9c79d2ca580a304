from pathlib import Path

import psutil
import pytest

from n2n_edge.devices import Profile, list_profiles, load_profile, read_profile
from n2n_edge.errors import InputError

REPOSITORY = Path(__file__).parents[2]
BOARD = (REPOSITORY / "profiles" / "raspberry-pi-4.toml").read_text()


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder of user profiles, instead of the one of whoever runs the tests."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = tmp_path / "config" / "n2n-edge" / "profiles"
    folder.mkdir(parents=True)
    return folder


def edited(folder: Path, old: str, new: str, name: str = "board.toml") -> Path:
    assert old in BOARD
    path = folder / name
    path.write_text(BOARD.replace(old, new))
    return path


def test_the_shipped_profiles() -> None:
    profiles = {profile.name: profile for profile in list_profiles()}

    assert {"cpu", "raspberry-pi-4", "jetson-orin-nano"} <= set(profiles)
    assert [name for name, profile in profiles.items() if profile.is_host] == ["cpu"]
    assert (profiles["raspberry-pi-4"].cores, profiles["raspberry-pi-4"].peak_gflops) == (4, 48.0)
    assert profiles["jetson-orin-nano"] == load_profile("jetson")
    assert load_profile("jetson").providers == (
        "TensorrtExecutionProvider",
        "CUDAExecutionProvider",
        "CPUExecutionProvider",
    )


def test_the_host_profile_is_this_machine() -> None:
    profile = load_profile("cpu")

    assert 1 <= profile.default_threads <= profile.cores <= (psutil.cpu_count() or 1)
    assert profile.memory_mb == pytest.approx(psutil.virtual_memory().total / 1e6, rel=0.01)
    assert 0 < profile.usable_memory_mb <= profile.memory_mb
    assert profile.peak_gflops > 0


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("cores = 4\n", "cores = 4\nturbo = true\n", "field 'turbo': unknown key"),
        ("cores = 4\n", "", "field 'cores': missing"),
        ("cores = 4\n", "cores = -4\n", "field 'cores': input should be greater than or equal to 1"),
        ("cores = 4\n", 'cores = "4"\n', "field 'cores': input should be a valid integer"),
        ("cores = 4\n", 'cores = "host"\n', "field 'cores': \"host\" is only allowed where is_host = true"),
        ("cores = 4\n", "cores = 2\n", "field 'default_threads': 4 is more than cores (2)"),
        ("peak_gflops = 48.0 ", "peak_gflops = 0.0 ", "field 'peak_gflops': input should be greater than 0"),
        ("peak_gflops = 48.0 ", "peak_gflops = nan ", "field 'peak_gflops': input should be a finite number"),
        ("usable_memory_mb = 3500.0", "usable_memory_mb = 9000.0", "field 'usable_memory_mb': 9000 is more than"),
        ('compute_unit = "cpu"', 'compute_unit = "gpu"', "field 'providers': compute_unit is 'gpu'"),
        ('["CPUExecutionProvider"]', "[]", "field 'providers'"),
        ('["CPUExecutionProvider"]', '["CPU"]', "field 'providers.0'"),
        ('name = "raspberry-pi-4"', 'name = "Raspberry Pi"', "field 'name'"),
        ('["rpi4", "pi4"]', '["rpi4", "rpi4"]', "field 'aliases': a value is named twice"),
        ("[sources]\n", '[sources]\nspeed = "x"\n', "field 'sources.speed': there is no field of this name"),
        ("[sources]\n", "[calibration]\nratio = 2.0\n[sources]\n", "field 'calibration.low_ratio': missing"),
        ("cores = 4\n", "cores = \n", "not a readable TOML profile"),
    ],
)
def test_a_bad_profile_is_refused_in_one_line_with_file_and_field(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    path = edited(tmp_path, old, new)

    with pytest.raises(InputError) as caught:
        load_profile(str(path))

    assert str(caught.value).startswith(f"{path}: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_figure_without_a_source_is_refused(tmp_path: Path) -> None:
    lines = [line for line in BOARD.splitlines() if not line.startswith('bandwidth_gb_s = "')]
    path = tmp_path / "board.toml"
    path.write_text("\n".join(lines))

    with pytest.raises(InputError, match=r"field 'sources\.bandwidth_gb_s': missing"):
        read_profile(path)


def test_several_mistakes_are_named_together(tmp_path: Path) -> None:
    path = edited(tmp_path, "cores = 4\n", "kores = 4\n")

    with pytest.raises(InputError, match=r"'cores': missing.*'kores': unknown key"):
        read_profile(path)


def test_the_users_own_profile_comes_before_the_shipped_one(own_folder: Path) -> None:
    edited(own_folder, "peak_gflops = 48.0 ", "peak_gflops = 57.6 ")

    assert load_profile("raspberry-pi-4").peak_gflops == 57.6
    assert load_profile("rpi4").peak_gflops == 57.6
    assert {profile.name: profile for profile in list_profiles()}["raspberry-pi-4"].peak_gflops == 57.6


def test_a_path_comes_before_everything(tmp_path: Path, own_folder: Path) -> None:
    edited(own_folder, "peak_gflops = 48.0 ", "peak_gflops = 57.6 ")
    path = edited(tmp_path, "peak_gflops = 48.0 ", "peak_gflops = 30.0 ")

    assert load_profile(str(path)).peak_gflops == 30.0


def test_a_users_alias_comes_before_a_shipped_name(own_folder: Path) -> None:
    text = BOARD.replace('name = "raspberry-pi-4"', 'name = "my-board"').replace('["rpi4", "pi4"]', '["jetson"]')
    (own_folder / "mine.toml").write_text(text)

    assert load_profile("jetson").name == "my-board"
    assert load_profile("jetson-orin-nano").name == "jetson-orin-nano"


def test_home_is_searched_without_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".config" / "n2n-edge" / "profiles"
    folder.mkdir(parents=True)
    edited(folder, 'name = "raspberry-pi-4"', 'name = "from-home"')

    assert load_profile("from-home").name == "from-home"


def test_two_profiles_with_one_name_in_a_folder_are_refused(own_folder: Path) -> None:
    edited(own_folder, "cores = 4\n", "cores = 4\n", name="one.toml")
    edited(own_folder, "cores = 4\n", "cores = 4\n", name="two.toml")

    with pytest.raises(InputError, match=r"two\.toml: field 'name': 'raspberry-pi-4' is already taken by one\.toml"):
        load_profile("cpu")


def test_an_unknown_device_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown device 'rasberry-pi-4' \(nearest: raspberry-pi-4"):
        load_profile("rasberry-pi-4")


def test_an_unknown_device_like_no_other_names_all() -> None:
    with pytest.raises(InputError, match=r"\(known: .*cpu.*raspberry-pi-4"):
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
