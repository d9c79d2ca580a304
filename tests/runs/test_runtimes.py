"""Runs for another runtime than ONNX Runtime: nothing is searched that it can't run, and all figures are of it."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import n2n_edge
from n2n_edge.errors import InputError
from n2n_edge.graph.load import load_model
from n2n_edge.measure import runtimes
from n2n_edge.measure.runtimes import ConversionError, Runtime
from n2n_edge.runs.settings import CompressSettings
from tests.runs.small import images_npz, teacher_file

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/schemas/report.json").read_text(encoding="utf-8"))
QUICK: dict[str, Any] = {"effort": "quick", "candidates": 2, "epochs": 1}


def test_a_teacher_that_cannot_be_converted_is_told_before_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(model: Path, folder: Path, inputs: object) -> None:
        raise ConversionError("it can't be converted for ncnn: no such operator")

    monkeypatch.setitem(runtimes.RUNTIMES, "ncnn", Runtime("ncnn", (), (".param",), refuse))
    teacher, data = teacher_file(tmp_path / "teacher.onnx"), images_npz(tmp_path / "data.npz")

    with pytest.raises(ConversionError) as raised:
        n2n_edge.compress(
            teacher, data, device="raspberry-pi-5", runtime="ncnn", max_latency_ms=1, out=tmp_path / "run", **QUICK
        )

    assert str(raised.value) == f"{teacher} (ncnn): it can't be converted for ncnn: no such operator"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"runtime": "tvm"}, "no such runtime"),
        ({"runtime": "ncnn", "precision": "int8"}, "proven for onnxruntime alone"),
    ],
)
def test_settings_that_nothing_can_be_made_for_are_refused(settings: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        CompressSettings(**settings)  # type: ignore[arg-type]


def test_a_run_without_a_runtime_is_one_of_the_profiles() -> None:
    assert CompressSettings().runtime is None
    assert "--runtime ncnn" in CompressSettings(runtime="NCNN").command(Path("run"))


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["ncnn", "openvino"])
def test_every_latency_of_a_run_is_of_its_runtime(tmp_path: Path, runtime: str) -> None:
    for module in runtimes.RUNTIMES[runtime].modules:
        if module != "pnnx":  # importing it imports torch
            pytest.importorskip(module, reason=f"{module} isn't installed")
    teacher, data = teacher_file(tmp_path / "teacher.onnx"), images_npz(tmp_path / "data.npz")
    out = tmp_path / "run"

    devices = ["cpu", "raspberry-pi-5"]
    run = n2n_edge.compress(teacher, data, device=devices, runtime=runtime, max_latency_ms=50, out=out, **QUICK)

    report: Any = run.report
    jsonschema.validate(report, SCHEMA)
    for role in ("teacher", "student"):
        of = report[role]["latency_ms"]
        assert of["cpu"]["runtime"].startswith(f"{runtime} ")
        assert of["raspberry-pi-5"]["runtime"] == runtime
    assert [device["runtime"] for device in report["devices"]] == [runtime, runtime]
    assert all(f"under {runtime}" in verdict["reason"] for verdict in report["budgets"])
    assert f"under {runtime}" in (out / "report.html").read_text(encoding="utf-8")
    assert {each for row in report["layers"] for each in row["latency_ms"]} == {"raspberry-pi-5"}
    told = load_model(run.student).metadata_props
    assert json.loads(told["n2n_edge.profile"])["runtime"] == runtime
    assert json.loads(told["n2n_edge.metrics.figures"])["latency_ms:raspberry-pi-5"]["runtime"] == runtime
    with sqlite3.connect(out / "journal.sqlite") as journal:
        timed = [json.loads(value) for (value,) in journal.execute("SELECT value FROM facts WHERE kind = 'latency'")]
        meta = dict(journal.execute("SELECT key, value FROM meta"))
    assert timed
    assert all(figure["runtime"].startswith(f"{runtime} ") for figure in timed)
    assert f'\\"runtime\\":\\"{runtime}\\"' in meta["profile"]

    with pytest.raises(InputError, match=f"runtime onnxruntime: this run was begun with {runtime}"):
        n2n_edge.compress(teacher, data, device=devices, runtime="onnxruntime", out=out, resume=True, **QUICK)
