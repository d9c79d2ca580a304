"""Every example in the help of a command is really run."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from n2n_edge.cli.app import main
from n2n_edge.doctor import Check
from tests.cli.help_examples import BOARD, MAKERS, Example, commands, examples, files_named
from tests.sshd import MISSING, SSHD, running_server

COMMANDS = commands()
EXAMPLES = [example for name, command in COMMANDS.items() for example in examples(name, command.help or "")]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give a function that makes a file that examples name, once."""
    pytest.importorskip("sklearn", reason="the built-in example needs scikit-learn")
    folder = tmp_path_factory.mktemp("examples")

    def make(name: str) -> Path:
        path = folder / name
        if not path.exists():
            MAKERS[name](path, make)
        return path

    return make


def _cases() -> list[object]:
    marks = {True: pytest.mark.slow}
    return [pytest.param(example, id=example.line, marks=marks[True] if example.slow else ()) for example in EXAMPLES]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_ends_its_help_with_examples_of_itself(name: str) -> None:
    found = examples(name, COMMANDS[name].help or "")

    assert found, f"`n2n-edge {name} --help` has no section Examples"
    for example in found:
        assert f"{example.line} ".startswith(f"{name} ")
    assert COMMANDS[name].help.strip().strip("`").endswith(found[-1].line)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.line)
def test_an_example_has_options_that_exist(example: Example) -> None:
    words = example.words[len(example.command.split()) :]

    COMMANDS[example.command].make_context(example.command, words)


@pytest.mark.parametrize("example", _cases())
def test_an_example_runs(
    example: Example,
    built: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for runtime in example.runtimes:
        pytest.importorskip(runtime, reason=f"{runtime} isn't installed")
    if example.needs_board and SSHD is None:
        pytest.skip(f"{MISSING}: only its options were looked at")
    work = tmp_path / "work"
    work.mkdir()
    for name in files_named(example):
        source = built(name)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, work / name)
    monkeypatch.chdir(work)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr("webbrowser.open", lambda address: True)
    trained = Check("extras", "torch kernels", "ok", "torch trains", "training")
    monkeypatch.setattr("n2n_edge.doctor.diagnosis.training_check", lambda: trained)  # takes seconds
    if example.needs_board:
        with running_server(tmp_path / "server") as server:
            monkeypatch.setenv("N2N_EDGE_SSH", server.ssh)
            code = _run([word.replace(BOARD, server.url()) for word in example.cheaply], monkeypatch)
    else:
        code = _run(example.cheaply, monkeypatch)

    said = capsys.readouterr()
    assert code == 0, said.err
    assert said.out


def _run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["n2n-edge", *words])
    try:
        main()
    except SystemExit as stopped:
        return stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    return 0
