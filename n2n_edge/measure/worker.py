"""Times one model after another in a process of its own.

Self-contained (standard library, numpy, onnxruntime; Python >= 3.8), because this one file is also what runs on a
board. It speaks JSON, one document a line: requests on stdin, events on stdout. First comes ``ready``; then each
request is answered by ``phase`` events and at last ``result`` or ``error``. It ends when stdin does, or when its
parent is gone; a keeper (``--keeper``) holds the folder that models are put into, and takes it along when it ends.
"""

from __future__ import annotations

import base64
import bisect
import errno
import functools
import gc
import hashlib
import json
import math
import os
import platform
import queue
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

PROTOCOL = 2
CPU = "CPUExecutionProvider"

WARM_UP_RUNS = 3
WARM_UP_S = 0.2
MAX_SAMPLES = 100_000
PROFILED_RUNS, PROFILED_S = 200, 1.0
TOOL_TIMEOUT_S = 5.0
STATE_TOOLS = {
    "get_throttled": ["vcgencmd", "get_throttled"],
    "measure_clock": ["vcgencmd", "measure_clock", "arm"],
    "nvpmodel": ["nvpmodel", "-q"],
    "jetson_clocks": ["jetson_clocks", "--show"],
}
"""What boards bring along to tell their state. Nothing else is run on them but this file."""


class RefusedError(Exception):
    """The model or an option can't be used as given: the user's to change."""


class FallbackError(Exception):
    """An execution provider that was asked for did none of the work."""


# --------------------------------------------------------------------------------------------------------------------
# What this machine is and how it stands
# --------------------------------------------------------------------------------------------------------------------


def read_text(path: Path) -> str | None:
    """Return the text of a small file without surrounding space; None where it can't be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip().strip("\0")
    except OSError:
        return None


def read_number(path: Path) -> float | None:
    """Return the number in a small file; None where there is none."""
    text = read_text(path)
    try:
        number = float(text) if text else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


@functools.lru_cache(maxsize=1)
def cpu_info() -> dict[str, str]:
    """Return the first processor's entry of /proc/cpuinfo; empty where there is none."""
    text = read_text(Path("/proc/cpuinfo")) or ""
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def cpu_model() -> str:
    """Return the name of the processor, after that of the board where it has one."""
    name = cpu_info().get("model name") or platform.processor()
    board = read_text(Path("/proc/device-tree/model"))
    return f"{board or ''} {name}".strip() or platform.machine()


