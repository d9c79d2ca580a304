"""The public names as a user's type checker sees them."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
from pathlib import Path

import n2n_edge
from n2n_edge import Budget, Run, RunCallback, Teacher, build, costs, load_profile


class Quiet(RunCallback):
    def on_message(self, text: str) -> None:
        return None


def small(folder: Path) -> Run:
    return n2n_edge.compress(
        "teacher.onnx", "images", device=[load_profile("jetson"), "cpu"], max_mb=0.5, budgets=[Budget("macs", 1e6)],
        callbacks=[Quiet()], out=folder,
    )


run = small(Path("run"))
met: bool = run.met
numbers: list[int] = [trial.number for trial in run.trials]
student: Path = run.ship(1, epochs=2).student
params: int = costs(build(Teacher.load("teacher.onnx"), Teacher.load("teacher.onnx").full)).params
milliseconds: float = n2n_edge.predict("student.onnx", "raspberry-pi-4").figure.value
outcomes: list[str] = [str(gated.outcome) for gated in n2n_edge.gate("student.onnx", max_mb=0.5)]
layers: int = len(n2n_edge.inspect("student.onnx").layers)
n2n_edge.compress(max_mb="0.5")  # error
n2n_edge.compress(max_mB=0.5)  # error
"""


def test_a_users_program_passes_mypy_and_mistakes_do_not(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    cache = str(ROOT / ".mypy_cache")
    out, _, _ = api.run(["--strict", "--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", cache, str(program)])
    wrong = [number for number, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith("# error")]
    lines = [int(line.split(":")[1]) for line in out.splitlines() if ": error:" in line]
    assert sorted(set(lines)) == wrong, out
