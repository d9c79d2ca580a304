"""Archive of the worker: what is in it, where it runs, and that it runs from memory."""

import ast
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from n2n_edge.measure import worker
from n2n_edge.measure.launch import worker_archive, worker_arguments
from n2n_edge.measure.worker import PROTOCOL

FILES = sorted(Path(worker.__file__).parent.glob("*.py"))


def pythons(*versions: str) -> Iterator[str]:
    """Yield interpreters of other versions, of the system or of pyenv."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for version in versions:
        for path in (shutil.which(f"python{version}"), *root.glob(f"versions/{version}.*/bin/python")):
            if path is not None and subprocess.run([path, "--version"], capture_output=True).returncode == 0:
                yield str(path)
                break


def run(
    python: str, *arguments: str, requests: bytes = b"", folder: Path | None = None
) -> tuple[list[dict[str, Any]], str]:
    """Return the events and the stderr of a worker that is sent some requests, and then the end."""
    command = [python, *worker_arguments(arguments)]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, cwd=folder) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(worker_archive() + requests)
        process.stdin.flush()
        events = [json.loads(process.stdout.readline() or b"null") for _ in range(1 + requests.count(b"\n"))]
        process.stdin.close()
        return events, (process.stderr or io.BytesIO()).read().decode()


def test_equal_code_gives_an_equal_archive() -> None:
    size, _, content = worker_archive().partition(b"\n")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = archive.infolist()

    assert int(size) == len(content)
    assert [Path(info.filename).name for info in files] == [path.name for path in FILES]
    assert {(info.date_time, info.compress_type) for info in files} == {((1980, 1, 1, 0, 0, 0), zipfile.ZIP_STORED)}
    assert worker_archive.__wrapped__() == worker_archive()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_needs_nothing_but_python_38_numpy_and_onnxruntime(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 8))

    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1
            assert (path.parent / f"{node.module or '__init__'}.py") in FILES
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names]
            others = {"ncnn", "openvino"} if path.stem == "runtimes" else set()  # where one of them is asked for
            allowed = {*sys.stdlib_module_names, "numpy", "onnxruntime", *others}
            assert {name.partition(".")[0] for name in names} <= allowed


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.13"])
def test_it_runs_under_other_pythons(version: str, tmp_path: Path) -> None:
    python = next(pythons(version), None)
    if python is None:
        pytest.skip(f"there is no Python {version} here")
    fields = [
        {"command": "check"},
        {"command": "state"},
        {"command": "limit", "bytes": 10**9},
        {"command": "put", "name": "m.onnx", "data_base64": "AAAA", "last": True, "sha256": "?"},
    ]
    lines = b"".join(json.dumps({"protocol": PROTOCOL, **one}).encode() + b"\n" for one in fields)

    (ready, check, state, limit, put), said = run(python, "--holder", "--folder", str(tmp_path), requests=lines)

    assert said == ""
    assert ready["event"] == "ready"
    assert check["python"].startswith(f"{version}.")
    assert {"clocks", "millidegrees", "tools"} <= set(state)
    assert {"cgroup", "prefix"} <= set(limit)
    assert put["message"] == "OSError: m.onnx arrived damaged"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", ["2.7", "3.7"])
def test_a_python_that_is_too_old_says_so(version: str) -> None:
    python = next(pythons(version), None)
    if python is None:
        pytest.skip(f"there is no Python {version} here")

    done = subprocess.run([python, *worker_arguments([])], input=worker_archive(), capture_output=True)

    assert done.stderr.decode().strip() == f"its Python is {version}, 3.8 is needed"


def test_a_traceback_names_file_and_line() -> None:
    _, said = run(sys.executable, "--holder", "--silence", "soon")

    assert re.search(r'File "n2n_edge_worker/serving\.py", line \d+, in serve\n', said)
    assert "ValueError: could not convert string to float: 'soon'" in said


def test_files_of_the_working_folder_hide_no_modules(tmp_path: Path) -> None:
    for name in ("zipfile", "json", "n2n_edge_worker"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('hidden')")

    (ready,), said = run(sys.executable, "--holder", folder=tmp_path)

    assert (ready["event"], said) == ("ready", "")


def test_an_archive_that_is_cut_off_is_not_run(tmp_path: Path) -> None:
    command = [sys.executable, *worker_arguments(["--holder", "--folder", str(tmp_path)])]

    done = subprocess.run(command, input=worker_archive()[:-1000], capture_output=True)

    assert done.returncode == 1
    assert b"BadZipFile" in done.stderr
    assert list(tmp_path.iterdir()) == []
