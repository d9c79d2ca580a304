"""Machine of a measurement: its fingerprint, and the state of its clocks, temperature, power mode and throttling."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Self

import psutil

from n2n_edge.measure.measurement import MeasurementError
from n2n_edge.measure.messages import State
from n2n_edge.measure.worker.system import cpu_info, describe, usable_cores
from n2n_edge.metrics.figures import MB
from n2n_edge.metrics.notices import Notice
from n2n_edge.versions import ORT_PACKAGES, first_version

__all__ = [
    "BoardState", "cpu_flags", "environment", "parse_throttled", "refuse_throttled", "state_warnings",
    "usable_cores",
]  # fmt: skip

CLOCK_CHANGE = 0.05

NOW = {0: "under-voltage", 1: "the clock is capped", 2: "throttled", 3: "at its soft temperature limit"}
"""Bits of ``vcgencmd get_throttled`` that hold now; the same plus 16 have held since the board was started.

https://www.raspberrypi.com/documentation/computers/os.html#get_throttled
"""


def parse_throttled(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what ``vcgencmd get_throttled`` says holds now, and what has held since the start."""
    match = re.search(r"throttled=0x([0-9a-fA-F]+)", text)
    bits = int(match[1], 16) if match else 0
    now = tuple(words for bit, words in NOW.items() if bits >> bit & 1)
    since_start = tuple(words for bit, words in NOW.items() if bits >> (bit + 16) & 1)
    return now, since_start


@dataclass(frozen=True)
class BoardState:
    """What a board tells of itself; None or empty where it doesn't.

    `clock_mhz` is the fastest core's. `throttled` holds now and makes a measurement void, `was_throttled` since start.
    """

    governor: str | None
    clock_mhz: float | None
    max_clock_mhz: float | None
    temperature_c: float | None
    throttled: tuple[str, ...]
    was_throttled: tuple[str, ...]
    power_mode: str | None
    clocks_locked: bool | None
    tells_throttling: bool

    @classmethod
    def read(cls, raw: State) -> Self:
        """Make sense of what the worker's ``state`` answered: files of sysfs and the output of the board's tools."""
        tools = raw.tools
        now, since_start = parse_throttled(tools.get("get_throttled", ""))
        governors = sorted({clock.governor for clock in raw.clocks if clock.governor})
        degrees = [value / 1000 for value in raw.millidegrees if -40_000 < value < 150_000]
        running = [clock.mhz for clock in raw.clocks if clock.mhz is not None]
        measured = re.search(r"frequency\(\d+\)=(\d{1,12})\b", tools.get("measure_clock", ""))
        return cls(
            governor=", ".join(governors) or None,
            clock_mhz=int(measured[1]) / 1e6 if measured else max(running, default=None),
            max_clock_mhz=max((clock.max_mhz for clock in raw.clocks if clock.max_mhz is not None), default=None),
            temperature_c=max(degrees, default=None),
            throttled=now,
            was_throttled=since_start,
            power_mode=_power_mode(tools.get("nvpmodel", "")),
            clocks_locked=_clocks_locked(tools.get("jetson_clocks", "")),
            tells_throttling="get_throttled" in tools,
        )

    def to_json(self) -> dict[str, object]:
        """Return what is known as a JSON object."""
        document: dict[str, object] = {"throttled": list(self.throttled), "was_throttled": list(self.was_throttled)}
        for name in ("governor", "clock_mhz", "max_clock_mhz", "temperature_c", "power_mode", "clocks_locked"):
            value = getattr(self, name)
            if value is not None:
                document[name] = value
        return document

    def warnings(self) -> tuple[Notice, ...]:
        """Return what makes timings under this state less than they could be."""
        warnings = []
        if self.governor is not None and self.governor not in ("performance", "userspace"):
            text = f"the CPU governor is {self.governor}: clocks follow the load"
            warnings.append(Notice("governor", text, "for steady timings set it to performance"))
        if self.clocks_locked is False:
            remedy = "run `sudo jetson_clocks` on the board for steady timings"
            warnings.append(Notice("clocks-unlocked", "the clocks aren't locked", remedy))
        if self.was_throttled and not self.throttled:
            text = f"since it was started the board has been {' and '.join(self.was_throttled)}"
            warnings.append(Notice("was-throttled", text))
        return tuple(warnings)


def environment() -> dict[str, str | int | float]:
    """Return the fingerprint of this machine and its software: what has to be equal for two timings to compare."""
    return {
        **describe(),
        "memory_mb": round(psutil.virtual_memory().total / MB),
        "onnxruntime": first_version(*ORT_PACKAGES) or "unknown",
        "n2n_edge": first_version("n2n-edge") or "unknown",
    }


@cache
def cpu_flags() -> frozenset[str]:
    """Return the processor's feature flags as Linux names them; empty elsewhere."""
    info = cpu_info()
    return frozenset((info.get("flags") or info.get("Features") or "").split())


def state_warnings(before: BoardState, after: BoardState, clocks_mhz: Sequence[float | None]) -> list[Notice]:
    """Return warnings about the clocks and the power mode during a measurement."""
    warnings = list(after.warnings())
    running = [clock for clock in clocks_mhz if clock]
    if len(running) > 1 and max(running) > (1 + CLOCK_CHANGE) * min(running):
        text = f"the clock changed meanwhile, between {min(running):.0f} and {max(running):.0f} MHz"
        warnings.append(Notice("clock-changed", text))
    if before.power_mode != after.power_mode:
        text = f"the power mode changed meanwhile, from {before.power_mode} to {after.power_mode}"
        warnings.append(Notice("power-mode-changed", text))
    return warnings


def refuse_throttled(label: str, target: str, state: BoardState, before: BoardState | None = None) -> None:
    """Raise `MeasurementError` if the board is being throttled, or has been since `before`: what was timed is void."""
    meanwhile = () if before is None else tuple(set(state.was_throttled) - set(before.was_throttled))
    if state.throttled or meanwhile:
        when = (
            f"is {' and '.join(state.throttled)} now" if state.throttled else f"was {' and '.join(meanwhile)} meanwhile"
        )
        raise MeasurementError(f"{label}: void, {target} {when}; mend its cooling or power supply and measure again")


def _power_mode(text: str) -> str | None:
    """Return the mode that ``nvpmodel -q`` names: ``NV Power Mode: MAXN``."""
    match = re.search(r"NV Power Mode:\s*(\S+)", text)
    return match[1] if match else None


def _clocks_locked(text: str) -> bool | None:
    """Return whether ``jetson_clocks --show`` has every online core's least clock at its greatest; None if untold."""
    lines = [line for line in text.splitlines() if re.match(r"cpu\d+:", line) and "Online=0" not in line]
    cores = [pair for line in lines for pair in re.findall(r"MinFreq=(\d+)\s+MaxFreq=(\d+)", line)]
    return all(least == most for least, most in cores) if cores else None
