"""How images go into a gated model: as options, budget files or metadata say, by the rules of `compress`."""

import inspect
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import typer
from onnx import helper
from PIL import Image
from typer.testing import CliRunner

import n2n_edge
from n2n_edge.cli.gate import gate as gate_command
from n2n_edge.data.preprocessing_options import PREPROCESSING_OPTIONS
from n2n_edge.errors import InputError
from n2n_edge.gating.settings import GateSettings
from tests.graph.test_free_batch import Net

SIZE = 16
HOW: dict[str, Any] = {"resize": "letterbox", "channels": "bgr", "pixels": "-1..1", "pad_color": (0, 0, 0)}
WORDS = ("--resize", "letterbox", "--channels", "bgr", "--pixels=-1..1", "--pad-color", "0,0,0")


def model(path: Path, size: tuple[int | str, int | str] = (SIZE, SIZE), **record: Any) -> Path:
    """Tells blue pictures from red ones by the means of BGR in -1..1; `record` is what its metadata record."""
    net = Net()
    weights = np.array([[4, 0, 0], [0, 0, 4]], np.float32)
    colour = net.op("Flatten", net.op("GlobalAveragePool", "x"))
    made = net.model(net.op("Gemm", colour, net.constant(weights, np.float32), transB=1), ["N", 3, *size], ["N", 2])
    if record:
        how = n2n_edge.Preprocessing((SIZE, SIZE), **record)
        helper.set_model_props(made, {"n2n_edge.preprocessing": json.dumps(how.to_json())})
    onnx.save(made, path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide pictures whose colour is in the part that a crop of the centre throws away; the centre tells the other."""
    folder, random = tmp_path_factory.mktemp("data") / "pictures", np.random.default_rng(0)
    for split in ("train", "test"):
        for name, channel in (("blue", 2), ("red", 0)):
            (folder / split / name).mkdir(parents=True)
            for index in range(12):
                pixels = random.integers(0, 60, (20, 80, 3), dtype=np.uint8)
                pixels[:, :26, channel] = 250
                pixels[:, 35:45, 2 - channel] = 120
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")
    return folder


def score(*models: Path, **given: Any) -> float:
    (gated,) = n2n_edge.gate(*models, min_score=0.5, **given)
    return next(check for check in gated.checks if check.cost == "score").reached.value  # type: ignore[union-attr]


def command(*words: object) -> Any:
    app = typer.Typer()
    app.command()(gate_command)
    return CliRunner().invoke(app, [str(word) for word in words])


def test_options_tell_how_a_foreign_model_sees_its_images(pictures: Path, tmp_path: Path) -> None:
    foreign = model(tmp_path / "foreign.onnx")
    assert score(foreign, data=pictures, resize="letterbox") <= 0.5
    assert score(foreign, data=pictures, channels="bgr") == 0.0
    assert score(foreign, data=pictures, **HOW) == 1.0
    result = command(foreign, "--min-score", 0.9, "--data", pictures, *WORDS, "--json", "--no-config")
    document = json.loads(result.stdout)
    assert (result.exit_code, document["budgets"][0]["reached"]["value"]) == (0, 1.0)
    assert document["note_codes"] == ["preprocessing"]
    assert (
        "letterboxed into 16x16 (bilinear, in the centre, padded with 0); BGR; pixels in -1..1" in document["notes"][0]
    )
    assert "(resize, pad_color, channels, pixels given; the rest as most networks have it" in document["notes"][0]


def test_options_hold_over_metadata_as_for_compress(pictures: Path, tmp_path: Path) -> None:
    recorded = {"resize": "letterbox", "channel_order": "bgr", "pixels": "-1..1"}
    student = model(tmp_path / "student.onnx", **recorded)
    (gated,) = n2n_edge.gate(student, data=pictures, min_score=0.9)
    assert (gated.outcome, gated.notes) == ("pass", ())
    (gated,) = n2n_edge.gate(student, data=pictures, min_score=0.9, channels="rgb")
    assert (gated.outcome, [note.code for note in gated.notes]) == ("fail", ["preprocessing"])
    assert "channels given; the rest from the model's metadata" in gated.notes[0].text


def test_of_two_models_the_one_that_says_nothing_is_given_what_the_other_is(pictures: Path, tmp_path: Path) -> None:
    recorded = {"resize": "letterbox", "channel_order": "bgr", "pixels": "-1..1"}
    student, foreign = model(tmp_path / "student.onnx", **recorded), model(tmp_path / "foreign.onnx")
    for one, other in ((student, foreign), (foreign, student)):
        (gated,) = n2n_edge.gate(one, data=pictures, baseline=other, max_drop=0.1, max_time=0.001)
        assert gated.checks[-2].reached.value == 0.0  # type: ignore[union-attr]
        assert "foreign.onnx: records no preprocessing" in " ".join(note.text for note in gated.notes)


def test_fidelity_is_to_the_baseline_on_images_as_it_wants_them(pictures: Path, tmp_path: Path) -> None:
    wanting = {"resize": "letterbox", "channel_order": "bgr"}
    bytes_in, fractions_in = (model(tmp_path / f"{p[0]}.onnx", pixels=p, **wanting) for p in ("-1..1", "0..1"))
    rgb = model(tmp_path / "rgb.onnx", resize="letterbox")
    unlabelled = {"data": pictures / "test" / "red", "task": "classification", "max_time": 0.001}
    assert score(bytes_in, baseline=fractions_in, **unlabelled) == 1.0
    assert score(bytes_in, baseline=rgb, **unlabelled) == 0.0


def test_a_free_size_is_the_recorded_or_the_given_one(pictures: Path, tmp_path: Path) -> None:
    recorded = {"resize": "letterbox", "channel_order": "bgr", "pixels": "-1..1"}
    free = model(tmp_path / "free.onnx", ("H", "W"), **recorded)
    (gated,) = n2n_edge.gate(free, data=pictures, min_score=0.9, max_memory_mb=1)
    assert gated.outcome == "pass"
    assert "counted and timed at 3x16x16, as its metadata record" in gated.warnings[0].text
    assert score(free, data=pictures, input_shape=(3, 48, 48), **HOW) == 1.0


@pytest.mark.parametrize(
    "given",
    [
        {"resize": "stretch"},
        {"channels": "gbr"},
        {"pixels": "0..2"},
        {"crop_ratio": 0.9, "resize": "squash"},
        {"crop_ratio": 1.5},
        {"interpolation": "cubic"},
        {"antialias": False, "interpolation": "lanczos"},
        {"pad_color": (3,), "resize": "squash"},
        {"pad_color": (300,)},
        {"pad_position": "left"},
        {"mean": (123.0,), "std": (58.0,)},
        {"mean": (0.5,)},
    ],
    ids=str,
)
def test_what_cant_be_is_refused_in_the_words_of_compress(given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError) as of_compress:
        n2n_edge.CompressSettings(**given)
    with pytest.raises(InputError) as of_gate:
        n2n_edge.gate(model(tmp_path / "m.onnx"), data=tmp_path, min_score=0.5, **given)
    assert of_gate.value.text == of_compress.value.text


def test_a_budget_file_says_it_and_options_take_it_back(pictures: Path, tmp_path: Path) -> None:
    foreign, config = model(tmp_path / "foreign.onnx"), tmp_path / "n2n-edge.toml"
    config.write_text(
        f'[gate]\ndata = "{pictures.as_posix()}"\nmin-score = 0.9\nresize = "letterbox"\nantialias = false\n'
        'channels = "bgr"\npad-color = 0\npixels = "0..255"\nmean = 127.5\nstd = 127.5\n'
    )
    assert command(foreign, "--config", config).exit_code == 0
    assert command(foreign, "--config", config, "--channels", "none").exit_code == 1
    changed = command(foreign, "--config", config, "--crop-ratio", 0.9, "--resize", "center-crop", "--json")
    assert changed.exit_code == 1
    assert "centre 16x16 at ratio 0.9" in json.loads(changed.stdout)["notes"][0]
    # mean and std were in the unit of the file's pixels: without these they say nothing
    changed = command(foreign, "--config", config, "--pixels=-1..1", "--json")
    assert (changed.exit_code, "mean" in json.loads(changed.stdout)["notes"][0]) == (0, False)
    config.write_text('[gate]\nresize = "squash"\npad-color = [0, 0, 0]\nmax-mb = 1\n')
    refused = command(foreign, "--config", config)
    assert (
        str(refused.exception)
        == f"{config}, [gate]: pad-color belongs to letterbox, and resize is squash: leave one out"
    )


def test_init_keeps_what_the_score_was_found_with(pictures: Path, tmp_path: Path) -> None:
    foreign, config = model(tmp_path / "foreign.onnx"), tmp_path / "n2n-edge.toml"
    (tmp_path / "names.txt").write_text("blue\nred\n")
    more = (
        "--task",
        "classification",
        "--classes",
        tmp_path / "names.txt",
        "--no-antialias",
        "--input-shape",
        "3x16x16",
    )
    written = command("--init", foreign, "--data", pictures, *WORDS, *more, "--config", config)
    assert written.exit_code == 0, written.output
    assert "min-score = 0.99 " in config.read_text()
    assert command("--config", config).exit_code == 0


def test_options_of_images_need_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="resize: how do images go into the network, but which"):
        n2n_edge.gate(model(tmp_path / "m.onnx"), max_mb=1, resize="squash")


def test_gate_has_every_option_of_preprocessing_that_compress_has() -> None:
    keywords = inspect.signature(n2n_edge.gate).parameters
    options = {each.name: each for each in typer.main.get_command(_app()).params}
    settings = {item.name: item for item in fields(n2n_edge.CompressSettings)}
    for name in PREPROCESSING_OPTIONS:
        assert name in GateSettings.model_fields
        assert keywords[name].annotation == inspect.signature(n2n_edge.compress).parameters[name].annotation
        assert options[name].help == settings[name].metadata["help"]


def _app() -> typer.Typer:
    app = typer.Typer()
    app.command()(gate_command)
    return app
