"""Whole runs on workers: the same student as in one process, whatever is killed; what can't be reached is one line."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

import n2n_edge
from n2n_edge.errors import UnsuitableEnvironmentError
from n2n_edge.search.store import Journal
from tests.cluster.fake_ray import fake_ray
from tests.runs.small import images_npz, teacher_file

SETTINGS = ["--max-params", "4000", "--effort", "quick", "--candidates", "6", "--epochs", "1", "--mean", "0.5"]
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray, the extra [cluster]")


def command(out: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "n2n_edge", "compress", *words, "--out", str(out)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The words that name a small teacher and its data."""
    folder = tmp_path_factory.mktemp("small")
    teacher, data = teacher_file(folder / "teacher.onnx"), images_npz(folder / "data.npz")
    return [str(teacher), "--data", str(data), "--std", "0.5", *SETTINGS]


def run(out: Path, *words: str) -> str:
    done = subprocess.run(
        command(out, *words), env=environment(), capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def trials(out: Path) -> list[tuple[object, ...]]:
    with Journal.read(out / "journal.sqlite") as journal:
        return [(trial.stage, trial.number, trial.key, trial.score, trial.reward) for trial in journal.trials()]


@pytest.fixture(scope="module")
def whole(small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one process."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run(out, *small)
    return out


def test_a_run_whose_candidates_go_to_workers_ends_with_the_same_student(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, data = teacher_file(tmp_path / "teacher.onnx"), images_npz(tmp_path / "data.npz")

    def student(name: str, **more: int) -> bytes:
        return n2n_edge.compress(
            teacher, data, max_params=4000.0, effort="quick", candidates=4, epochs=1, mean=(0.5,), std=(0.5,),
            out=tmp_path / name, **more,
        ).student.read_bytes()  # fmt: skip

    alone = student("alone")
    ray = fake_ray()
    monkeypatch.setitem(sys.modules, "ray", ray)
    assert student("workers", workers=3) == alone
    assert len(ray.actors) == 3
    assert trials(tmp_path / "workers") == trials(tmp_path / "alone")


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("words", [["--cluster", "local", "--workers", "1"], ["--workers", "4"]], ids=["one", "four"])
def test_a_run_on_workers_ends_with_the_same_student(
    small: list[str], whole: Path, tmp_path: Path, words: list[str]
) -> None:
    said = run(tmp_path / "run", *small, *words)
    assert f"evaluating on {words[-1]} workers of this machine" in said
    assert trials(tmp_path / "run") == trials(whole)
    assert (tmp_path / "run" / "student.onnx").read_bytes() == (whole / "student.onnx").read_bytes()


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of the client server of a Ray that was started as a cluster's head, on the loopback interface."""
    for name, value in {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "200",
    }.items():
        monkeypatch.setenv(name, value)
    with tempfile.TemporaryDirectory(prefix="head-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        for _ in range(3):  # its parts give each other half a minute, which a busy machine may exceed
            process, port = started_head(folder)
            if process.poll() is None:
                break
        assert process.poll() is None
        yield f"ray://127.0.0.1:{port}"
        children = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.wait()
        for child in psutil.wait_procs(children, timeout=60)[1]:
            child.kill()


def started_head(folder: str) -> "tuple[subprocess.Popen[bytes], int]":
    """Start a head, and wait until its client server answers or it has ended."""
    ports = free_ports(2)
    words = ["--port", str(ports[0]), "--ray-client-server-port", str(ports[1]), "--temp-dir", folder]
    words += ["--node-ip-address", "127.0.0.1", "--num-cpus", "2", "--include-dashboard", "false"]
    ray = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
    start = [*ray, "start", "--head", "--block", "--disable-usage-stats", *words]
    process = subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not answers(ports[1]) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return process, ports[1]


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def answers(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@needs_ray
@pytest.mark.slow
def test_a_run_by_the_address_of_a_cluster_ends_with_the_same_student(
    small: list[str], whole: Path, tmp_path: Path, head: str
) -> None:
    pytest.importorskip("grpc", reason="needs grpcio, of the extra [cluster]")
    said = run(tmp_path / "run", *small, "--cluster", head, "--workers", "2")
    assert f"evaluating on 2 workers of cluster {head}" in said
    assert trials(tmp_path / "run") == trials(whole)
    assert (tmp_path / "run" / "student.onnx").read_bytes() == (whole / "student.onnx").read_bytes()
    shipped = ["pareto", str(tmp_path / "run"), "--ship", "1,2", "--epochs", "1", "--cluster", head]
    subprocess.run([sys.executable, "-m", "n2n_edge", *shipped], env=environment(), check=True, timeout=900)
    assert len(list(tmp_path.glob("run/candidate-*/student.onnx"))) == 2


@needs_ray
@pytest.mark.slow
def test_a_run_that_is_killed_takes_its_workers_along_and_goes_on_without_them(
    small: list[str], whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(out, *small, "--workers", "2"), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 600
    while not (out / "journal.sqlite").exists() or not trials(out):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(trials(out)) < len(trials(whole))
    left = psutil.wait_procs(children, timeout=60)[1]
    assert all(process.name().endswith("Agent") for process in left if process.is_running())
    assert not psutil.wait_procs(left, timeout=180)[1]  # Ray's agents notice last
    run(out, "--resume", "--workers", "1")
    assert trials(out) == trials(whole)
    assert (out / "student.onnx").read_bytes() == (whole / "student.onnx").read_bytes()
    assert json.loads((out / "report.json").read_text())["student"]["params"]["value"] <= 4000


@needs_ray
def test_an_address_where_nothing_answers_is_one_line_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(UnsuitableEnvironmentError, match=r"cluster ray://127.0.0.1:1: nothing answers there") as caught:
        n2n_edge.compress(out=tmp_path / "run", max_mb=0.3, cluster="ray://127.0.0.1:1")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
