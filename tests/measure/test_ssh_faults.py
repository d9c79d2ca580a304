"""What goes wrong with boards: each fault gives one clear line, leaves nothing behind, and never hangs."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from n2n_edge.errors import InputError, N2NError, UnsuitableEnvironmentError
from n2n_edge.measure.bench import bench
from n2n_edge.measure.launch import worker_archive, worker_arguments
from n2n_edge.measure.measurement import ConnectionLostError, MeasurementError
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.readiness import readiness
from n2n_edge.measure.ssh import SshAddress, SshTarget
from n2n_edge.measure.worker import PROTOCOL
from tests.measure.small_models import write_conv_model, write_gemm_model
from tests.sshd import Server

QUICK = BenchOptions(threads=1, min_time_s=0.0, max_time_s=0.1)
LONG = BenchOptions(threads=1, min_time_s=20.0, max_time_s=20.0, timeout_s=60.0)


def after(seconds: float, action: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, action)
    timer.start()
    return timer


def one_clear_line(error: N2NError) -> bool:
    return "\n" not in str(error) and error.exit_code == 3


def test_nothing_is_left_behind_after_a_measurement(server: Server, tmp_path: Path) -> None:
    path = write_conv_model(tmp_path / "model.onnx")

    with SshTarget(server.url()) as target:
        bench(path, QUICK, target=target)
        assert len(list(server.home.glob("n2n-edge-*/*.onnx"))) == 1
        bench(path, QUICK, target=target)
        assert len(list(server.home.glob("n2n-edge-*/*.onnx"))) == 1

    assert server.left_behind() == []


def test_a_connection_that_is_cut_once_is_made_again(server: Server, tmp_path: Path) -> None:
    path = write_conv_model(tmp_path / "model.onnx", 32, 64)

    with SshTarget(server.url()) as target:
        timer = after(3.0, server.cut)
        found = bench(path, BenchOptions(threads=1, min_time_s=5.0, max_time_s=5.0), target=target)
        timer.join()

    assert found.measurement.n > 1
    assert server.left_behind() == []


def test_a_server_that_is_killed_amid_a_run_is_a_clear_error(server: Server, tmp_path: Path) -> None:
    path = write_conv_model(tmp_path / "model.onnx", 32, 64)

    with SshTarget(server.url()) as target:
        timer = after(3.0, server.stop)
        with pytest.raises(ConnectionLostError, match=r"no connection, or it was lost") as caught:
            bench(path, LONG, target=target)
        timer.join()

    assert one_clear_line(caught.value)
    assert server.left_behind() == []


def test_a_full_disk_is_named_with_what_is_free(server: Server, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        path = write_gemm_model(tmp_path / "wide.onnx", 1000)
        with (
            SshTarget(server.url(folder=str(disk))) as target,
            pytest.raises(MeasurementError, match=r"no room in .*disk: .* MB free") as caught,
        ):
            bench(path, QUICK, target=target)
        assert one_clear_line(caught.value)
        deadline = time.monotonic() + 20
        while any(disk.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not any(disk.iterdir())
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_folder_that_is_not_there(server: Server, tmp_path: Path) -> None:
    with (
        SshTarget(server.url(folder="/no/such/folder")) as target,
        pytest.raises(MeasurementError, match=r"no folder for models: .*/no/such/folder"),
    ):
        bench(write_conv_model(tmp_path / "model.onnx"), QUICK, target=target)


def test_a_folder_with_spaces_and_quotes(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s a "folder" $HOME'
    folder.mkdir()
    path = write_conv_model(folder / "my 'model'.onnx")

    with SshTarget(server.url(folder=str(folder))) as target:
        assert bench(path, QUICK, target=target).measurement.n >= 1

    assert [path] == list(folder.iterdir())


def test_no_onnxruntime_there(server: Server, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run(["python3", "-m", "venv", "--without-pip", bare], check=True)
    path = write_conv_model(tmp_path / "model.onnx")

    with SshTarget(server.url(python=str(bare / "bin" / "python"))) as target:
        with pytest.raises(MeasurementError, match=r"can't import the runtime: .*No module named") as caught:
            bench(path, QUICK, target=target)
        found = readiness(target)

    assert one_clear_line(caught.value)
    assert not found.ready
    assert [problem.what for problem in found.missing] == ["numpy", "onnxruntime"]
    assert f"{bare}/bin/python -m pip install onnxruntime" in found.missing[1].remedy
    assert server.left_behind() == []


def test_no_python_there(server: Server, tmp_path: Path) -> None:
    with (
        SshTarget(server.url(python="/no/such/python")) as target,
        pytest.raises(MeasurementError, match=r"no '/no/such/python' there .*\?python=PATH"),
    ):
        bench(write_conv_model(tmp_path / "model.onnx"), QUICK, target=target)


def test_a_wrong_key(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "other_config"
    text = (server.folder / "ssh_config").read_text()
    config.write_text(text.replace("user_key", "wrong_key"))
    monkeypatch.setenv("N2N_EDGE_SSH", f"ssh -F {config}")

    with (
        SshTarget(server.url()) as target,
        pytest.raises(ConnectionLostError, match=r"doesn't accept your key .*ssh-copy-id") as caught,
    ):
        bench(write_conv_model(tmp_path / "model.onnx"), QUICK, target=target)

    assert one_clear_line(caught.value)


def test_nobody_listens(server: Server, tmp_path: Path) -> None:
    url = server.url()
    server.stop()

    with SshTarget(url) as target, pytest.raises(ConnectionLostError, match="Connection refused"):
        bench(write_conv_model(tmp_path / "model.onnx"), QUICK, target=target)


def test_a_login_shell_that_talks(server: Server, tmp_path: Path) -> None:
    noisy = tmp_path / "noisy-python"
    python = server.url().rpartition("=")[2]
    noisy.write_text(f'#!/bin/sh\necho "Welcome to the board"\nprintf "Gr\\374\\337e\\n"\nexec {python} "$@"\n')
    noisy.chmod(0o755)

    with SshTarget(server.url(python=str(noisy))) as target:
        assert bench(write_conv_model(tmp_path / "model.onnx"), QUICK, target=target).measurement.n >= 1


def test_a_connection_that_is_cut_in_mid_transfer_leaves_nothing_behind(tmp_path: Path) -> None:
    command = ["python3", *worker_arguments(["--holder", "--folder", str(tmp_path)])]
    piece = {"command": "put", "name": "m.onnx", "data_base64": "A" * 4_000_000, "last": False, "sha256": ""}
    line = json.dumps({"protocol": PROTOCOL, **piece}).encode()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(worker_archive())
        for _ in range(5):
            holder.stdin.write(line + b"\n")
        holder.stdin.write(line[:100_000])
        holder.stdin.close()
        holder.stdout.read()
        assert holder.wait(20) == 0

    assert list(tmp_path.iterdir()) == []


def test_an_ssh_command_that_is_a_script(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "my-ssh"
    script.write_text(f'#!/bin/sh\n{server.ssh} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("N2N_EDGE_SSH", str(script))

    with SshTarget(server.url()) as target:
        assert bench(write_conv_model(tmp_path / "model.onnx"), QUICK, target=target).measurement.n >= 1

    assert server.left_behind() == []


def test_a_python_in_the_home_folder_there() -> None:
    command = SshTarget("ssh://board?python=~/my%20venv/bin/python").launch(()).argv[-1]

    assert '"$HOME"/' in command
    assert "my venv/bin/python" in command


def test_two_clients_at_once(server: Server, tmp_path: Path) -> None:
    paths = [write_conv_model(tmp_path / f"{width}.onnx", width) for width in (4, 8)]

    def measure(path: Path) -> int:
        with SshTarget(server.url()) as target:
            return bench(path, QUICK, target=target).measurement.n

    with ThreadPoolExecutor(2) as pool:
        assert all(n >= 1 for n in pool.map(measure, paths))

    assert server.left_behind() == []


def test_a_client_that_is_killed_leaves_nothing_behind(server: Server, tmp_path: Path) -> None:
    path = write_conv_model(tmp_path / "model.onnx")
    script = f"""
