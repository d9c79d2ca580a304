"""Killed at any moment of any phase, with a clock that jumps, a run ends with the same student.

`N2N_EDGE_KILLS` says how many kills there are. `test_compress` of `tests/runs` has one kill amid a search by default.
"""

import os
from pathlib import Path
from random import Random

import pytest

from tests.faults.kills import PHASES, Killed, Timeline, kills_of_a_run, outcome_of, words
from tests.fork_server import Forks


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
