"""What the pages tell a reader to type really works."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import n2n_edge
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


def test_a_detector_is_drawn_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, draw = blocks("howto/detection.md", "python")
    rows = np.zeros((1, 6, 84), np.float32)
    rows[0, :, 0], rows[0, :, 1] = (32, 20, 16, 10, 0.1, 0.9), (33, 20, 16, 10, 0.1, 0.8)  # of which one goes
    rows[0, :, 2] = (10, 40, 8, 8, 0.7, 0.1)
    helper = onnx.helper
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "nought"], ["zero"]),
        helper.make_node("Add", ["zero", "rows"], ["output0"]),
    ]
    values = {"rows": rows, "nought": np.zeros(1, np.float32)}
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in values.items()]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("images", 1, ["N", 3, 64, 64])],
        [helper.make_tensor_value_info("output0", 1, ["N", 6, 84])], constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    how = n2n_edge.Preprocessing((64, 64), resize="letterbox").to_json()
    helper.set_model_props(model, {"n2n_edge.preprocessing": json.dumps(how)})
    onnx.save(model, tmp_path / "student.onnx")
    Image.new("RGB", (128, 96), (90, 90, 90)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    exec(compile(draw, "detection.md", "exec"), found := {})
    assert [int(each) for each in found["kept"]] == [0, 2]
    drawn = np.asarray(Image.open(tmp_path / "detections.png"))
    orange = np.argwhere((drawn == (255, 120, 0)).all(axis=2))
    # the first box is 24, 15 to 40, 25 in the input, where the picture begins 8 lower at half its size
    assert (drawn[14:16, 48:80] == (255, 120, 0)).all(axis=2).any()
    assert len(orange) > 50

    exec(compile(decode, "detection.md", "exec"), given := {})
    boxes, scores, classes = given["decode"]([np.zeros((2, 5, 4)), np.ones((2, 5, 3))])
    assert (boxes.shape, scores.shape, classes.shape) == ((2, 5, 4), (2, 5), (2, 5))


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