from pathlib import Path
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.ssh import SshTarget
from n2n_edge.measure.bench import bench
bench(Path({str(path)!r}), BenchOptions(threads=1, min_time_s=60, max_time_s=60), target=SshTarget({server.url()!r}))
"""
    python = server.url().rpartition("=")[2]
    with subprocess.Popen([python, "-c", script]) as client:
        deadline = time.monotonic() + 30
        while not list(server.home.glob("n2n-edge-*/*.onnx")) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert list(server.home.glob("n2n-edge-*/*.onnx"))
        client.kill()
        client.wait()

    assert server.left_behind() == []


def test_a_board_that_falls_silent_clears_up_by_itself(tmp_path: Path) -> None:
    command = ["python3", *worker_arguments(["--holder", "--folder", str(tmp_path), "--silence", "2"])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(worker_archive())
        holder.stdin.flush()
        assert json.loads(holder.stdout.readline())["folder"]
        assert len(list(tmp_path.iterdir())) == 1
        assert holder.wait(20) == 0

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ssh://-oProxyCommand=touch%20x", "can't be a name"),
        ("ssh://-v", "can't be a name"),
        ("ssh://-l@board", "can't be a name"),
        ("ssh://bo%20ard", "can't be a name"),
        ("ssh://board;reboot", "can't be a name"),
        ("ssh://", "not the address of a board"),
        ("ssh://pi:secret@board", "no passwords here"),
        ("ssh://board:port", "write it as"),
        ("ssh://board?pyton=x", "unknown part 'pyton'"),
        ("ssh://board?python=-c", "can't be a path"),
        ("ssh://board/a%0Ab", "can't be a path"),
    ],
)
def test_an_address_that_is_none(url: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        SshTarget(url)

    assert "secret" not in str(caught.value)


def test_an_address_in_full() -> None:
    found = SshAddress.parse("ssh://pi@board.local:2222/mnt/my%20disk?python=/home/pi/venv/bin/python")

    assert found == SshAddress("pi@board.local", 2222, "/mnt/my disk", "/home/pi/venv/bin/python")
    assert SshAddress.parse("ssh://board") == SshAddress("board", None, "", "python3")


def test_no_ssh_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("N2N_EDGE_SSH", "no-such-ssh -q")

    with pytest.raises(UnsuitableEnvironmentError, match="no 'no-such-ssh' command here"):
        SshTarget("ssh://board")
