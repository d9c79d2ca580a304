"""The public names as a user's type checker sees them."""

from pathlib import Path

import pytest

SETTINGS = """
[mypy]
strict = True
ignore_missing_imports = True
follow_imports = skip
[mypy-n2n_edge.*]
follow_imports = normal
[mypy-numpy.*]
follow_imports = skip
follow_imports_for_stubs = True
"""
"""What n2n_edge itself imports is not read: that takes six times as long."""
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
students: list[Path] = [each.student for each in run.ship([1, 2], workers=2)]
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
    settings = tmp_path / "mypy.ini"
    settings.write_text(SETTINGS)
    out, _, _ = api.run(["--config-file", str(settings), "--cache-dir", str(tmp_path / "cache"), str(program)])
    wrong = [number for number, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith("# error")]
    lines = [int(line.split(":")[1]) for line in out.splitlines() if ": error:" in line]
    assert sorted(set(lines)) == wrong, out
