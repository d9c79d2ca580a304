"""The doctor: what it finds here, and what it says where something is missing."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
from typer.testing import CliRunner, Result

from n2n_edge.cli.doctor import doctor
from n2n_edge.doctor import Check, packages
from n2n_edge.measure.measurement import MeasurementError
from n2n_edge.measure.messages import Checked
from n2n_edge.measure.target import HostTarget
from n2n_edge.versions import first_version
from tests.cli.outputs import document_of

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "schemas" / "doctor.json").read_text())

app = typer.Typer()
app.command()(doctor)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    told = Check("extras", "torch kernels", "limited", "torch crashes", "training", "slice")
    monkeypatch.setattr(sys.modules["n2n_edge.doctor.diagnosis"], "training_check", lambda: told)  # takes seconds


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def checks(result: Result) -> dict[str, dict[str, Any]]:
    document = json.loads(result.stdout)
    jsonschema.validate(document, SCHEMA, jsonschema.Draft202012Validator)
    return {check["name"]: check for check in document["checks"]}


def test_what_is_here_works_and_follows_the_schema() -> None:
    result = run("--json")

    document = document_of(result)
    found = checks(result)
    assert document["works"] is True
    assert ("torch kernels" in found) == (first_version("torch") is not None)
    assert found["onnxruntime"]["found"].startswith(importlib.import_module("onnxruntime").__version__)
    assert "CPU" in found["onnxruntime"]["found"]
    assert found["worker"]["status"] == "ok"
    assert "us" in found["worker"]["found"]
    assert found["Python"]["needed"]


def test_the_terminal_says_the_same() -> None:
    result = run()

    assert result.exit_code == 0, result.output
    assert "works: models can be inspected" in result.stdout
    for name in ("onnxruntime", "worker", "memory limits", "compress", "ssh", "profiles"):
        assert name in result.stdout


def test_an_extra_that_is_missing_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    known = packages.first_version
    monkeypatch.setattr(
        packages, "first_version", lambda *names: None if names[0] in ("torch", "timm") else known(*names)
    )

    result = run()

    assert result.exit_code == 0, result.output
    assert 'missing compress: pip install "n2n-edge[compress]"' in result.stdout
    assert "missing timm: pip install timm" in result.stdout


def test_a_package_of_the_base_that_is_missing_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    known = importlib.import_module

    def without(name: str, package: str | None = None) -> object:
        if name == "onnx_ir":
            raise ModuleNotFoundError("No module named 'onnx_ir'")
        return known(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    result = run("--json")
    text = run()

    assert (result.exit_code, text.exit_code) == (3, 3)
    assert checks(result)["onnx-ir"]["status"] == "missing"
    assert "missing onnx-ir: " in text.stdout
    assert "-m pip install" in text.stdout
    assert "does not work: onnx-ir missing" in text.stdout


def test_a_runtime_that_can_not_be_imported_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = HostTarget.check

    def broken(self: HostTarget) -> Checked:
        error = "ImportError: libgomp.so.1: cannot open"
        return whole(self).model_copy(update={"onnxruntime": None, "onnxruntime_error": error})

    monkeypatch.setattr(HostTarget, "check", broken)
    result = run("--json")

    assert result.exit_code == 3
    assert "libgomp" in checks(result)["onnxruntime"]["found"]
    assert "worker" not in checks(result)


def test_a_worker_that_does_not_start_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(self: HostTarget) -> object:
        raise MeasurementError("the worker: no answer")

    monkeypatch.setattr(HostTarget, "check", dead)
    result = run("--json")

    assert result.exit_code == 3
    assert checks(result)["measuring"]["found"] == "the worker: no answer"


def test_a_wrong_profile_and_a_missing_ssh_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "config" / "n2n-edge" / "profiles"
    folder.mkdir(parents=True)
    (folder / "bad.toml").write_text('name = "bad"\ncores = 0\n')
    monkeypatch.setenv("N2N_EDGE_SSH", "no-such-program -F config")

    result = run("--json")

    assert result.exit_code == 0, result.output
    found = checks(result)
    assert found["profiles"]["status"] == "limited"
    assert "bad.toml: line" in found["profiles"]["found"]
    assert "profiles validate" in found["profiles"]["remedy"]
    assert found["ssh"]["found"] == "no program no-such-program"


def test_torch_is_imported_only_where_that_is_asked_for() -> None:
    imports = "import sys; from n2n_edge.doctor import Check, diagnose"
    told = "lambda: Check('extras', 'torch kernels', 'ok', '', '')"  # in a process of its own, which takes seconds
    given = f"sys.modules['n2n_edge.doctor.diagnosis'].training_check = {told}"
    code = f"{imports}; {given}; diagnose(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "False"


def test_imports_are_tried_in_a_process_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(packages, "IMPORT_TIMEOUT_S", 300.0)

    found = checks(run("--imports", "--json"))

    assert "threads" in found["import torch"]["found"]
