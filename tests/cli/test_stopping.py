"""Signals that end a run: one line that says how to go on, and the exit code of the signal."""

import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import typer

from n2n_edge.cli.stopping import resumable
from n2n_edge.foreign import foreign_code
from tests.runs.small import images_npz, teacher_file

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("within_foreign_code", [False, True])
def test_a_signal_ends_the_block_with_a_line(
    number: signal.Signals, within_foreign_code: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    given = signal.signal(number, signal.SIG_DFL if number is not signal.SIGINT else signal.default_int_handler)
    before = [signal.getsignal(each) for each in SIGNALS]  # a hangup may be ignored, as under nohup
    closed = []

    def stopped() -> None:
        with resumable(lambda: "go on with `this`"):
            try:
                with foreign_code("--data m:load") if within_foreign_code else nullcontext():
                    os.kill(os.getpid(), number)
                    time.sleep(60)
            finally:
                closed.append(True)

    try:
        with pytest.raises(typer.Exit) as caught:
            stopped()
        assert [signal.getsignal(each) for each in SIGNALS] == before
    finally:
        signal.signal(number, given)
    assert caught.value.exit_code == 128 + number
    assert capsys.readouterr().err == f"n2n-edge: stopped by {number.name}; go on with `this`\n"
    assert closed


def test_what_ends_by_itself_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with resumable(lambda: "go on"):
        pass
    assert capsys.readouterr().err == ""


def test_a_stopped_run_names_the_command_that_goes_on(tmp_path: Path) -> None:
    out, teacher, data = tmp_path / "a run", teacher_file(tmp_path / "t.onnx"), images_npz(tmp_path / "d.npz")
    words = ["compress", str(teacher), "--data", str(data), "--mean", "0.5", "--std", "0.5", "--max-params", "4000"]
    words += ["--candidates", "40", "--out", str(out)]
    with subprocess.Popen(
        [sys.executable, "-m", "n2n_edge", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            if line.startswith("searching") and not any(earlier.startswith("searching") for earlier in lines):
                process.send_signal(signal.SIGTERM)  # once: a second signal ends the process at once
            lines.append(line)
    assert process.returncode == 128 + signal.SIGTERM
    assert lines[-1] == f"n2n-edge: stopped by SIGTERM; go on with `n2n-edge compress --resume --out '{out}'`\n"
    assert {"run.toml", "journal.sqlite"} <= {path.name for path in out.iterdir()}