def usable_cores() -> int:
    """Return the physical cores that this process may run on, at least one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    physical = set()
    for topology in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/topology"):
        physical.add((read_text(topology / "physical_package_id"), read_text(topology / "core_id")))
    return max(1, min(len(physical) or allowed, allowed))


def memory_bytes(field: str = "MemTotal") -> int | None:
    """Return a field of /proc/meminfo in bytes; None where there is none."""
    for line in (read_text(Path("/proc/meminfo")) or "").splitlines():
        name, _, rest = line.partition(":")
        if name == field:
            return int(rest.split()[0]) * 1024
    return None


def describe() -> dict[str, Any]:
    """Return what machine and Python this is: what has to be equal for two timings to compare."""
    memory = memory_bytes()
    return {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "logical_cpus": os.cpu_count() or 1,
        "memory_mb": None if memory is None else round(memory / 1e6),
        "machine": platform.machine(),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def check() -> dict[str, Any]:
    """Return `describe`, and what a measurement needs: packages, providers, free memory and disk, state."""
    found: dict[str, Any] = {**describe(), "executable": sys.executable, "numpy": None, "onnxruntime": None}
    found["providers"] = []
    try:
        import numpy

        found["numpy"] = numpy.__version__
    except Exception as error:
        found["numpy_error"] = f"{type(error).__name__}: {error}"
    try:
        import onnxruntime

        found["onnxruntime"] = onnxruntime.__version__
        found["providers"] = onnxruntime.get_available_providers()
    except Exception as error:
        found["onnxruntime_error"] = f"{type(error).__name__}: {error}"
    available = memory_bytes("MemAvailable")
    found["available_memory_mb"] = None if available is None else round(available / 1e6)
    found["folder"] = tempfile.gettempdir()
    found["free_disk_mb"] = round(shutil.disk_usage(found["folder"]).free / 1e6)
    return found


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
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    found = [read_number(sysfs / f"devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq") for cpu in sorted(allowed)]
    known = [khz / 1000 for khz in found if khz]
    return sum(known) / len(known) if known else None


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


class Energy:
    """Energy counters of the board: RAPL counts, or what the INA sensors of a Jetson say, sampled.

    `read` gives joules since it was started. Use as a context; without a sensor `known` is False.
    """

    PERIOD_S = 0.05

    def __init__(self, sysfs: Path = Path("/sys")) -> None:
        packages = sorted((sysfs / "class/powercap").glob("intel-rapl:[0-9]*"))
        packages = [path for path in packages if path.name.count(":") == 1]
        packages = [path for path in packages if read_text(path / "name") != "psys"]  # it contains the others
        self.counters = [path for path in packages if read_number(path / "energy_uj") is not None]
        self.rails = [] if self.counters else power_rails(sysfs)
        self.known = bool(self.counters or self.rails)
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


def peak_rss_bytes() -> int | None:
    """Return the largest resident set so far, in bytes; None where the system doesn't say.

    On Linux from VmHWM: the maximum that getrusage gives is inherited from the process that started this one.
    """
    for line in (read_text(Path("/proc/self/status")) or "").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# --------------------------------------------------------------------------------------------------------------------
# A limit on memory
# --------------------------------------------------------------------------------------------------------------------

CGROUPS = Path("/sys/fs/cgroup")


def limit_memory(limit_bytes: int, root: Path = CGROUPS) -> dict[str, Any]:
    """Prepare a real limit on one worker's memory, swap included, and return how to start the worker under it.

    ``prefix``: a command that starts another under the limit; ``cgroup``: the control group that was made for that.
    No prefix where this system or its permissions don't allow it: then the limit can only be watched.
    """
    for parent, files in cgroup_parents(root):
        group = parent / f"n2n-edge-{os.getpid()}-{time.monotonic_ns()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            for name, value, needed in files:
                if needed or (group / name).exists():
                    (group / name).write_text(str(limit_bytes if value is None else value), encoding="ascii")
            prefix = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs")]
            if output_of([*prefix, "true"]) is not None:
                return {"cgroup": str(group), "prefix": prefix}
        except OSError:
            pass
        remove_cgroup(str(group))
    prefix = ["systemd-run", "--user", "--scope", "--quiet", "-p", f"MemoryMax={limit_bytes}", "-p", "MemorySwapMax=0"]
    # the property is accepted, and does nothing, where the kernel's memory controller is off: look at what holds
    group_of = f"cat {root}$(sed -n s/^0:://p /proc/self/cgroup)/memory.max"
    if shutil.which(prefix[0]) and output_of([*prefix, "--", "sh", "-c", group_of]) == str(limit_bytes // 4096 * 4096):
        return {"cgroup": None, "prefix": [*prefix, "--"]}
    return {"cgroup": None, "prefix": []}


def output_of(command: list[str]) -> str | None:
    """Return what a command prints, without surrounding space; None if it fails or takes too long."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=TOOL_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None


def cgroup_parents(root: Path) -> list[tuple[Path, list[tuple[str, int | None, bool]]]]:
    """Return folders in which a group with a memory limit can be made, with the files to write: name, value (None: the
    limit), and whether the limit is worth nothing without it."""
    paths = {}
    for line in (read_text(Path("/proc/self/cgroup")) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        paths[controllers] = path
    found: list[tuple[Path, list[tuple[str, int | None, bool]]]] = []
    unified = [mount for mount in (root, root / "unified") if (mount / "cgroup.controllers").exists()]
    for mount in unified:
        own = mount / paths.get("", "/").lstrip("/")
        for parent in (own, *own.parents):
            if mount not in (parent, *parent.parents):
                break
            if "memory" in (read_text(parent / "cgroup.subtree_control") or "").split():
                found.append((parent, [("memory.max", None, True), ("memory.swap.max", 0, False)]))
    legacy = root / "memory"
    if (legacy / "memory.limit_in_bytes").exists():
        for parent in (legacy / paths.get("memory", "/").lstrip("/"), legacy):
            found.append(
                (parent, [("memory.limit_in_bytes", None, True), ("memory.memsw.limit_in_bytes", None, False)])
            )
    return found


def oom_kills(group: str) -> int:
    """Return how many processes of a group were killed for want of memory."""
    for name in ("memory.events", "memory.oom_control"):
        for line in (read_text(Path(group) / name) or "").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def remove_cgroup(group: str) -> None:
    """Remove an empty group; its last process may take a moment to go."""
    for _ in range(50):
        try:
            Path(group).rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.02)
        else:
            return


