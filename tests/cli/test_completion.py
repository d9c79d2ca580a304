"""What a shell is offered, asked for as a shell asks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fork_server import Forks

CODE = "import sys; from n2n_edge.cli.app import main; sys.argv[0] = 'n2n-edge'; main()"


def command(forks: Forks, *arguments: str, **variables: str) -> str:
    done = subprocess.run(
        forks.argv([sys.executable, "-c", CODE, *arguments]),
        capture_output=True, text=True, timeout=120, check=False, env=os.environ | variables,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def offered(forks: Forks, shell: str, line: str, **variables: str) -> set[str]:
    words = line.split(" ")
    said = command(
        forks,
        _N2N_EDGE_COMPLETE=f"complete_{shell}",
        COMP_WORDS=line,
        COMP_CWORD=str(len(words) - 1),
        _TYPER_COMPLETE_ARGS=line,
        _TYPER_COMPLETE_FISH_ACTION="get-args",
        **variables,
    )
    return {part.strip('"') for row in said.splitlines() for part in row.replace("((", " ").replace(":", " ").split()}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_options_and_devices_are_offered(shell: str, command_forks: Forks) -> None:
    assert {"bench", "compress", "doctor", "gate", "inspect"} <= offered(command_forks, shell, "n2n-edge ")
    assert {"calibrate", "check"} <= offered(command_forks, shell, "n2n-edge device ")
    assert "--threshold" in offered(command_forks, shell, "n2n-edge bench --thr")
    devices = offered(command_forks, shell, "n2n-edge predict --device rasp")
    assert {"raspberry-pi-4", "raspberry-pi-5"} <= devices
    assert "jetson" not in devices


def test_the_users_own_profiles_are_offered(tmp_path: Path, command_forks: Forks) -> None:
    folder = tmp_path / "n2n-edge" / "profiles"
    folder.mkdir(parents=True)
    (folder / "board.toml").write_text('name = "my-board"\naliases = ["mine"]\n')
    (folder / "broken.toml").write_text("name = ")

    assert {"my-board", "mine"} <= offered(
        command_forks, "bash", "n2n-edge bench --device m", XDG_CONFIG_HOME=str(tmp_path)
    )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_ask(shell: str, command_forks: Forks) -> None:
    script = command(command_forks, "--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")

    assert f"_N2N_EDGE_COMPLETE=complete_{shell}" in script
    assert "n2n-edge" in script


def test_bash_itself_completes_with_it(tmp_path: Path, command_forks: Forks) -> None:
    script = command(command_forks, "--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    program = tmp_path / "n2n-edge"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{CODE}" "$@"\n')
    program.chmod(0o755)
    lines = f"""{script}
COMP_WORDS=(n2n-edge bench --device raspberry-pi-z); COMP_CWORD=3
_n2n_edge_completion n2n-edge
echo "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(
        ["bash", "--norc", "-c", lines],
        capture_output=True, text=True, timeout=120, check=False,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.stdout.split() == ["raspberry-pi-zero-2-w"], done.stderr
