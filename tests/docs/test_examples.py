"""What the pages tell a reader to type really works."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from n2n_edge._example import teacher_path

ROOT = Path(__file__).resolve().parents[2]


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", blocks("reference/python.md", "python"), ids=lambda code: code.splitlines()[-1])
def test_python(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "compress(" in code or "run." in code or "main.onnx" in code:
        pytest.skip("a run takes minutes; tests/runs and tests/test_reference.py have their own")
    if "torch" in code:
        pytest.importorskip("torch")
    (tmp_path / "run").mkdir()
    for name in ("teacher.onnx", "student.onnx", "run/student.onnx"):
        shutil.copy(teacher_path(), tmp_path / name)
    monkeypatch.chdir(tmp_path)

    exec(compile(code, "python.md", "exec"), {})


def test_a_task_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    module, checks = blocks("howto/own-task.md", "python")
    (tmp_path / "angles.py").write_text(module, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))

    exec(compile(checks, "own-task.md", "exec"), {})


@pytest.mark.slow
def test_the_tutorial(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the built-in example needs scikit-learn")
    pytest.importorskip("torch")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, words in (("n2n-edge", '-m n2n_edge "$@"'), ("python", '"$@"')):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words}\n')
        (programs / name).chmod(0o755)
    (tmp_path / "work").mkdir()
    install, *rest = blocks("tutorial.md", "sh")
    assert "pip install" in install

    done = subprocess.run(
        ["bash", "-c", "\n".join(rest)],
        capture_output=True, text=True, timeout=1800, check=False, cwd=tmp_path / "work",
        env=os.environ | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "XDG_CONFIG_HOME": str(tmp_path / "config"),
        },
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "pass: all 2 met\n0\n" in done.stdout, done.stdout
    assert "FAIL: 1 of 1 missed\n1\n" in done.stdout, done.stdout
    assert "faster; 99% interval" in done.stdout
    assert (tmp_path / "work" / "digits" / "report.html").is_file()
