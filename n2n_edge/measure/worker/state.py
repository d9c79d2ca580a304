"""State of the board: clocks, temperatures, throttling, and the load of other programs."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

from .system import allowed_cpus, output_of, read_number, read_text

STATE_TOOLS = {
    "get_throttled": ["vcgencmd", "get_throttled"],
    "measure_clock": ["vcgencmd", "measure_clock", "arm"],
    "nvpmodel": ["nvpmodel", "-q"],
    "jetson_clocks": ["jetson_clocks", "--show"],
}
"""What boards bring along to tell their state. Nothing else is run on them but this file."""


def board_state(sysfs: Path = Path("/sys")) -> dict[str, Any]:
    """Return what the board tells of its clocks, temperature and throttling, as its files and tools put it."""
    clocks = []
    for policy in sorted((sysfs / "devices/system/cpu").glob("cpu[0-9]*/cpufreq")):
        clocks.append(
            {
                "cpu": policy.parent.name,
                "governor": read_text(policy / "scaling_governor"),
                "khz": read_number(policy / "scaling_cur_freq"),
                "max_khz": read_number(policy / "scaling_max_freq"),
            }
        )
    zones = [read_number(zone) for zone in sorted((sysfs / "class/thermal").glob("thermal_zone*/temp"))]
    tools = {}
    for name, command in STATE_TOOLS.items():
        if shutil.which(command[0]) is None:
            continue
        said = output_of(command)
        if said is not None:
            tools[name] = said[:10_000]
    return {"clocks": clocks, "millidegrees": [zone for zone in zones if zone is not None], "tools": tools}


def cpu_mhz(sysfs: Path = Path("/sys")) -> float | None:
    """Return the mean clock of the cores that this process may run on, as it is now; None where it isn't told."""
    clocks = [read_number(sysfs / f"devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq") for cpu in allowed_cpus()]
    running = [khz / 1000 for khz in clocks if khz]
    return sum(running) / len(running) if running else None


def busy_s() -> float | None:
    """Return the seconds that all cores together have worked since the machine started; None where it isn't told."""
    first = (read_text(Path("/proc/stat")) or "").split("\n", 1)[0].split()
    if not first or first[0] != "cpu":
        return None
    user, nice, system, _, _, irq, softirq = (int(ticks) for ticks in first[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


class Load:
    """The cores that other programs used since this was made: measured around a piece of work."""

    def __init__(self) -> None:
        self.busy, self.own, self.start = busy_s(), time.process_time(), time.perf_counter()

    def others(self) -> float | None:
        """Return how many cores others used on average; None where the system doesn't tell."""
        busy = busy_s()
        if busy is None or self.busy is None:
            return None
        elapsed = max(time.perf_counter() - self.start, 1e-9)
        return max(0.0, busy - self.busy - (time.process_time() - self.own)) / elapsed
