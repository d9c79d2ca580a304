"""The package as it is installed: version, command, imports, what it carries."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner

import n2n_edge
from n2n_edge._example import teacher_path
from n2n_edge.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "onnxruntime", "onnxscript", "sklearn", "PIL", "jinja2")


def _python(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _command(*arguments):
    code = "import sys; from n2n_edge.cli.app import main; sys.argv[0] = 'n2n-edge'; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=120
    )


def _project_version():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def test_the_version_is_the_one_of_the_project_file():
    if n2n_edge.__version__ == "0+unknown":
        pytest.skip("n2n-edge is not installed in this environment, only importable")
    assert n2n_edge.__version__ == _project_version()


def test_the_changelog_has_an_entry_for_the_version():
    assert re.search(rf"^## {re.escape(_project_version())}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_version_and_help_answer_on_the_command_line():
    version = _command("--version")
    assert version.returncode == 0
    assert n2n_edge.__version__ in version.stdout
    usage = _command("--help")
    assert usage.returncode == 0
    for command in ("compress", "bench", "inspect", "gate", "profiles"):
        assert command in usage.stdout


def test_the_installed_console_script_runs():
    script = shutil.which("n2n-edge", path=str(Path(sys.executable).parent))
    if script is None:
        pytest.skip("n2n-edge is not installed in this environment, only importable")
    done = subprocess.run([script, "--help"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert "compress" in done.stdout


def test_importing_loads_nothing_heavy_and_what_runs_on_the_board_imports_no_torch():
    code = """
import sys, importlib
for name in sys.argv[1:]:
    importlib.import_module(name)
    print(name, *sorted(set(%s) & set(sys.modules)))
"""
    names = [f"n2n_edge{part}" for part in ("", ".cli.app", ".graph", ".measure", ".devices", ".gating")]
    seen = {name: set(heavy) for name, *heavy in map(str.split, _python(code % (HEAVY,), *names).splitlines())}
    assert list(seen) == names
    assert not seen["n2n_edge"] | seen["n2n_edge.cli.app"]
    assert not {name for name, heavy in seen.items() if "torch" in heavy}


def test_imports_go_one_way():
    tool = Path(sys.executable).with_name("lint-imports")
    if not tool.exists():
        pytest.skip("needs import-linter: install the extra [dev]")
    done = subprocess.run([tool, "--no-cache"], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stdout


def test_shipped_profiles_are_found():
    from n2n_edge.devices.registry import list_profiles, load_profile

    assert {"cpu", "raspberry-pi-4", "jetson-orin-nano"} <= {profile.name for profile in list_profiles()}
    assert load_profile("jetson").name == "jetson-orin-nano"


def test_the_example_teacher_ships_ready_for_compression():
    model = onnx.load(teacher_path())
    onnx.checker.check_model(model, full_check=True)
    ops = [node.op_type for node in model.graph.node]
    assert ops.count("BatchNormalization") == ops.count("Conv")
    assert "Identity" not in ops
    (image,), (logits,) = model.graph.input, model.graph.output
    sizes = [
        [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in (image, logits)
    ]
    assert (image.name, logits.name, sizes) == ("input", "logits", [["N", 1, 16, 16], ["N", 10]])
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["n2n_edge.data"] == "builtin:digits"
    assert len(json.loads(metadata["n2n_edge.mean"])) == len(json.loads(metadata["n2n_edge.std"])) == 1


def test_the_example_teacher_is_as_good_as_its_results_file_says():
    pytest.importorskip("sklearn", reason="the built-in example needs scikit-learn")
    results = json.loads((ROOT / "benchmarks/example_teacher/results.json").read_text(encoding="utf-8"))
    words = ["gate", str(teacher_path()), "--no-config", "--data", "builtin:digits", "--min-accuracy", "0.98", "--json"]
    (budget,) = json.loads(CliRunner().invoke(app, words).stdout)["budgets"]
    assert budget["met"]
    assert budget["reached"]["n"] == results["images"]["test"]
    assert budget["reached"]["value"] == pytest.approx(results["accuracy"]["test"], abs=1e-4)
    assert results["file_bytes"] == teacher_path().stat().st_size
    weights = onnx.load(teacher_path()).graph.initializer
    statistics = sum(
        len(onnx.numpy_helper.to_array(one)) for one in weights if one.name.endswith(("running_mean", "running_var"))
    )
    elements = sum(onnx.numpy_helper.to_array(one).size for one in weights if one.data_type == onnx.TensorProto.FLOAT)
    assert results["trainable_params"] == elements - statistics