def own_memory_bytes() -> int | None:
    """Return the memory of this process that no file backs, in bytes; None where the system doesn't say.

    That is what a control group charges it with: pages of shared libraries belong to whoever read them first.
    """
    found = 0
    for line in (read_text(Path("/proc/self/status")) or "").splitlines():
        if line.startswith(("RssAnon:", "RssShmem:")):
            found += int(line.split()[1]) * 1024
    return found or None


def watch_memory(limit_bytes: int, emit: Any) -> None:
    """End the process when its own memory goes over the limit: what can be done without a control group."""
    while True:
        held = own_memory_bytes()
        if held is None:
            return
        if held > limit_bytes:
            emit({"event": "error", "kind": "memory", "message": str(held)})
            os._exit(0)
        time.sleep(0.002)


# --------------------------------------------------------------------------------------------------------------------
# A session and its inputs
# --------------------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4096)
def median_ranks(n: int, miss: float = 0.05) -> tuple[int, int] | None:
    """Return 0-based ranks (low, high) of the sorted samples that bound the median but for a chance of `miss`.

    Order statistics: the number of samples below the median is binomial(n, 1/2), whatever the distribution (Conover,
    Practical Nonparametric Statistics, 3.2). None for samples so few that no pair of ranks is that sure: below six for
    a miss of 0.05, below eight for 0.01.
    """
    if n > 1000:
        low = int(n / 2 - statistics.NormalDist().inv_cdf(1 - miss / 2) / 2 * n**0.5) - 1
        return low, n - 1 - low
    term, tail, low = 0.5**n, 0.0, -1
    if 2 * term > miss:
        return None
    while tail + term <= miss / 2:
        tail += term
        low += 1
        term *= (n - low) / (low + 1)
    return low, n - 1 - low


def make_inputs(session: Any, request: dict[str, Any], warnings: list[str]) -> dict[str, Any]:
    """Return random values for every input: a free first axis is the batch, other free ones are as `free_axis` says."""
    import numpy as np

    kinds = {
        "tensor(float)": np.float32,
        "tensor(double)": np.float64,
        "tensor(float16)": np.float16,
        "tensor(int8)": np.int8,
        "tensor(uint8)": np.uint8,
        "tensor(int16)": np.int16,
        "tensor(uint16)": np.uint16,
        "tensor(int32)": np.int32,
        "tensor(uint32)": np.uint32,
        "tensor(int64)": np.int64,
        "tensor(uint64)": np.uint64,
        "tensor(bool)": np.bool_,
    }
    batch, free_axis = request["batch"], request["free_axis"]
    generator = np.random.default_rng(request["seed"])
    feeds = {}
    free = any(value.shape and not isinstance(value.shape[0], int) for value in session.get_inputs())
    given = request.get("input_shape") or []
    for index, value in enumerate(session.get_inputs()):
        if value.type not in kinds:
            raise RefusedError(f"input '{value.name}' is of type {value.type}, for which no random values can be made")
        shape = []
        for axis, size in enumerate(value.shape):
            if isinstance(size, int) and size > 0:
                if axis == 0 and batch not in (1, size) and not free:
                    raise RefusedError(f"input '{value.name}' has a fixed batch of {size}; {batch} was asked for")
                if axis == 0 and size != batch and not free:
                    warnings.append(
                        f"input '{value.name}' has a fixed first axis of {size}: each run computes all of it"
                    )
                shape.append(size)
            elif axis == 0:
                shape.append(batch)
            elif index == 0 and len(given) == len(value.shape) - 1:
                shape.append(given[axis - 1])
            else:
                warnings.append(f"input '{value.name}': free axis {axis} ({size}) was set to {free_axis}")
                shape.append(free_axis)
        dtype = np.dtype(kinds[value.type])
        if dtype.kind == "f":
            feeds[value.name] = generator.standard_normal(shape).astype(dtype)
        else:  # small numbers: they may be used as indices
            feeds[value.name] = generator.integers(0, 2, shape).astype(dtype)
    return feeds


