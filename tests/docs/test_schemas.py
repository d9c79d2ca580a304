"""The published schemas: current, and true of real documents."""

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from n2n_edge._example import teacher_path
from n2n_edge.cli.app import main
from tests.report.sample import sample_document
from tests.sshd import Server

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "schemas"


def schema(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def said(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setattr(sys, "argv", ["n2n-edge", *words, "--json"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code in (0, None)
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_a_schema_is_one(path: Path) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))

    jsonschema.Draft202012Validator.check_schema(document)
    assert document["title"].startswith("n2n-edge ")
    assert document["description"].endswith(".")


def test_schemas_that_follow_from_the_code_are_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    import schemas

    for name, found in schemas.schemas().items():
        assert schemas.as_text(found) == (FOLDER / name).read_text("utf-8"), "run python docs/_ext/schemas.py"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("inspect", ["inspect", "TEACHER", "--device", "raspberry-pi-4"]),
        ("predict", ["predict", "TEACHER", "--device", "raspberry-pi-4"]),
        ("predict", ["predict", "TEACHER", "--device", "jetson-nano", "--precision", "fp16"]),
        ("predict", ["predict", "TEACHER", "--device", "rpi4", "--device", "jetson-nano"]),
        ("profiles", ["profiles", "list"]),
        ("profiles", ["profiles", "show", "jetson"]),
        ("device-check", ["device", "check"]),
    ],
)
def test_a_document_follows_its_schema(
    name: str,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    words = [str(teacher_path()) if word == "TEACHER" else word for word in words]

    jsonschema.validate(said(words, monkeypatch, capsys), schema(name), jsonschema.Draft202012Validator)


def test_the_sample_of_a_report_follows_the_schema() -> None:
    jsonschema.validate(sample_document(), schema("report"), jsonschema.Draft202012Validator)


@pytest.mark.slow
def test_the_report_of_a_run_follows_the_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    words = "compress --device raspberry-pi-4 --max-mb 0.6 --effort quick --candidates 1 --epochs 1 --corruptions"

    document = said(words.split(), monkeypatch, capsys)

    jsonschema.validate(document, schema("report"), jsonschema.Draft202012Validator)
    assert document == json.loads((tmp_path / "n2n-run" / "report.json").read_text())


@pytest.mark.slow
def test_a_calibration_follows_its_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], server: Server
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    words = ["device", "calibrate", server.url(), "--minutes", "0.3", "--threads", "1", "--profile", "raspberry-pi-4"]

    found = said(words, monkeypatch, capsys)
    jsonschema.validate(found, schema("device-calibrate"), jsonschema.Draft202012Validator)


@pytest.mark.parametrize("path", sorted((ROOT / "profiles").glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_profile_follows_the_schema(path: Path) -> None:
    import tomllib

    values = tomllib.loads(path.read_text(encoding="utf-8"))
    if values.get("is_host"):
        return  # may say "host" for what is filled in where it is read
    jsonschema.validate(values, schema("profile"), jsonschema.Draft202012Validator)
