"""Fixtures that tests of several packages share."""

import gc
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from n2n_edge.graph import child
from n2n_edge.measure.launch import Launch
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.target import HostTarget
from tests.fork_server import Forks, running_forks
from tests.sshd import MISSING, SSHD, Server, running_server

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True, scope="module")
def _few_to_collect() -> None:
    """Keep what is imported (torch is, and every module of tests) from being looked through by each garbage collection.

    Training collects garbage whenever it ends, which took half of what small trainings take.
    """
    gc.collect()
    gc.freeze()


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


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """A server of Python processes that have ONNX Runtime imported already."""
    with running_forks() as found:
        yield found


@pytest.fixture(scope="session")
def command_forks() -> Iterator[Forks]:
    """The same with the command line, for what is asked of many short commands."""
    with running_forks("n2n_edge.cli.app") as found:
        yield found


@pytest.fixture(scope="session")
def torch_forks() -> Iterator[Forks]:
    """The same with torch, whose import takes longest of all."""
    with running_forks("torch") as found:
        yield found


@pytest.fixture(autouse=True, scope="session")
def forked_children(forks: Forks) -> Iterator[None]:
    """Fork the processes that run a file for its shapes, one or more for every teacher; those of commands are real."""
    command = child._command
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child, "_command", lambda folder: forks.argv(command(folder)))
        yield


@pytest.fixture(scope="module")
def quick_workers(forks: Forks) -> Iterator[None]:
    """Fork the workers of this host, and time a model for a moment, or once a round, where a test doesn't say how long.

    For tests of what is made of measurements; those of measuring itself want workers as users have them.
    """
    launch, check = HostTarget.launch, BenchOptions.__post_init__

    def forked(self: HostTarget, arguments: Sequence[str], prefix: Sequence[str] = ()) -> Launch:
        found = launch(self, arguments, prefix)
        return replace(found, argv=forks.argv(found.argv))

    def short(self: BenchOptions) -> None:
        check(self)
        if self.min_time_s > 0.05:
            object.__setattr__(self, "min_time_s", 0.02)
            object.__setattr__(self, "max_time_s", 0.1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HostTarget, "launch", forked)
        patch.setattr(BenchOptions, "__post_init__", short)
        patch.setattr("n2n_edge.measure.comparison.CYCLES", 1)
        yield


@pytest.fixture(autouse=True)
def own_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder of user profiles, instead of the one of whoever runs the tests."""
    config = tmp_path_factory.mktemp("config")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config))
    folder = config / "n2n-edge" / "profiles"
    folder.mkdir(parents=True)
    return folder
