"""The settings of a run: kept, read back, refused."""

import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from n2n_edge import Run
from n2n_edge.data.splits import choose_members
from n2n_edge.errors import InputError
from n2n_edge.runs.callbacks import RunCallback
from n2n_edge.runs.environment import threads_of_run
from n2n_edge.runs.folder import RunFolder
from n2n_edge.runs.settings import LARGEST_SEED, CompressSettings
from n2n_edge.runs.settings_file import absolute_paths, read_settings, write_settings
from n2n_edge.search.store import Journal


def test_settings_survive_the_file(tmp_path: Path) -> None:
    settings = CompressSettings(
        teacher="a b.onnx", data='images "x"', max_mb=0.5, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0), policy="greedy"
    )
    write_settings(settings, tmp_path / "run.toml")
    assert read_settings(tmp_path / "run.toml") == settings


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"max_mb": 0.0}, "max_mb 0"),
        ({"max_latency_ms": -1.0}, "max_latency_ms -1"),
        ({"max_params": float("nan")}, "max_params nan"),
        ({"effort": "huge"}, "quick, standard, thorough"),
        ({"objective": "speed"}, "latency_ms"),
        ({"candidates": 0}, "candidates 0"),
        ({"batch": 1}, "batch 1: must be 2 at least"),
        ({"train_device": "gpu"}, "train_device gpu: no such device; give auto, cpu, cuda, cuda:N or mps"),
        ({"train_precision": "int8"}, "train_precision int8: no such format"),
        ({"gpus": 0}, "gpus 0: must be at least 1"),
        ({"gpus": 2, "train_device": "cpu"}, "gpus 2: they can't be cpu"),
        ({"minutes": -3.0}, "minutes -3"),
        ({"cache_gb": -1.0}, "cache_gb -1: give 0 (none) or more"),
        ({"cluster": "10.0.0.1:6379"}, "cluster 10.0.0.1:6379: give auto, local, or the address"),
        ({"workers": 0}, "workers 0: must be a number above 0"),
        ({"retries": -1}, "retries -1: give 0 or more"),
        ({"data_workers": -2}, "data_workers -2: give 0 (decode where images are needed) or more"),
        ({"min_score": 90.0}, "fraction"),
        ({"max_drop": 200.0}, "max_drop 200"),
        ({"teacher": "t.onnx"}, "add data with"),
    ],
)
def test_nonsense_is_refused_with_what_was_given(given: dict[str, object], text: str) -> None:
    with pytest.raises(InputError) as caught:
        CompressSettings(**given)  # type: ignore[arg-type]
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_former_name_of_the_score_is_taken_as_everywhere(tmp_path: Path) -> None:
    settings = CompressSettings(min_accuracy=0.9)
    assert settings == CompressSettings(min_score=0.9)
    assert (settings.min_score, replace(settings, min_score=0.5).min_score) == (0.9, 0.5)
    assert settings.command(tmp_path) == f"n2n-edge compress --min-score 0.9 --out {tmp_path}"
    for given, words in (
        ({"min_score": 0.8, "min_accuracy": 0.9}, "‹min_accuracy› 0.9: is another name of ‹min_score›, which is given"),
        ({"min_accuracy": 90.0}, "‹min_score› 90"),
        ({"min_accuracy": "high"}, "‹min_score› 'high': must be a number"),
    ):
        with pytest.raises(InputError) as caught:
            CompressSettings(**given)  # type: ignore[arg-type]
        assert words in caught.value.text


def test_the_command_that_repeats_a_run_names_what_differs_from_the_defaults() -> None:
    settings = CompressSettings(
        teacher="my teacher.onnx",
        data="d",
        device="jetson",
        mean=(0.5, 0.25),
        std=(1.0,),
        input_shape=(3, 8, 8),
        flip=False,
    )
    assert settings.command(Path("out")) == (
        "n2n-edge compress 'my teacher.onnx' --data d --device jetson --mean 0.5,0.25 --std 1.0 "
        "--input-shape 3x8x8 --no-flip --out out"
    )


@pytest.mark.parametrize(
    ("given", "devices"),
    [
        ("jetson", ("jetson",)),
        ("cpu,jetson", ("cpu", "jetson")),
        (["cpu", "jetson"], ("cpu", "jetson")),
        (("cpu, jetson", "raspberry-pi-4"), ("cpu", "jetson", "raspberry-pi-4")),
        (["jetson"], ("jetson",)),
    ],
)
def test_devices_may_be_several_and_are_kept(given: object, devices: tuple[str, ...], tmp_path: Path) -> None:
    settings = CompressSettings(**absolute_paths({"device": given}))  # type: ignore[arg-type]
    assert settings.devices == devices
    write_settings(settings, tmp_path / "run.toml")
    assert read_settings(tmp_path / "run.toml") == settings
    assert "".join(f" --device {name}" for name in devices) in settings.command(Path("out"))


