"""The worker may crash, hang or be left alone; the program that asked goes on."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from n2n_edge.errors import InputError
from n2n_edge.measure.bench import WarmWorker
from n2n_edge.measure.launch import Launch
from n2n_edge.measure.measurement import MeasurementError
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.target import HostTarget
from n2n_edge.measure.worker import PROTOCOL
from tests.measure.small_models import write_conv_model

QUICK = BenchOptions(threads=1, min_time_s=0.0, max_time_s=0.05)

FAKE = f"""
import json, os, signal, sys, time
from pathlib import Path

ready = {{{{"event": "ready", "protocol": {PROTOCOL}, "runtime": "fake", "baseline_rss_bytes": None}}}}
print(json.dumps(ready), flush=True)
sys.stdin.readline()
print(json.dumps({{{{"event": "phase", "phase": "in timed runs"}}}}), flush=True)
print("the last words", file=sys.stderr, flush=True)
{{fate}}
"""


class FatedOnce(HostTarget):
    """This host, with a first worker that meets its fate on the first request; the next one is real."""

    def __init__(self, fate: str) -> None:
        super().__init__()
        self.fakes = [FAKE.format(fate=fate)]

    def launch(self, arguments: Sequence[str], prefix: Sequence[str] = ()) -> Launch:
        if self.fakes:
            return Launch([sys.executable, "-c", self.fakes.pop()])
        return super().launch(arguments, prefix)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until_gone(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while not gone(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return gone(pid)


@pytest.mark.parametrize(
    ("fate", "says"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "ended in timed runs .killed by SIGSEGV.: the last words"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL, probably for want of memory"),
        ("os._exit(7)", "exit code 7"),
    ],
)
def test_a_crash_fails_one_model_and_the_next_one_is_measured(tmp_path: Path, fate: str, says: str) -> None:
    model = write_conv_model(tmp_path / "model.onnx")

    with WarmWorker(FatedOnce(fate)) as worker:
        with pytest.raises(MeasurementError, match=says) as caught:
            worker.measure(model, QUICK)
        assert str(caught.value).startswith(str(model))
        assert worker.measure(model, QUICK).n >= 1


def test_a_hang_is_stopped_and_the_worker_replaced(tmp_path: Path) -> None:
    model = write_conv_model(tmp_path / "model.onnx")
    fate = f"Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid())); time.sleep(600)"

    with WarmWorker(FatedOnce(fate)) as worker:
        with pytest.raises(MeasurementError, match=r"no answer within 2\.1 s, in timed runs"):
            worker.measure(model, replace(QUICK, timeout_s=2.0))
        assert gone(int((tmp_path / "pid").read_text()))
        assert worker.measure(model, QUICK).n >= 1


def test_a_segfault_amid_real_runs_is_survived(tmp_path: Path) -> None:
    model = write_conv_model(tmp_path / "model.onnx")

    with WarmWorker() as worker:
        worker.measure(model, QUICK)
        pid = worker.pid
        assert pid is not None
        assassin = threading.Timer(0.3, os.kill, (pid, signal.SIGSEGV))
        assassin.start()
        with pytest.raises(MeasurementError, match="SIGSEGV"):
            worker.measure(model, BenchOptions(threads=1, min_time_s=30.0, max_time_s=30.0))
        assassin.join()
        assert worker.measure(model, QUICK).n >= 1
        assert worker.pid not in (None, pid)


def test_a_worker_killed_between_models_is_replaced(tmp_path: Path) -> None:
    model = write_conv_model(tmp_path / "model.onnx")

    with WarmWorker() as worker:
        worker.measure(model, QUICK)
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(worker.pid)] if worker.pid else [], timeout=10)
        assert worker.measure(model, QUICK).n >= 1


def test_one_warm_worker_serves_many_models_given_as_bytes(tmp_path: Path) -> None:
    models = [write_conv_model(tmp_path / f"{width}.onnx", width).read_bytes() for width in (4, 8)]

    with WarmWorker() as worker:
        sizes = [worker.measure(model, QUICK).file_size_bytes for model in models]
        pid = worker.pid
        with pytest.raises(InputError, match="onnxruntime refuses it"):
            worker.measure(b"nonsense", QUICK)
        worker.measure(models[0], QUICK)
        assert pid == worker.pid

    assert [len(model) for model in models] == sizes


def test_closing_ends_the_worker_and_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    model = write_conv_model(tmp_path / "model.onnx")

    with WarmWorker() as worker:
        worker.measure(model, QUICK)
        pid = worker.pid

    assert pid is not None
    assert gone(pid)
    assert list(folder.iterdir()) == []


def test_the_worker_ends_with_a_parent_that_is_killed_amid_a_run(tmp_path: Path) -> None:
    model = write_conv_model(tmp_path / "model.onnx")
    script = f"""
import threading, time
from pathlib import Path
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.bench import WarmWorker
worker = WarmWorker()
worker.measure(Path({str(model)!r}), BenchOptions(threads=1, min_time_s=0.0, max_time_s=0.05))
threading.Timer(0.3, lambda: print(worker.pid, flush=True)).start()
worker.measure(Path({str(model)!r}), BenchOptions(threads=1, min_time_s=60.0, max_time_s=60.0))
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not gone(pid)
        parent.kill()
        parent.wait()
        assert wait_until_gone(pid)
