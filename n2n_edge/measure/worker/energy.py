"""Energy counters and power sensors of the board."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from .system import read_number, read_text


class Energy:
    """Energy counters of the board: RAPL counts, or what the INA sensors of a Jetson say, sampled.

    `read` gives joules since it was started. Use as a context; without a sensor `available` is False.
    """

    PERIOD_S = 0.05

    def __init__(self, sysfs: Path = Path("/sys")) -> None:
        packages = sorted((sysfs / "class/powercap").glob("intel-rapl:[0-9]*"))
        packages = [path for path in packages if path.name.count(":") == 1]
        packages = [path for path in packages if read_text(path / "name") != "psys"]  # it contains the others
        self.counters = [path for path in packages if read_number(path / "energy_uj") is not None]
        self.rails = [] if self.counters else power_rails(sysfs)
        self.available = bool(self.counters or self.rails)
        self.source = "RAPL" if self.counters else "INA" if self.rails else None
        self.joules = 0.0
        self.last = {path: read_number(path / "energy_uj") or 0.0 for path in self.counters}
        self.stopped = threading.Event()
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self.sample, daemon=True)

    def __enter__(self) -> Energy:
        self.time = time.perf_counter()
        if self.rails:
            self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stopped.set()
        if self.rails:
            self.thread.join()

    def sample(self) -> None:
        while not self.stopped.wait(self.PERIOD_S):
            self.add_power()

    def add_power(self) -> None:
        with self.lock:
            watts = sum(rail_watts(rail) for rail in self.rails)
            now = time.perf_counter()
            self.joules += watts * (now - self.time)
            self.time = now

    def read(self) -> float:
        """Return joules so far."""
        if self.rails:
            self.add_power()
        for path in self.counters:
            now = read_number(path / "energy_uj") or 0.0
            spent = now - self.last[path]
            if spent < 0:  # the counter starts again from nought
                spent += read_number(path / "max_energy_range_uj") or 0.0
            self.joules += spent / 1e6
            self.last[path] = now
        return self.joules


def power_rails(sysfs: Path) -> list[tuple[Path, Path | None]]:
    """Return the files that tell the board's whole power: one of mW, or a pair of mV and mA, per input rail.

    Jetsons with an INA3221 name their rails; VDD_IN, or POM_5V_IN on older ones, is the whole board.
    """
    for label in sorted(sysfs.glob("bus/i2c/drivers/ina3221*/*/hwmon/hwmon*/in*_label")):
        if read_text(label) in ("VDD_IN", "POM_5V_IN"):
            number = label.name[2:-6]
            return [(label.parent / f"in{number}_input", label.parent / f"curr{number}_input")]
    for label in sorted(sysfs.glob("bus/i2c/drivers/ina3221*/*/iio:device*/rail_name_*")):
        if read_text(label) in ("VDD_IN", "POM_5V_IN"):
            number = label.name.rpartition("_")[2]
            return [(label.parent / f"in_power{number}_input", None)]
    return []


def rail_watts(rail: tuple[Path, Path | None]) -> float:
    """Return the power of one rail in W."""
    first, second = rail
    value = read_number(first) or 0.0
    return value / 1000 if second is None else value * (read_number(second) or 0.0) / 1e6
