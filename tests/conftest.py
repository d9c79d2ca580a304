"""Fixtures that tests of several packages share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sshd import MISSING, SSHD, Server, running_server

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data that is no part of the repository; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("N2N_EDGE_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the shared real data: no folder {folder}; set N2N_EDGE_DATA")
    return folder


@pytest.fixture(scope="session")
def teachers(shared_data: Path) -> Path:
    """The folder of real CIFAR-10 teachers in ONNX."""
    folder = shared_data / "teachers"
    if not folder.is_dir():
        pytest.skip(f"needs the shared teachers: no folder {folder}")
    return folder


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A real ssh server on loopback that `n2n-edge` has the key of."""
    if SSHD is None:
        pytest.skip(MISSING)
    with running_server(tmp_path / "server") as found:
        monkeypatch.setenv("N2N_EDGE_SSH", found.ssh)
        yield found
