"""Names from files, through every command: nothing of them moves a cursor or reaches a CI runner as a command."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from n2n_edge.foreign import printable
from tests.cli.hostile import write_model
from tests.report.sample import sample_document

COMMAND = "::stop-commands::pwned"
NAMES = {
    "line": f"a\n{COMMAND}\n",
    "return": f"a\r{COMMAND}\r",
    "separators": f"a\u2028{COMMAND}\x85{COMMAND}",
    "escapes": "\x1b[31mred\x1b[0m\x1b]0;title\x07\x1b]8;;http://evil\x1b\\",
    "eight bits": "\x9b31m\x9d0;title\x9c\x7f",
    "bidi": "\u202eevil\u2066\u200f",
    "start": COMMAND,
    "wrapped": "x" * 70 + f" {COMMAND} " + "y" * 9 + f" {COMMAND}",
    "older command": "##[stop-commands]pwned",
    "markup": "[red]x[/] [/] [link=http://evil]y[/link] :smile:",
}
TOGETHER = "all together"
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]")
OBEYED = re.compile(r"^\s*::stop|##\[", re.MULTILINE)


COMMANDS = """
import json, os, sys
from n2n_edge.cli.app import main
for folder, commands, environment in json.loads(sys.argv[1]):
    os.chdir(folder)
    os.environ.update(environment)
    said = os.open("said", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    for words in commands:
        sys.argv = ["n2n-edge", *words]
        try:
            main()
        except SystemExit as ended:
            print("exit", ended.code, flush=True)
"""


def run_all(jobs: Sequence[tuple[Path, list[list[str]], dict[str, str]]]) -> None:
    """Run the commands of each folder with its environment, all in one process; both streams go to its ``said``."""
    given = [
        (str(folder), commands, {"XDG_CONFIG_HOME": str(folder / "config"), **environment})
        for folder, commands, environment in jobs
    ]
    subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(given)], timeout=600, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def said_in(folder: Path) -> str:
    """Return what the commands of a folder printed; they may refuse, but not be surprised."""
    text = (folder / "said").read_bytes().decode()
    assert "n2n-edge: unexpected" not in text
    assert not UNSAFE.search(text), repr(UNSAFE.search(text))
    assert not OBEYED.search(text), OBEYED.search(text)
    return text


def run(folder: Path, *commands: list[str], **environment: str) -> str:
    run_all([(folder, list(commands), environment)])
    assert_ended(folder, len(commands))
    return said_in(folder)


def assert_ended(folder: Path, count: int) -> None:
    text = (folder / "said").read_bytes().decode()
    assert text.count("\nexit ") + text.startswith("exit ") == count, text


def file_name(name: str) -> str:
    return name.replace("/", "|") + ".onnx"


def hostile_report(folder: Path, name: str) -> None:
    """Write a report of a run whose every free text holds the name."""

    def spoiled(value: object) -> object:
        if isinstance(value, dict):
            return {key: spoiled(each) for key, each in value.items()}
        return [spoiled(each) for each in value] if isinstance(value, list) else value

    document = spoiled(sample_document())
    assert isinstance(document, dict)
    document["warnings"] = [name]
    document["teacher"]["path"] = name
    folder.mkdir(exist_ok=True)
    (folder / "report.json").write_text(json.dumps(document))


def own_profile(folder: Path, name: str) -> Path:
    """Write a profile of the user's with a name into a folder's settings."""
    profile = folder / "config" / "n2n-edge" / "profiles" / f"{name.replace('/', '|')}.toml"
    profile.parent.mkdir(parents=True, exist_ok=True)
    profile.write_text(f"name = {json.dumps(name)}\n")
    return profile


def prepared(folder: Path, name: str) -> list[list[str]]:
    """Write files that hold a name in every way, and return the commands that meet it."""
    path = f"./{file_name(name)}"
    write_model(folder / path, name)
    profile = own_profile(folder, name)
    (folder / "ops.txt").write_text(f"Conv,{name.split()[0]}")
    (folder / "broken.onnx").write_bytes(b"\x08" + name.encode())
    (folder / "bench.json").write_text(json.dumps({"kind": "bench", "schema_version": name, "models": []}))
    (folder / "n2n-edge.toml").write_text(f"[gate.models.{json.dumps(name)}]\nmax-mb = 1\n")
    return [
        ["inspect", path],
        ["predict", path, "--device", "rpi4"],
        ["predict", path, "--device", "rpi4", "--device", "cpu"],
        ["gate", path, "missing.onnx", "--no-config", "--max-mb", "1"],
        ["gate", path, f"./{path}", "--no-config", "--max-mb", "0.00001", "--allowed-ops", "Relu"],
        ["inspect", path, path],
        ["profiles", "show", name],
        ["profiles", "validate", str(profile)],
        ["predict", "broken.onnx", "--device", name],
        ["predict", "broken.onnx", "--device", "rpi4"],
        ["report", name],
        ["report", "bench.json"],
        ["pareto", name],
        ["device", "check", f"ssh://{name}"],
        ["gate", "broken.onnx", "--no-config", "--allowed-ops", "@ops.txt"],
        ["gate", "--config", "n2n-edge.toml"],
        ["gate", "--max-mb", name, "broken.onnx"],
        [name],
    ]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, int]]:
    """The folder in which each name has met every command, and how many these are; all meet the list of profiles."""
    jobs = {}
    for name in NAMES:
        folder = tmp_path_factory.mktemp("names")
        jobs[name] = (folder, prepared(folder, NAMES[name]), {})
    folder = tmp_path_factory.mktemp("names")
    for name in NAMES.values():
        own_profile(folder, name)
    jobs[TOGETHER] = (folder, [["profiles", "list"]], {})
    run_all(list(jobs.values()))
    return {name: (folder, len(commands)) for name, (folder, commands, _) in jobs.items()}


@pytest.mark.parametrize("name", [*NAMES, TOGETHER])
def test_names_in_files_and_options_stay_names(name: str, folders: dict[str, tuple[Path, int]]) -> None:
    folder, commands = folders[name]
    assert_ended(folder, commands)
    said_in(folder)


def test_names_are_shown_as_they_are_written(tmp_path: Path) -> None:
    path = write_model(tmp_path / file_name(f"{NAMES['bidi']}{NAMES['line']}[red]")).name
    text = run(tmp_path, ["gate", path, f"./{path}", f"../{tmp_path.name}/{path}", "--no-config", "--max-mb", "1"])

    assert printable(path) in text.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_names_in_a_bench_a_report_and_the_doctor_stay_names(tmp_path: Path, name: str) -> None:
    path = f"./{file_name(name)}"
    write_model(tmp_path / path, name)
    own = tmp_path / "config" / "n2n-edge" / "profiles"
    own.mkdir(parents=True)
    (own / f"{name.replace('/', '|')}.toml").write_text("name = [")
    hostile_report(tmp_path / "run", name)

    run(
        tmp_path,
        ["bench", path, path, "--max-time", "0.1", "--per-op", "--save", "bench.json"],
        ["bench", path, "--max-time", "0.1", "--compare", "bench.json"],
        ["report", "run"],
        ["report", "bench.json"],
        ["doctor"],
    )


def test_annotations_are_the_only_commands(tmp_path: Path) -> None:
    path = f"./{file_name(NAMES['line'])}"
    write_model(tmp_path / path)
    text = run(tmp_path, ["gate", path, "--no-config", "--max-mb", "0.00001"], GITHUB_ACTIONS="true")

    lines = [line for line in text.splitlines() if line.startswith("::")]
    assert len(lines) == 1
    assert lines[0].startswith("::error file=a%0A%3A%3Astop-commands%3A%3Apwned%0A.onnx,")
