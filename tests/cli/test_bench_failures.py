"""A model that can't be run, in whatever way, costs the others nothing: `bench` gives their figures, and its code."""

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from n2n_edge.cli.bench import bench
from n2n_edge.errors import InputError
from n2n_edge.measure import worker as worker_package
from n2n_edge.measure.launch import Launch
from n2n_edge.measure.target import HostTarget
from tests.fork_server import Forks
from tests.measure.fake_board import install
from tests.measure.small_models import write_conv_model, write_failing_model, write_gemm_model

QUICK = ["--min-time", "0", "--max-time", "0.1", "--threads", "1"]

app = typer.Typer()
app.command()(bench)

WORKER = f"""
import os, signal, sys, time
sys.path.append({str(Path(worker_package.__file__).parents[1])!r})
from worker.commands import Worker as commands
from worker.serving import serve
for command in ("measure", "open", "block", "profile"):
    def meet_fate(self, request, whole=getattr(commands, command), command=command):
        bad = "bad" in request.get("model_path", "") or getattr(self, "bad", False)
        if bad and command in ("measure", "FATAL"):
            FATE
        self.bad = bad
        return whole(self, request)
    setattr(commands, command, meet_fate)
serve(sys.argv[1:])
"""


def fated(folder: Path, monkeypatch: pytest.MonkeyPatch, forks: Forks, fate: str, command: str = "open") -> None:
    """Let workers on this host meet a fate when a model called bad is opened, or at another command."""
    script = folder / "fated_worker.py"
    script.write_text(WORKER.replace("FATAL", command).replace("FATE", fate))

    def launch(self: HostTarget, arguments: Sequence[str], prefix: Sequence[str] = ()) -> Launch:
        return Launch(forks.argv([*prefix, sys.executable, "-P", str(script), *arguments]))

    monkeypatch.setattr(HostTarget, "launch", launch)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


BAD = {
    "corrupt": 2,
    "missing": 2,
    "folder": 2,
    "fails": 3,
    "too large": 4,
    "crashes": 3,
    "crashes amid runs": 3,
    "hangs": 3,
    "talks nonsense": 3,
    "costs can't be told": 0,
    "layers can't be told": 0,
}


def arrange(how: str, folder: Path, monkeypatch: pytest.MonkeyPatch, forks: Forks) -> tuple[Path, list[str]]:
    """Return a model called bad that meets its fate, and options that it takes."""
    path = folder / "bad.onnx"
    if how == "folder":
        path.mkdir()
    elif how == "fails":
        write_failing_model(path)
    elif how == "too large":
        write_gemm_model(path, 5000)  # 100 MB
        return path, ["--max-memory-mb", "140"]
    elif how != "missing":
        write_conv_model(path, 8)
    if how == "corrupt":
        path.write_bytes(path.read_bytes()[:150])
    if how.startswith("crashes"):
        fated(folder, monkeypatch, forks, "os.kill(os.getpid(), signal.SIGSEGV)", "block" if "amid" in how else "open")
    if how == "hangs":
        fated(folder, monkeypatch, forks, "time.sleep(600)")
        return path, ["--timeout", "2"]
    if how == "talks nonsense":
        fated(folder, monkeypatch, forks, "return {'session_ms': -1}")
    if "can't be told" in how:

        def broken(*_: object) -> object:
            raise IndexError("list index out of range")

        module, name = (
            ("n2n_edge.graph", "costs") if how.startswith("costs") else ("n2n_edge.measure.bench", "layers_by_name")
        )
        monkeypatch.setattr(sys.modules[module], name, broken)
    return path, []


@pytest.mark.parametrize("first", [True, False], ids=["bad first", "bad last"])
@pytest.mark.parametrize("how", BAD)
def test_the_figures_of_the_others_are_given(
    how: str, first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forks: Forks
) -> None:
    good = write_conv_model(tmp_path / "good.onnx")
    bad, options = arrange(how, tmp_path, monkeypatch, forks)
    saved, table = tmp_path / "b.json", tmp_path / "b.csv"
    files = ["--save", saved, "--csv", table, "--html", tmp_path / "b.html", "--markdown", tmp_path / "b.md"]

    result = run(*([bad, good] if first else [good, bad]), *QUICK, *options, *files, "--json")

    assert result.exit_code == BAD[how], result.output
    document = json.loads(result.stdout)
    assert json.loads(saved.read_text()) == document
    rows = {Path(row["path"]).name: row for row in csv.DictReader(table.read_text().splitlines())}
    models = {Path(model["path"]).name: model for model in document["models"]}
    assert models["good.onnx"]["p50_ms"]["value"] > 0
    assert float(rows["good.onnx"]["p50_ms"]) > 0
    assert "good.onnx" in (tmp_path / "b.html").read_text()
    if BAD[how]:
        assert models["bad.onnx"]["error"]
        assert rows["bad.onnx"]["error"]
        assert result.stderr.count("\n") == 1
        assert "against_first" not in models["good.onnx"]
    else:
        assert models["bad.onnx"]["p50_ms"]["value"] > 0


def test_a_terminal_shows_them_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forks: Forks) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    good = write_conv_model(tmp_path / "good.onnx")
    bad, _ = arrange("crashes", tmp_path, monkeypatch, forks)

    result = run(good, bad, *QUICK)

    assert result.exit_code == 3
    assert "p50 ms" in result.stdout
    assert "killed by SIGSEGV" in result.stderr


def test_a_model_that_breaks_the_connection_each_time_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = write_conv_model(tmp_path / "good.onnx"), write_conv_model(tmp_path / "bad.onnx", 32)
    # the board puts models by their digest: the larger one is the bad one
    during = (
        "if command == 'put': answer['path'] = str(len(request['data_base64']))\n"
        f"if command == 'open' and int(request['model_path']) > {4 * good.stat().st_size // 3 + 8}: sys.exit(255)"
    )
    install(tmp_path, monkeypatch, during=during)

    result = run(good, bad, *QUICK, "--target", "ssh://board", "--json")

    assert result.exit_code == 3, result.output
    found, failed = json.loads(result.stdout)["models"]
    assert found["p50_ms"]["value"] == 1.0
    assert "no connection, or it was lost" in failed["error"]


NUMBERS = ["0", "-1", "nan", "inf", "-inf", "1e308", "1e400", "9" * 20, "9" * 5000, "x", ""]


@pytest.mark.parametrize(
    "option",
    ["--threads", "--batch", "--streams", "--min-time", "--max-time", "--timeout", "--threshold", "--max-memory-mb"],
)
def test_no_number_is_unexpected(tmp_path: Path, option: str) -> None:
    path = write_conv_model(tmp_path / "small.onnx")
    for number in NUMBERS:
        value = f"{number}%" if option == "--threshold" else number

        result = run(path, *QUICK, option, value)

        assert result.exit_code in (0, 2) or isinstance(result.exception, InputError), (value, result.output)
        if isinstance(result.exception, InputError):
            assert "\n" not in str(result.exception)


@pytest.mark.parametrize(("option", "what"), [("--threads", "threads"), ("--streams", "streams")])
def test_more_threads_than_a_machine_can_bear_are_refused(tmp_path: Path, option: str, what: str) -> None:
    result = run(write_conv_model(tmp_path / "small.onnx"), "--max-time", "0.1", option, "4096")

    assert isinstance(result.exception, InputError)
    assert f"4096 {what} are too many for the" in str(result.exception)
