"""Output that nobody reads, that finds no room, or that an encoding can't hold: the exit code is what was decided."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from n2n_edge._example import teacher_path
from tests.cli.hostile import write_model

N2N_EDGE = [sys.executable, "-m", "n2n_edge"]
ENCODINGS = ("ascii", pytest.param("cp1252", marks=pytest.mark.slow))
"""The first holds nothing that the second doesn't."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model.onnx")


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in a folder; ``$N2N`` is the command."""
    words = {**os.environ, "N2N": " ".join(N2N_EDGE), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env=words, capture_output=True, timeout=120, check=False, text=True,
        errors="surrogateescape",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("closing", "limit", "code"),
    [
        *((closing, "1", 0) for closing in ("| head -n 1", "> /dev/full", "2>&-", "> /dev/full 2>&1")),
        *((closing, "0.00001", 1) for closing in ("| true", ">&- 2>&-")),
    ],
)
def test_a_gate_ends_with_its_verdict_whoever_reads_it(model: Path, closing: str, limit: str, code: int) -> None:
    done = shell(
        f"$N2N gate {model} --no-config --max-mb {limit} --junit j.xml {closing}; echo ${{PIPESTATUS[0]}} > code",
        model.parent,
    )
    assert (model.parent / "code").read_text() == f"{code}\n"
    assert (model.parent / "j.xml").read_text().endswith("</testsuites>\n")
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert "unexpected" not in done.stderr


@pytest.mark.parametrize("command", ["predict model.onnx --device rpi4 --json", "--version", "gate --help"])
def test_a_reader_that_goes_is_no_error(model: Path, command: str) -> None:
    done = shell(f"$N2N {command} | true; echo ${{PIPESTATUS[0]}}", model.parent)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_a_document_that_is_lost_is_no_success(model: Path) -> None:
    done = shell("$N2N predict model.onnx --device rpi4 --json > /dev/full", model.parent)
    assert done.returncode == 3
    assert done.stderr.startswith("n2n-edge: stdout can't be written (No space left on device)")
    assert done.stderr.count("\n") == 1


COMMANDS = """
import sys
from n2n_edge.cli.app import main
model, *commands = sys.argv[1:]
for words in (line.split(" ") for line in commands):
    sys.argv = ["n2n-edge", words[0], model, *words[1:]]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, (words, ended.code)
"""


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_of_stdout_will_do(tmp_path: Path, encoding: str) -> None:
    model = write_model(tmp_path / "größe × 模型.onnx", name="层 → ü")
    commands = ["inspect", "predict --device rpi4", "gate --no-config --max-mb 1"]
    commands.append("bench --max-time 0.1 --save bench.json --csv bench.csv")
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, model.name, *commands], cwd=tmp_path, capture_output=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": encoding}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"\n") > len(commands)
    assert json.loads((tmp_path / "bench.json").read_text())["models"]
    assert (tmp_path / "bench.csv").stat().st_size > 0


def test_results_of_a_bench_are_written_before_they_are_printed(model: Path) -> None:
    done = shell("$N2N bench model.onnx --max-time 0.1 --save b.json --html b.html > /dev/full", model.parent)
    assert done.returncode == 3
    assert json.loads((model.parent / "b.json").read_text())["models"]
    assert (model.parent / "b.html").stat().st_size > 0


@pytest.mark.parametrize(
    "does",
    [
        "sys.stdout.close()",
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in ("sys.stderr.close()", "sys.stdout = sys.stderr = None", "print('x', file=sys.__stdout__)")
        ),
    ],
)
def test_a_data_function_that_takes_the_streams_away_hides_no_verdict(model: Path, does: str) -> None:
    (model.parent / "own.py").write_text(
        f"import sys, numpy as np\n\ndef load():\n    {does}\n"
        "    return [(np.full((16, 16), i, np.uint8), i % 10) for i in range(60)]\n"
    )
    done = shell(
        f"$N2N gate {teacher_path()} --no-config --min-accuracy 1 --mean 0 --std 1 --data own:load",
        model.parent,
    )
    assert done.returncode == 1, done.stderr
    assert "FAIL: 1 of 1 missed" in done.stdout
    assert "Traceback" not in done.stderr
    assert "warning: only" in done.stderr