def open_session(request: dict[str, Any], profile_prefix: str | None = None) -> Any:
    """Create the session: threads fixed, spinning off, all graph optimisations on, no silent change of provider."""
    import onnxruntime

    available = onnxruntime.get_available_providers()
    providers = request["providers"] or [CPU]
    missing = [provider for provider in providers if provider not in available]
    if missing:
        raise RefusedError(f"provider {missing[0]} is not in this onnxruntime; it has {', '.join(available)}")
    settings = request.get("provider_options") or {}
    threads = request["threads"]
    if "XnnpackExecutionProvider" in providers:  # it has threads of its own, which the runtime's would disturb
        own = {"intra_op_num_threads": str(threads)}
        settings = {**settings, "XnnpackExecutionProvider": {**own, **settings.get("XnnpackExecutionProvider", {})}}
        threads = 1
    if request.get("engine_cache") and "TensorrtExecutionProvider" in providers:
        own = {"trt_engine_cache_enable": "True", "trt_engine_cache_path": request["engine_cache"]}
        settings = {**settings, "TensorrtExecutionProvider": {**own, **settings.get("TensorrtExecutionProvider", {})}}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile_prefix
    model = request["model_path"] if request.get("model_path") else base64.b64decode(request["model_base64"])
    try:
        session = onnxruntime.InferenceSession(
            model,
            sess_options=options,
            providers=providers,
            provider_options=[dict(settings.get(provider, {})) for provider in providers],
        )
    except Exception as error:
        if "alloc" in str(error).lower():
            raise
        raise RefusedError(f"onnxruntime refuses it: {error}") from error
    session.disable_fallback()
    used = session.get_providers()
    if used[0] != providers[0]:
        raise FallbackError(f"{providers[0]} was asked for, but onnxruntime fell back to {used[0]}")
    return session


def bound(session: Any, feeds: dict[str, Any]) -> Any:
    """Return inputs and outputs bound once, as a program in C would have them: some us less of Python in every run.

    For the CPU alone: elsewhere bound inputs would have been copied to the device before the clock starts.
    """
    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_cpu_input(name, value)
    for value in session.get_outputs():
        binding.bind_output(value.name)
    return binding


def bind(request: dict[str, Any]) -> None:
    """Keep this process on the processors that the request names, if it names any."""
    if request.get("affinity"):
        os.sched_setaffinity(0, request["affinity"])


class Opened:
    """One model in a session, with its inputs, run once."""

    def __init__(self, request: dict[str, Any], emit: Any) -> None:
        self.warnings: list[str] = []
        self.engine_ms = None
        emit({"event": "phase", "phase": "while creating the session"})
        start = time.perf_counter()
        self.session = open_session(request)
        self.session_ms = (time.perf_counter() - start) * 1000
        if request.get("engine_cache"):  # the first session built the engine, the second finds it in the cache
            built_ms, start = self.session_ms, time.perf_counter()
            self.session = open_session(request)
            self.session_ms = (time.perf_counter() - start) * 1000
            self.engine_ms = max(0.0, built_ms - self.session_ms)
        self.feeds = make_inputs(self.session, request, self.warnings)
        self.run = self.runner()
        emit({"event": "phase", "phase": "in its first run"})
        start = time.perf_counter()
        self.run()
        self.first_run_ms = (time.perf_counter() - start) * 1000

    def runner(self) -> Any:
        """Return a function that runs the model once; each may be called in a thread of its own."""
        if self.session.get_providers() != [CPU]:
            return lambda: self.session.run(None, self.feeds)
        binding = bound(self.session, self.feeds)
        return lambda: self.session.run_with_iobinding(binding)

    def facts(self) -> dict[str, Any]:
        """Return what is known before the timing."""
        return {
            "session_ms": self.session_ms,
            "first_run_ms": self.first_run_ms,
            "engine_ms": self.engine_ms,
            "providers": self.session.get_providers(),
            "warnings": self.warnings,
        }


