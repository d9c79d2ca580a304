"""Accuracy of a file by ONNX Runtime and numpy alone: without torch, for fixed batches, equal to what torch says."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from n2n_edge._example import teacher_path
from n2n_edge.data.dataset import load_data
from n2n_edge.errors import UnsuitableEnvironmentError
from n2n_edge.graph.load import load_model
from n2n_edge.runs.accuracy import TestData, file_accuracy
from n2n_edge.training.evaluation import evaluate
from n2n_edge.training.file_evaluation import evaluate_file

WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
from n2n_edge.cli.app import main
main()
"""


def gate_without(missing: set[str], *words: object) -> subprocess.CompletedProcess[str]:
    code = WITHOUT.format(missing=missing)
    command = [sys.executable, "-c", code, "gate", *map(str, words), "--no-config"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def class_folder(root: Path) -> Path:
    random = np.random.RandomState(0)
    for name in map(str, range(10)):
        (root / name).mkdir(parents=True)
        for index in range(6):
            Image.fromarray(random.randint(0, 255, (16, 16)).astype(np.uint8)).save(root / name / f"{index}.png")
    return root


def npz(root: Path) -> Path:
    root.mkdir()
    np.savez(root / "data.npz", x=np.zeros((60, 16, 16), np.uint8), y=np.arange(60) % 10)
    return root / "data.npz"


@pytest.mark.parametrize("make", [class_folder, npz])
def test_accuracy_needs_no_torch(tmp_path, make):
    data = make(tmp_path / "data")
    done = gate_without(
        {"torch", "onnxscript", "safetensors"}, teacher_path(), "--min-accuracy", 0.0001, "--data", data, "--json"
    )
    assert done.returncode in (0, 1), done.stderr
    assert json.loads(done.stdout)["budgets"][0]["reached"]["n"] == 10


def test_accuracy_without_pillow_names_the_package(tmp_path):
    done = gate_without(
        {"torch", "PIL"}, teacher_path(), "--min-accuracy", 0.5, "--data", npz(tmp_path / "data"), "--json"
    )
    assert done.returncode == 3
    assert "pip install pillow" in done.stdout


def test_a_budget_file_with_preprocessing_is_checked_without_pillow(tmp_path):
    config = tmp_path / "n2n-edge.toml"
    config.write_text('[gate]\nmax-mb = 2\nresize = "letterbox"\npad-color = [1, 2, 3]\n')
    command = [sys.executable, "-c", WITHOUT.format(missing={"torch", "PIL"}), "gate", teacher_path()]
    done = subprocess.run([*command, "--config", config, "--static"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def digits():
    pytest.importorskip("sklearn")
    return load_data("builtin:digits", input_shape=(1, 16, 16), classes=10, mean=(0.3,), std=(0.5,))


def test_it_is_what_torch_says(digits):
    model = load_model(teacher_path())
    found = evaluate_file(teacher_path(), digits.test, digits, teacher=teacher_path())
    assert found.score == evaluate(model, digits.test, digits).score
    assert (found.fidelity, found.n) == (1.0, len(digits.test))


def test_a_file_with_a_fixed_batch_is_fed_such_batches(digits, tmp_path):
    model = onnx.load(teacher_path())
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].ClearField("dim_param")
        value.type.tensor_type.shape.dim[0].dim_value = 7
    onnx.save(model, tmp_path / "seven.onnx")
    found = evaluate_file(tmp_path / "seven.onnx", digits.test, digits, teacher=teacher_path())
    assert (found.score, found.fidelity) == (evaluate_file(teacher_path(), digits.test, digits).score, 1.0)


def test_a_file_that_cannot_run_is_inconclusive(digits, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(UnsuitableEnvironmentError, match="can't run it"):
        evaluate_file(tmp_path / "broken.onnx", digits.test, digits)


def channels_last(path: Path, shape: list[object]) -> Path:
    helper = onnx.helper
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
            helper.make_node("GlobalAveragePool", ["t"], ["p"]),
            helper.make_node("Concat", ["p", "p"], ["y"], axis=1),  # of two numbers, so that labels don't count
        ],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [shape[0], 2, 1, 1])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("shape", [["N", 16, 16, 1], [1, 16, 16, 1]], ids=str)
def test_channels_last_are_given_channels_last(tmp_path, shape):
    model = channels_last(tmp_path / "nhwc.onnx", shape)

    _, figure, *_ = file_accuracy(model, TestData("builtin:digits"), baseline=model)

    assert figure.value == 1.0
