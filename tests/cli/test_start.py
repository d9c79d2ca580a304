"""What answers at once: help of every command, versions, and what neither of them imports."""

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from onnx import helper

from n2n_edge._example import teacher_path
from tests.cli.help_examples import commands

HEAVY = {
    "PIL", "jinja2", "numpy", "onnx", "onnx_ir", "onnxruntime", "psutil", "pydantic", "sklearn", "tensorboard", "torch",
}  # fmt: skip
CODE = """
import json, sys
from n2n_edge.cli.app import main
sys.argv = ["n2n-edge", *sys.argv[1:]]
try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def asked(*words: str) -> tuple[str, set[str]]:
    """Return what the command says, and the modules that it has imported by then."""
    done = subprocess.run([sys.executable, "-c", CODE, *words], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize("words", [(), *(tuple(name.split()) for name in commands())], ids=" ".join)
def test_help_imports_nothing_heavy_and_loses_nothing(words: tuple[str, ...]) -> None:
    said, modules = asked(*words, "--help")

    own = HEAVY - {"pydantic"} if words else HEAVY  # newer typers themselves read the values of options with it
    assert not own & modules
    assert "Usage: n2n-edge" in said
    if words:
        assert "Examples:" in said


def test_a_gate_on_files_alone_imports_no_runtime_and_no_profiles(tmp_path: Path) -> None:
    model = shutil.copy(teacher_path(), tmp_path / "teacher.onnx")
    _, modules = asked("gate", str(model), "--no-config", "--max-mb", "2")

    assert not {"onnxruntime", "torch", "jinja2", "n2n_edge.devices.profile"} & modules


def test_what_stands_in_brackets_is_shown() -> None:
    assert "[default: the profile's]" in asked("predict", "--help")[0]
    assert "ssh://[user@]host[:port]" in "".join(asked("device", "check", "--help")[0].split())


def test_versions_of_all_that_results_depend_on() -> None:
    said, modules = asked("--version")

    lines = said.splitlines()
    assert lines[0] == f"n2n-edge {metadata.version('n2n-edge')}"
    found = dict(line.split(" ", 1) for line in lines[1:])
    assert list(found) == ["python", "onnxruntime", "onnx", "numpy", "torch", "platform"]
    assert found["python"] == platform.python_version()
    for name in ("onnx", "numpy", "onnxruntime"):
        assert found[name] == metadata.version(name)
    assert not (HEAVY | {"rich"}) & modules


def test_what_a_file_makes_libraries_log_does_not_stand_above_the_answer(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="QQQQ")
    inputs = [helper.make_tensor_value_info("x", 1, [1, 3, 8, 8]), helper.make_tensor_value_info("w", 1, [4, 3, 3, 3])]
    graph = helper.make_graph([node], "g", inputs, [helper.make_tensor_value_info("y", 1, None)])
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    (tmp_path / "model.onnx").write_bytes(content.replace(b"QQQQ", b"\xff\xfe\xff\xfe"))

    code, _, errors = call("inspect", "model.onnx")

    assert code == 2
    assert len(errors.splitlines()) == 1
    assert caplog.records == []