def test_a_run_file_with_one_device_as_text_is_read_as_before(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('device = "raspberry-pi-4"\n')
    settings = read_settings(tmp_path / "run.toml")
    assert (settings.device, settings.devices) == ("raspberry-pi-4", ("raspberry-pi-4",))


def test_profile_files_become_absolute_even_where_a_comma_is_in_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a,b.toml").write_text("")
    named = absolute_paths({"device": ["a,b.toml", "cpu,mine.toml"]})["device"]
    assert named == (str(tmp_path / "a,b.toml"), "cpu", str(tmp_path / "mine.toml"))
    assert CompressSettings(device=named).devices == named  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["", "cpu,", "cpu,,jetson", []])
def test_an_empty_device_is_refused(given: object) -> None:
    with pytest.raises(InputError, match=r"device .*name is empty"):
        CompressSettings(device=given)  # type: ignore[arg-type]


@pytest.mark.parametrize("names", [("jetson", "jetson-orin-nano"), ("cpu", "cpu"), ("jetson", "cpu", "jetson")])
def test_two_names_of_one_device_are_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name every device once"):
        Run(RunFolder.new(tmp_path / "run"), CompressSettings(device=names)).resume()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("given", [{"mean": (0.5,)}, {"std": (0.5,)}])
def test_half_a_normalisation_is_refused(given: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(InputError, match="belong together"):
        CompressSettings(**given)  # type: ignore[arg-type]


def test_what_does_not_change_results_may_change_when_a_run_is_resumed(tmp_path: Path) -> None:
    RunFolder.new(tmp_path / "run").begin(CompressSettings(seed=3))
    run = Run.open(tmp_path / "run")
    run.take_settings({"cache_gb": 2.5, "data_workers": 1, "strict_data": True, "seed": 3})
    assert run.settings == Run.open(tmp_path / "run").settings
    assert run.settings == CompressSettings(seed=3, cache_gb=2.5, data_workers=1, strict_data=True)
    with pytest.raises(InputError, match=r"seed 4: this run was begun with 3"):
        run.take_settings({"cache_gb": 1.0, "seed": 4})
    assert Run.open(tmp_path / "run").settings.cache_gb == 2.5


def test_candidates_are_shared_between_the_stages() -> None:
    for count in (1, 2, 7, 100):
        effort = CompressSettings(candidates=count).amount
        assert effort.removal_candidates >= 1
        assert effort.shrinkage_candidates >= 1
        assert effort.removal_candidates + effort.shrinkage_candidates == max(2, count)


def test_a_folder_with_another_run_is_left_alone(tmp_path: Path) -> None:
    RunFolder.new(tmp_path / "run").begin(CompressSettings())
    before = (tmp_path / "run" / "run.toml").read_bytes()
    with pytest.raises(InputError, match="holds another run"):
        RunFolder.new(tmp_path / "run")
    assert (tmp_path / "run" / "run.toml").read_bytes() == before


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="not an empty folder"):
        RunFolder.new(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_resuming_what_was_never_begun_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run to resume"):
        RunFolder.resume(tmp_path)


def test_a_damaged_or_foreign_run_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("seed = ")
    with pytest.raises(InputError, match="not readable as TOML"):
        read_settings(path)
    path.write_text("sede = 3\n")
    with pytest.raises(InputError, match="unknown setting 'sede'"):
        read_settings(path)


def test_few_candidates_have_fewer_finalists() -> None:
    whole = CompressSettings(effort="standard").amount
    few = CompressSettings(effort="standard", candidates=8).amount
    assert few.removal_candidates + few.shrinkage_candidates == 8
    assert [finalists for finalists, _ in few.rungs] == [2, 2]
    assert [times for _, times in few.rungs] == [times for _, times in whole.rungs]
    assert all(finalists == 0 for finalists, _ in CompressSettings(candidates=2).amount.rungs)


def test_a_run_of_an_older_version_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = RunFolder.new(tmp_path / "run")
    folder.begin(CompressSettings())
    with Journal.create(folder.journal, {"profile": '{"name": "raspberry-pi-4", "cores": 4, "calibration": null}'}):
        pass

    with pytest.raises(InputError, match="begun by another version of n2n-edge; start a new run"):
        Run.open(tmp_path / "run").resume()


def test_older_runs_held_the_expected_latency_against_the_budget(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("max_latency_ms = 4.0\n")
    assert read_settings(path).accept_expected
    write_settings(CompressSettings(max_latency_ms=4.0), path)
    assert not read_settings(path).accept_expected


def test_older_runs_that_started_from_another_run_are_refused_until_that_line_goes(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('seed = 3\npolicy_from = "/runs/first"\n')
    with pytest.raises(InputError, match=r"run\.toml: 'policy_from' is gone.*; take its line out to go on without"):
        RunFolder.resume(tmp_path)
    path.write_text("seed = 3\n")  # what they wrote without it, too
    (tmp_path / "policy.safetensors").write_bytes(b"")
    assert RunFolder.resume(tmp_path)[1] == CompressSettings(seed=3, accept_expected=True)


@pytest.mark.parametrize("name", ["ü 😀", "a\x7fb", 'q"\\', "\u2028", "\U0010ffff", "tab\tline\n", "'''", "\x85\x9b"])
def test_any_name_survives_the_file(tmp_path: Path, name: str) -> None:
    settings = CompressSettings(teacher=f"/{name}/t.onnx", data=name, device=(f"a{name}b", "cpu"), weights=name)
    write_settings(settings, tmp_path / "run.toml")
    assert read_settings(tmp_path / "run.toml") == settings


def test_a_name_that_is_not_utf_8_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"isn't UTF-8; rename it"):
        write_settings(CompressSettings(teacher="a\udcff.onnx", data="d"), tmp_path / "run.toml")


@pytest.mark.parametrize("seed", [-1, 2**32 - 1, 2**32, 2**64, 10**30])
def test_seeds_that_no_generator_takes_are_refused(seed: int) -> None:
    with pytest.raises(InputError, match=f"seed {seed}: give a whole number from 0 to 4294967294"):
        CompressSettings(seed=seed)


def test_the_largest_seed_splits_data() -> None:
    labels = np.repeat(np.arange(4), 20)
    chosen = [choose_members(labels, 80, 0.1, seed + more) for seed in (0, LARGEST_SEED) for more in (0, 1)]
    assert all(each.sum() == 8 for each in chosen)


@pytest.mark.parametrize("field", [field.name for field in fields(CompressSettings)])
@pytest.mark.parametrize(
    "value", ['"x"', "3", "0.5", "true", "[1.0, 'a']", "['a', 2]", "[[1]]", "{a = 1}", "1979-05-27"]
)
def test_a_setting_of_the_wrong_type_is_one_line(tmp_path: Path, field: str, value: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(f"{field} = {value}\n")
    refusal, settings = "", None
    try:
        settings = read_settings(path)
    except InputError as error:
        refusal = str(error)
    if settings is None:
        assert re.search(f"{field}|{field.replace('_', '-')}|belong together|no data given", refusal)
        assert "\n" not in refusal
        return
    write_settings(settings, path)
    assert read_settings(path) == settings
    assert settings.command(tmp_path)
    assert settings.budgets is not None


def test_lists_become_tuples() -> None:
    settings = CompressSettings(mean=[0.5], std=[1])  # type: ignore[arg-type]
    assert (settings.mean, settings.std) == ((0.5,), (1,))


def test_a_run_keeps_its_threads(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    before, said = torch.get_num_threads(), []

    class Listening(RunCallback):
        def on_message(self, text: str) -> None:
            said.append(text)

    with threads_of_run(CompressSettings(), Listening()) as settings:
        assert settings.threads == before
    assert not said
    with threads_of_run(CompressSettings(threads=before + 1), Listening()) as settings:
        assert torch.get_num_threads() == settings.threads == before + 1
    assert torch.get_num_threads() == before
    assert f"begun with {before + 1} threads" in said[0]
    assert "OMP_NUM_THREADS" in said[0]
    write_settings(settings, tmp_path / "run.toml")
    assert read_settings(tmp_path / "run.toml").threads == before + 1


def test_settings_that_say_nothing_of_graphs_and_images_import_no_onnx():
    code = "import sys; from n2n_edge.runs.settings import CompressSettings; CompressSettings(max_mb=1.0)"
    found = subprocess.run(
        [sys.executable, "-c", f"{code}; print([name for name in ('onnx', 'onnx_ir', 'PIL') if name in sys.modules])"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("policy", "merging", "merges"),
    [("reinforce", None, True), ("reinforce", False, False), ("n2n", None, False), ("random", True, True)],
)
def test_only_the_default_policy_merges_without_being_told(policy: str, merging: bool | None, merges: bool) -> None:
    settings = CompressSettings(max_latency_ms=1.0, policy=policy, merging=merging)
    assert settings.merges is merges
