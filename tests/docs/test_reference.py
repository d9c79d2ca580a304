"""The pages of reference say what the code says."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from n2n_edge.devices.profile import Calibration, PowerMode, Profile
from tests.cli.help_examples import commands, examples

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"


@pytest.fixture(scope="module")
def reference() -> str:
    sys.path.insert(0, str(ROOT / "docs" / "_ext"))
    try:
        import command_reference
    finally:
        sys.path.pop(0)
    assert command_reference.PLACE in (REFERENCE / "commands.md").read_text(encoding="utf-8")
    text: str = command_reference.command_reference()
    return text


@pytest.mark.parametrize(("name", "command"), commands().items(), ids=lambda value: value if value is str else None)
def test_every_command_is_there_with_its_options_and_examples(name: str, command: Any, reference: str) -> None:
    _, found, rest = reference.partition(f"# n2n-edge {name}\n")
    assert found
    section = re.split(r"^##", rest, maxsplit=1, flags=re.MULTILINE)[0]
    for parameter in command.params:
        if parameter.param_type_name == "option" and not parameter.hidden and "--help" not in parameter.opts:
            assert f"`{parameter.opts[-1]}`" in section
    for example in examples(name, command.help):
        assert f"\nn2n-edge {example.line}\n" in section
    assert "Examples:" not in section


def test_every_field_of_a_profile_is_described() -> None:
    text = (REFERENCE / "profiles.md").read_text(encoding="utf-8")

    described = set(re.findall(r"`(\w+)`", text))
    fields = {*Profile.model_fields, *Calibration.model_fields, *PowerMode.model_fields}
    assert fields <= described
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", text, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} <= fields


def test_every_schema_is_listed() -> None:
    text = (REFERENCE / "documents.md").read_text(encoding="utf-8")

    for schema in (ROOT / "docs" / "schemas").glob("*.json"):
        assert f"[{schema.name}](../schemas/{schema.name})" in text


def test_every_public_name_is_listed() -> None:
    import n2n_edge

    text = (REFERENCE / "python.md").read_text(encoding="utf-8")
    for name in set(n2n_edge.__all__) - {"__version__"}:
        assert f"`{name}`" in text
