"""How a board stands: clocks, governor, temperature, power mode, throttling; read before and after a measurement."""

import re
from dataclasses import dataclass
from typing import Self

from n2n_edge.measure.messages import State

__all__ = ["BoardState", "parse_throttled"]

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
        for name in (
            "governor",
            "clock_mhz",
            "max_clock_mhz",
            "temperature_c",
            "power_mode",
            "clocks_locked",
        ):
            value = getattr(self, name)
            if value is not None:
                document[name] = value
        return document

    def doubts(self) -> tuple[str, ...]:
        """Return what makes timings under this state less than they could be."""
        found = []
        if self.governor is not None and self.governor not in ("performance", "userspace"):
            found.append(
                f"the CPU governor is {self.governor}: clocks follow the load; for steady timings set it to performance"
            )
        if self.clocks_locked is False:
            found.append("the clocks aren't locked: run `sudo jetson_clocks` on the board for steady timings")
        if self.was_throttled and not self.throttled:
            found.append(f"since it was started the board has been {' and '.join(self.was_throttled)}")
        return tuple(found)


def _power_mode(text: str) -> str | None:
    """Return the mode that ``nvpmodel -q`` names: ``NV Power Mode: MAXN``."""
    match = re.search(r"NV Power Mode:\s*(\S+)", text)
    return match[1] if match else None


def _clocks_locked(text: str) -> bool | None:
    """Return whether ``jetson_clocks --show`` has every online core's least clock at its greatest; None if untold."""
    lines = [line for line in text.splitlines() if re.match(r"cpu\d+:", line) and "Online=0" not in line]
    cores = [pair for line in lines for pair in re.findall(r"MinFreq=(\d+)\s+MaxFreq=(\d+)", line)]
    return all(least == most for least, most in cores) if cores else None
