"""What a worker may say in place of what it should: each field of each message missing, of another type, too large."""

import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from n2n_edge.foreign import printable
from n2n_edge.measure import messages
from n2n_edge.measure.messages import InvalidMessageError, Message, parse
from tests.measure.fake_board import ANSWERS, READY

PLAIN: dict[type[Message], dict[str, Any]] = {
    messages.WorkerReady: READY,
    messages.HolderReady: READY,
    messages.PhaseMessage: {"phase": "in timed runs"},
    messages.FailureMessage: {"kind": "failed", "message": "no room"},
}
KINDS = {
    **PLAIN,
    **{kind: ANSWERS[kind.command] for kind in vars(messages).values() if getattr(kind, "command", "")},
}
DEEP: list[Any] = []
for _ in range(300):
    DEEP = [DEEP]
HOSTILE: tuple[Any, ...] = (
    None, True, 0, -1, -1.0, 10**30, 10**400, 1e308, math.nan, math.inf, -math.inf,
    "", "x", "\x1b]0;pwn\x07\x1b[31m\n::error title=x::y", "\u202e\u2066\ud800", "a\0b", "9" * 5000, "x" * 100_000,
    [], ["x"], [None], [math.nan], [-1], [[]], [{}], DEEP, {}, {"a": 1}, {"\x1b[31m": "\x1b"},
)  # fmt: skip
OPTIONAL = {"numpy_error", "onnxruntime_error", "cpu"}
"""What may be left out: reasons of failures that there weren't, and what nothing reads (`cpu` of a clock)."""


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where every value of a document stands, one item for each list."""
    for key, inner in value.items() if isinstance(value, dict) else list(enumerate(value))[:1]:
        yield (*path, key)
        if isinstance(inner, (dict, list)):
            yield from paths(inner, (*path, key))


def refusal(kind: type[Message], raw: dict[str, Any]) -> str | None:
    try:
        parse(kind, raw)
    except InvalidMessageError as error:
        return str(error)
    return None


def at(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


def values(message: object) -> Iterator[object]:
    if isinstance(message, BaseModel):
        for name in type(message).model_fields:
            yield from values(getattr(message, name))
    elif isinstance(message, dict):
        for inner in message.values():
            yield from values(inner)
    elif isinstance(message, list):
        for inner in message:
            yield from values(inner)
    else:
        yield message


FIELDS = [(kind, path) for kind, good in KINDS.items() for path in paths(good) if path[0] in kind.model_fields]


def test_every_request_has_an_example_and_every_field_stands_in_it() -> None:
    assert {kind.command for kind in KINDS} - {""} == set(ANSWERS)
    assert len({kind for kind, _ in FIELDS}) == len(KINDS) == 16
    for kind, good in KINDS.items():
        assert set(kind.model_fields) <= set(good)
        assert isinstance(parse(kind, good), kind)


@pytest.mark.parametrize(("kind", "path"), [pair for pair in FIELDS if isinstance(pair[1][-1], str)])
def test_a_field_that_is_missing_is_named(kind: type[Message], path: tuple[Any, ...]) -> None:
    raw = copy.deepcopy(KINDS[kind])
    del at(raw, path[:-1])[path[-1]]

    if (path[-1] in OPTIONAL and path != ("cpu",)) or (path[0] == "tools" and len(path) > 1):
        parse(kind, raw)
        return
    with pytest.raises(InvalidMessageError, match=rf"lacks '.*{path[-1]}'"):
        parse(kind, raw)


@pytest.mark.parametrize(("kind", "path"), FIELDS)
def test_a_field_that_can_not_be_is_refused_or_made_harmless(kind: type[Message], path: tuple[Any, ...]) -> None:
    good = at(KINDS[kind], path)
    for value in HOSTILE:
        raw = copy.deepcopy(KINDS[kind])
        at(raw, path[:-1])[path[-1]] = value
        refused = refusal(kind, raw)
        if refused is not None:
            assert printable(refused) == refused
            assert len(refused) < 500
            continue
        # what passes is of the same form, or may be left untold; of a clock's name nothing is read
        if value is not None and path != ("clocks", 0, "cpu"):
            numbers = {type(value), type(good)} <= {int, float}
            assert type(value) is type(good) or numbers, f"{value!r} as {path}"
        found = parse(kind, raw)
        assert all(math.isfinite(inner) for inner in values(found) if isinstance(inner, (int, float)))
        assert found.claimed_ms() >= 0


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not messages.HolderReady])
def test_no_text_that_is_shown_can_move_a_terminal(kind: type[Message]) -> None:
    """Paths pass as they are, since they are only sent back; everything else is escaped."""
    hidden = {"path", "cgroup", "prefix", "python"}
    for path in paths(KINDS[kind]):
        if not isinstance(at(KINDS[kind], path), str) or hidden & set(path) or path[0] not in kind.model_fields:
            continue
        raw = copy.deepcopy(KINDS[kind])
        at(raw, path[:-1])[path[-1]] = "a\x1b]0;pwn\x07\x9b31m\u202e\ud800\r\n::error title=x::y"
        for inner in values(parse(kind, raw)):
            if isinstance(inner, str):
                assert all(printable(line) == line for line in inner.split("\n"))
                assert "\n" not in inner or path[0] == "tools"


@pytest.mark.parametrize("key", ["seconds", "window_counts", "samples_ms"])
def test_streams_must_agree_with_themselves(key: str) -> None:
    value: Any = {"seconds": 0.0, "window_counts": [10**6], "samples_ms": []}[key]

    with pytest.raises(InvalidMessageError):
        parse(messages.StreamsRun, {**ANSWERS["throughput"], key: value})


def test_a_power_that_no_board_draws_is_refused() -> None:
    spent = {"joules": 1e12, "seconds": 1.0, "runs": 1, "idle_watts": None, "source": "INA"}

    with pytest.raises(InvalidMessageError, match="energy"):
        parse(messages.Measured, {**ANSWERS["measure"], "energy": spent})


@pytest.mark.parametrize("khz", [-1.0, 0.0, 1e12, 1e300])
def test_a_clock_that_can_not_be_counts_as_not_told(khz: float) -> None:
    clock = parse(messages.Clock, {"governor": None, "khz": khz, "max_khz": khz})
    block = parse(messages.BlockTimed, {**ANSWERS["block"], "clock_mhz": khz if khz <= 0 else khz / 1000})

    assert (clock.mhz, clock.max_mhz, block.clock_mhz) == (None, None, None)
