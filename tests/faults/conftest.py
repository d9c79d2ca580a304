"""What tests of broken runs hold them against."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.kills import MODULES, Timeline, finished, words
from tests.fork_server import Forks, running_forks


@pytest.fixture(scope="module")
def run_forks() -> Iterator[Forks]:
    """A server of processes that have imported what a run needs."""
    with running_forks(*MODULES) as found:
        yield found


@pytest.fixture(scope="module")
def whole(run_forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Timeline]:
    """An unbroken run, and how long its phases took."""
    folder = tmp_path_factory.mktemp("runs")
    return folder / "whole", finished(run_forks, folder / "whole", words(folder))
