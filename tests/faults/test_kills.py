"""Killed at any moment of any phase, with a clock that jumps, a run ends with the same student.

`N2N_EDGE_KILLS` says how many kills there are. `test_compress` of `tests/runs` has one kill amid a search by default.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.faults.kills import MODULES, PHASES, Killed, Timeline, finished, kills_of_a_run, outcome_of, words
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


def check(forks: Forks, whole: tuple[Path, Timeline], number: int, phases: tuple[str, ...]) -> list[Killed]:
    """Kill a run once in each phase, and hold what it ends with against the unbroken one."""
    unbroken, timeline = whole
    out = unbroken.with_name(f"broken-{number}")
    kills = kills_of_a_run(forks, out, words(unbroken.parent), phases, timeline, Random(number))
    assert outcome_of(out) == outcome_of(unbroken)
    assert not [path for path in out.iterdir() if "checkpoint" in path.name or path.name.startswith(".un")]
    return kills


@pytest.mark.slow
def test_kills_in_several_phases_and_a_jumping_clock_change_nothing(
    run_forks: Forks, whole: tuple[Path, Timeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("N2N_EDGE_TEST_CLOCK", "3")
    kills = check(run_forks, whole, 0, ("shrinkage", "final distillation", "report"))
    assert any(kill.met is not None for kill in kills)


@pytest.mark.slow
def test_kills_in_every_phase_change_nothing(run_forks: Forks, whole: tuple[Path, Timeline]) -> None:
    wanted, number, kills = int(os.environ.get("N2N_EDGE_KILLS", "200")), 0, list[Killed]()
    while sum(kill.met is not None for kill in kills) < wanted:
        number += 1
        kills += check(run_forks, whole, number, PHASES)
