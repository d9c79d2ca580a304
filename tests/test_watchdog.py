"""What takes far too long is named, and what never ends is ended; time is told to the watchdog, not waited for."""

from pathlib import Path

import pytest

from n2n_edge import watchdog
from n2n_edge.errors import InputError
from n2n_edge.watchdog import EXIT_CODE, Limits, Watchdog, phase, step, watched


class EndedError(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def dog(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> Watchdog:
    def end(code: int) -> None:
        assert code == EXIT_CODE
        raise EndedError

    monkeypatch.setattr(watchdog.os, "_exit", end)
    return Watchdog(Limits(slow_s=10.0, stall_s=40.0), lines.append, "go on with --resume")


def test_a_slow_step_is_named_once_with_its_phases(dog: Watchdog, lines: list[str]) -> None:
    with dog.phase("shrinkage 1/16"), dog.phase("training candidate 1a2b"), dog.step("training step"):
        dog.look(9.0)
        assert not lines
        dog.look(2.0)
        dog.look(2.0)
    assert lines == ["shrinkage 1/16, training candidate 1a2b, training step: still under way after 11 s"]


def test_a_step_that_never_ends_ends_the_process(dog: Watchdog, capfd: pytest.CaptureFixture[str]) -> None:
    with dog.phase("removal 2/12"), dog.step("training step"), pytest.raises(EndedError):
        dog.look(41.0)
    said = capfd.readouterr().err
    assert "removal 2/12, training step: has not ended for 41 s: given up; go on with --resume" in said
    assert "test_a_step_that_never_ends_ends_the_process" in said  # the stack


def test_steps_that_always_take_long_are_not_slow(dog: Watchdog, lines: list[str]) -> None:
    dog._durations["training step"] = watchdog.deque([5.0, 5.0, 5.0])
    with dog.step("training step"):
        dog.look(49.0)
        assert not lines
        dog.look(2.0)
        dog.look(400.0)  # under a hundred times the median
    assert lines == ["training step: still under way after 51 s (those before took 5 s at the median)"]


def test_nothing_is_watched_between_steps(dog: Watchdog, lines: list[str]) -> None:
    with dog.phase("preparation"):
        dog.look(1e6)
    assert not lines


def test_what_holds_a_step_that_ended_is_not_stuck(dog: Watchdog, lines: list[str]) -> None:
    with dog.step("refitting"):
        for _ in range(20):
            with dog.step("batch"):
                dog.look(8.0)
    assert not lines


def test_marks_cost_nothing_where_nobody_watches() -> None:
    with phase("anything"), step("anything"):
        assert watchdog._current is None


def test_a_run_that_ends_well_leaves_no_stacks(tmp_path: Path) -> None:
    path = tmp_path / "stacks.txt"
    with watched(print, "", path), phase("one"), step("two"):
        assert watchdog._current is not None
        assert path.exists()
    assert watchdog._current is None
    assert not path.exists()


@pytest.mark.parametrize("text", ["soon", "-1", "inf", "nan", ""])
def test_a_limit_that_is_no_number_of_seconds_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(watchdog.STALL_VARIABLE, text)
    with pytest.raises(InputError, match=watchdog.STALL_VARIABLE), watched(print, ""):
        pass


def test_watching_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(watchdog.STALL_VARIABLE, "0")
    with watched(print, ""):
        assert watchdog._current is None