# --------------------------------------------------------------------------------------------------------------------
# Timing
# --------------------------------------------------------------------------------------------------------------------


def warm_up(run: Any, longest_s: float) -> None:
    """Run a few times untimed: caches, branch predictors and clocks settle."""
    start = time.perf_counter()
    count, elapsed = 0, 0.0
    while elapsed < min(WARM_UP_S, longest_s) or (count < WARM_UP_RUNS and elapsed < longest_s):
        run()
        count += 1
        elapsed = time.perf_counter() - start


def time_runs(run: Any, request: dict[str, Any]) -> tuple[list[float], bool]:
    """Return the times (ms) of repeated runs, and whether the median's 95% interval came within the tolerance."""
    clock = time.perf_counter_ns
    samples: list[float] = []
    converged = False
    next_check = 6
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        while len(samples) < MAX_SAMPLES:
            before = clock()
            run()
            samples.append((clock() - before) / 1e6)
            elapsed = time.perf_counter() - start
            if elapsed >= request["max_time_s"]:
                break
            # checks get rarer as samples accumulate, so that sorting stays a small part of the time
            if len(samples) >= next_check and elapsed >= request["min_time_s"]:
                if within_tolerance(samples, request["tolerance"]):
                    break
                next_check = len(samples) + max(5, len(samples) // 10)
        converged = within_tolerance(samples, request["tolerance"])
    finally:
        gc.enable()
    return samples, converged


def time_block(run: Any, seconds: float, least: int) -> list[float]:
    """Return the times (ms) of at least `least` runs that fill `seconds`."""
    clock = time.perf_counter_ns
    samples: list[float] = []
    gc.disable()
    try:
        end = clock() + int(seconds * 1e9)
        while len(samples) < least or clock() < end:
            before = clock()
            run()
            samples.append((clock() - before) / 1e6)
    finally:
        gc.enable()
    return samples


def within_tolerance(samples: list[float], tolerance: float) -> bool:
    """Return whether both ends of the median's 95% interval lie within `tolerance` (a share) of the median."""
    ranks = median_ranks(len(samples))
    if ranks is None:
        return False
    ordered = sorted(samples)
    n = len(ordered)
    median = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return max(ordered[ranks[1]] - median, median - ordered[ranks[0]]) <= tolerance * median


def throughput(runs: list[Any], seconds: float) -> dict[str, Any]:
    """Return how many runs as many threads finished on one session, window by window, and how long each took (ms)."""
    clock = time.perf_counter
    finished: list[list[tuple[float, float]]] = [[] for _ in runs]
    stop = threading.Event()
    failures: list[BaseException] = []

    def stream(run: Any, own: list[tuple[float, float]]) -> None:
        try:
            while not stop.is_set():
                before = clock()
                run()
                after = clock()
                own.append((after, (after - before) * 1000))
        except BaseException as error:
            failures.append(error)
            stop.set()

    threads = [threading.Thread(target=stream, args=pair, daemon=True) for pair in zip(runs, finished)]  # noqa: B905
    for thread in threads:
        thread.start()
    start = clock()
    stop.wait(seconds)
    end = clock()
    stop.set()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    done = [(at, took) for own in finished for at, took in own if start <= at <= end]
    windows = 10
    counts = [0] * windows
    for at, _ in done:
        counts[min(windows - 1, int((at - start) / (end - start) * windows))] += 1
    return {"seconds": end - start, "window_counts": counts, "samples_ms": [took for _, took in done][:MAX_SAMPLES]}


def profile_kernels(request: dict[str, Any], held: Held) -> dict[str, Any]:
    """Run the model under the runtime's own profiler and return its time by kernel, and what its arena held.

    Times are of the runs after warm-up, in us. `run_us` is what the runtime says a whole run took, `plain_us` what one
    takes without the profiler. The arena's figures are in bytes, None where this runtime's profile doesn't say.
    """
    plain = open_session(request)
    feeds = make_inputs(plain, request, [])
    plain_ms: list[float] = []
    folder = tempfile.mkdtemp(prefix="n2n-edge-profile-", dir=request.get("scratch"))
    held.scratch.append(folder)
    try:
        session = open_session(request, str(Path(folder) / "profile"))
        start, runs = time.perf_counter(), 0
        while runs < 6 or (runs < PROFILED_RUNS and time.perf_counter() - start < PROFILED_S):
            plain_ms += time_block(lambda: plain.run(None, feeds), 0.0, 1)
            session.run(None, feeds)
            runs += 1
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8", errors="replace"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    counted = max(3, runs - runs // 4)  # the first quarter warms up
    plain_us = 1000 * statistics.mean(fastest(plain_ms[-counted:]))
    return {**read_profile(events, counted), "plain_us": plain_us}


def fastest(times: list[float]) -> list[float]:
    """Return the fastest quarter of some times, at least three of them: runs that nothing disturbed."""
    return sorted(times)[: max(3, len(times) // 4)]


def read_profile(events: list[dict[str, Any]], runs: int) -> dict[str, Any]:
    """Sum up a profile of the runtime: means over the fastest quarter of its last `runs` runs, which nothing disturbed.

    Durations are whole us, cut off: half of one is added to each.
    """
    whole = [event for event in events if event.get("cat") == "Session" and event["name"] == "model_run"][-runs:]
    starts = [event["ts"] for event in whole]
    undisturbed = sorted(range(len(whole)), key=lambda place: whole[place]["dur"])[: max(3, len(whole) // 4)]
    kernels: dict[tuple[str, str, str], float] = {}
    held: list[int] = []
    in_use: list[int] = []
    for event in events:
        args = event.get("args") or {}
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        for name, found in (("mem_arena_held", held), ("mem_in_use_peak", in_use)):
            if str(args.get(name, "")).isdigit():
                found.append(int(args[name]))
        if bisect.bisect_right(starts, event["ts"]) - 1 not in undisturbed:
            continue
        key = (event["name"][: -len("_kernel_time")], args.get("op_name", ""), args.get("provider", ""))
        kernels[key] = kernels.get(key, 0.0) + (event["dur"] + 0.5) / len(undisturbed)
    return {
        "run_us": sum(whole[place]["dur"] for place in undisturbed) / max(1, len(undisturbed)),
        "kernels": [
            {"name": name, "op_type": op_type, "provider": provider, "us": us}
            for (name, op_type, provider), us in kernels.items()
        ],
        "arena_bytes": max(held) if held else None,
        "arena_in_use_bytes": max(in_use) if in_use else None,
    }


# --------------------------------------------------------------------------------------------------------------------
# Requests
# --------------------------------------------------------------------------------------------------------------------


class Held:
    """What a process leaves behind if nobody clears it away: folders, and control groups."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.scratch: list[str] = []
        self.groups: list[str] = []

    def leave(self) -> None:
        """Clear up and end the process at once, even amid a run."""
        for folder in (self.folder, *self.scratch):
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
        for group in self.groups:
            remove_cgroup(group)
        os._exit(0)


COMMANDS = ("measure", "open", "block", "throughput", "profile", "check", "state", "put", "limit", "limit_facts")


class Worker:
    """Answers requests; at most one model is open at a time."""

    def __init__(self, emit: Any, held: Held) -> None:
        self.emit = emit
        self.held = held
        self.opened: Opened | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out one request and return what the ``result`` event says."""
        if request.get("protocol") != PROTOCOL:
            raise RefusedError(f"this worker speaks protocol {PROTOCOL}, not {request.get('protocol')}")
        command = request.get("command")
        if command not in COMMANDS:
            raise RefusedError(f"this worker knows no command {command!r}")
        result: dict[str, Any] = getattr(self, str(command))(request)
        return result

    def load(self, request: dict[str, Any]) -> Opened:
        """Let go of the model that is open and return another, run once."""
        self.opened = None
        bind(request)
        return Opened(request, self.emit)

    def measure(self, request: dict[str, Any]) -> dict[str, Any]:
        """Open a model, time it until its median has settled, and close it."""
        with Energy() as energy:
            idle_watts = None
            if energy.known and request.get("idle_s"):
                time.sleep(request["idle_s"])
                idle_watts = energy.read() / request["idle_s"]
            load = Load()
            opened = self.load(request)
            self.emit({"event": "phase", "phase": "in timed runs"})
            clock_mhz = [cpu_mhz()]
            warm_up(opened.run, request["max_time_s"] / 4)
            joules, start = energy.read() if energy.known else 0.0, time.perf_counter()
            samples, converged = time_runs(opened.run, request)
            spent = None
            if energy.known:
                spent = {
                    "joules": energy.read() - joules,
                    "seconds": time.perf_counter() - start,
                    "runs": len(samples),
                    "idle_watts": idle_watts,
                    "source": energy.source,
                }
            clock_mhz.append(cpu_mhz())
        return {
            **opened.facts(),
            "samples_ms": samples,
            "converged": converged,
            "clock_mhz": clock_mhz,
            "energy": spent,
            "peak_rss_bytes": peak_rss_bytes(),
            "others_cores": load.others(),
        }

    def open(self, request: dict[str, Any]) -> dict[str, Any]:
        """Open a model for `block` and `throughput`, and warm it up."""
        self.opened = self.load(request)
        warm_up(self.opened.run, request["max_time_s"] / 4)
        gc.collect()
        return {**self.opened.facts(), "peak_rss_bytes": peak_rss_bytes()}

    def block(self, request: dict[str, Any]) -> dict[str, Any]:
        """Time the open model for a moment."""
        assert self.opened is not None
        self.emit({"event": "phase", "phase": "in timed runs"})
        load = Load()
        samples = time_block(self.opened.run, request["seconds"], request["least"])
        return {"samples_ms": samples, "others_cores": load.others(), "clock_mhz": cpu_mhz()}

    def throughput(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run the open model in several streams at once."""
        assert self.opened is not None
        self.emit({"event": "phase", "phase": "in timed runs"})
        runs = [self.opened.runner() for _ in range(request["streams"])]
        return throughput(runs, request["seconds"])

    def profile(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run a model under the runtime's profiler."""
        self.opened = None
        bind(request)
        self.emit({"event": "phase", "phase": "while being profiled"})
        found = profile_kernels(request, self.held)
        wanted = (request["providers"] or [CPU])[0]
        if found["kernels"] and wanted not in {kernel["provider"] for kernel in found["kernels"]}:
            did = sorted({kernel["provider"] for kernel in found["kernels"]})
            raise FallbackError(f"{wanted} was asked for, but every operator ran on {', '.join(did)}")
        return found

    def check(self, request: dict[str, Any]) -> dict[str, Any]:
        """Say what is here."""
        return check()

    def state(self, request: dict[str, Any]) -> dict[str, Any]:
        """Say how the board stands."""
        return board_state()

    def limit(self, request: dict[str, Any]) -> dict[str, Any]:
        """Prepare a limit on the memory of one worker."""
        found = limit_memory(request["bytes"])
        if found["cgroup"]:
            self.held.groups.append(found["cgroup"])
        return found

    def limit_facts(self, request: dict[str, Any]) -> dict[str, Any]:
        """Say whether a limit was met."""
        return {"killed": oom_kills(request["cgroup"]) > 0}

    def put(self, request: dict[str, Any]) -> dict[str, Any]:
        """Add a piece to a file of the folder; with the last one, hold it against its checksum."""
        assert self.held.folder is not None
        folder = Path(self.held.folder)
        path = folder / request["name"]
        if path.parent != folder:
            raise RefusedError(f"{request['name']}: not a plain file name")
        try:
            with path.open("ab") as file:
                file.write(base64.b64decode(request["data_base64"]))
        except OSError as error:
            path.unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                free_mb = shutil.disk_usage(str(folder)).free / 1e6
                raise OSError(f"no room in {folder.parent}: {free_mb:.1f} MB free, the model needs more") from error
            raise
        if request["last"]:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if digest != request["sha256"]:
                path.unlink()
                raise OSError(f"{request['name']} arrived damaged")
        return {"path": str(path)}


def option(arguments: list[str], name: str) -> str | None:
    """Return the word after `name`; None where it isn't there."""
    return arguments[arguments.index(name) + 1] if name in arguments else None


def serve(arguments: list[str]) -> None:
    """Answer requests until stdin ends.

    ``--keeper [--folder PATH]``: hold a folder for models instead of timing. ``--watch-memory BYTES``: end when its own
    memory exceeds it. ``--silence S``: end when nothing was heard for so long.
    """
    # Native code may print: events keep the real stdout for themselves, everything else goes to stderr.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Builds for Linux and macOS report usage over the network, and leave files behind, unless told not to in time.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    held = Held()
    lock = threading.Lock()

    def emit(event: dict[str, Any]) -> None:
        try:
            with lock:
                events.write(json.dumps(event) + "\n")
                events.flush()
        except OSError:  # nobody listens any more
            held.leave()

    for name in ("SIGINT", "SIGPIPE"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: held.leave())
    limit_bytes, silence_s = option(arguments, "--watch-memory"), option(arguments, "--silence")
    keeper = "--keeper" in arguments
    if keeper:
        try:
            held.folder = tempfile.mkdtemp(prefix="n2n-edge-", dir=option(arguments, "--folder"))
        except OSError as error:
            emit({"event": "error", "kind": "failed", "message": f"no folder for models: {error}"})
            return
    requests: queue.Queue[str] = queue.Queue()
    heard = [time.monotonic()]
    threading.Thread(target=read_requests, args=(requests, heard, held), daemon=True).start()
    silence = float(silence_s) if silence_s else None
    threading.Thread(target=watch, args=(os.getppid(), heard, silence, held), daemon=True).start()
    if limit_bytes is not None:
        threading.Thread(target=watch_memory, args=(int(limit_bytes), emit), daemon=True).start()
    ready = {"event": "ready", "protocol": PROTOCOL, "runtime": None, "baseline_rss_bytes": None, "folder": held.folder}
    if not keeper:
        try:
            ready.update(import_runtime())
        except Exception as error:
            emit({"event": "error", "kind": "missing", "message": f"{type(error).__name__}: {error}"})
            return
    emit(ready)
    worker = Worker(emit, held)
    while True:
        line = requests.get()
        try:
            emit({"event": "result", **worker.answer(json.loads(line))})
        except RefusedError as error:
            emit({"event": "error", "kind": "refused", "message": str(error)})
        except FallbackError as error:
            emit({"event": "error", "kind": "fallback", "message": str(error)})
        except Exception as error:
            emit({"event": "error", "kind": "failed", "message": f"{type(error).__name__}: {error}"})
        gc.collect()


def import_runtime() -> dict[str, Any]:
    """Import what timing needs, and return the runtime's version and the memory of a process that has only done so."""
    import numpy  # noqa: F401  (part of the import-only baseline)
    import onnxruntime

    return {"runtime": f"onnxruntime {onnxruntime.__version__}", "baseline_rss_bytes": peak_rss_bytes()}


def read_requests(requests: queue.Queue[str], heard: list[float], held: Held) -> None:
    """Pass stdin on, line by line, until it ends. An empty line only says that somebody is still there."""
    for line in sys.stdin:
        heard[0] = time.monotonic()
        if line.strip() and line.endswith("\n"):  # else it was cut off
            requests.put(line)
    held.leave()


def watch(parent: int, heard: list[float], silence_s: float | None, held: Held) -> None:
    """End the process once its parent is gone (some other child may still hold stdin open), or has fallen silent.

    Silence is believed the third time: while native code holds the interpreter nobody hears anything.
    """
    silent = 0
    while os.getppid() == parent and silent < 3:
        time.sleep(1)
        silent = silent + 1 if silence_s is not None and time.monotonic() - heard[0] > silence_s else 0
    held.leave()


if __name__ == "__main__":
    serve(sys.argv[1:])
