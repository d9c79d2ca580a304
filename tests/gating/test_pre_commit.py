"""The pre-commit hook, as pre-commit calls it."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.gating.models import save_conv

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = ROOT / ".pre-commit-hooks.yaml"
BIN = Path(sys.executable).parent


@pytest.fixture
def repository(tmp_path):
    (tmp_path / "models").mkdir()
    save_conv(tmp_path / "models" / "a.onnx")
    save_conv(tmp_path / "models" / "b.onnx", channels=4)
    (tmp_path / "n2n-edge.toml").write_text(
        '[gate.models."models/*.onnx"]\nmax-params = 79\nmax-latency-ms = 1\ntarget = "host"\n'
    )
    return tmp_path


def _pre_commit(*arguments, cwd=ROOT):
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        [str(BIN / "pre-commit"), *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_pre_commit_takes_the_manifest():
    done = _pre_commit("validate-manifest", str(MANIFEST))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_hook_judges_the_files_it_is_given_and_times_nothing(repository):
    (hook,) = yaml.safe_load(MANIFEST.read_text())
    command = [*shlex.split(hook["entry"]), "models/a.onnx", "models/b.onnx"]
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]], cwd=repository, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "FAIL: 1 of 2 checks of 2 models missed" in done.stdout
    assert "--max-latency-ms 1: not checked, --static" in done.stderr


def test_a_model_without_budgets_is_passed_over_with_a_word(repository):
    (hook,) = yaml.safe_load(MANIFEST.read_text())
    save_conv(repository / "other.onnx")
    command = [*shlex.split(hook["entry"]), "models/b.onnx", "other.onnx"]
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]], cwd=repository, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "other.onnx: passed over" in done.stderr


@pytest.mark.slow
def test_pre_commit_installs_and_runs_the_hook(repository, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PRE_COMMIT_HOME", str(tmp_path_factory.mktemp("pre-commit")))
    for command in (("init", "-q"), ("add", "-A")):
        subprocess.run(["git", *command], cwd=repository, check=True)
    done = _pre_commit("try-repo", str(ROOT), "n2n-edge-gate", "--files", "models/b.onnx", cwd=repository)
    assert done.returncode == 0, done.stdout + done.stderr
    done = _pre_commit("try-repo", str(ROOT), "n2n-edge-gate", "--all-files", cwd=repository)
    assert done.returncode == 1
    assert "--max-params 79" in done.stdout
