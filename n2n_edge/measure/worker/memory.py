"""Memory of a worker and limits on it: control groups, or a watching thread."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from .system import output_of, read_text

CGROUPS = Path("/sys/fs/cgroup")


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


def cgroup_parents(root: Path) -> list[tuple[Path, list[tuple[str, int | None, bool]]]]:
    """Return folders in which a group with a memory limit can be made, with the files to write: name, value (None: the
    limit), and whether the limit is worth nothing without it."""
    paths = {}
    for line in (read_text(Path("/proc/self/cgroup")) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        paths[controllers] = path
    parents: list[tuple[Path, list[tuple[str, int | None, bool]]]] = []
    unified = [mount for mount in (root, root / "unified") if (mount / "cgroup.controllers").exists()]
    for mount in unified:
        own = mount / paths.get("", "/").lstrip("/")
        for parent in (own, *own.parents):
            if mount not in (parent, *parent.parents):
                break
            if "memory" in (read_text(parent / "cgroup.subtree_control") or "").split():
                parents.append((parent, [("memory.max", None, True), ("memory.swap.max", 0, False)]))
    legacy = root / "memory"
    if (legacy / "memory.limit_in_bytes").exists():
        for parent in (legacy / paths.get("memory", "/").lstrip("/"), legacy):
            parents.append(
                (parent, [("memory.limit_in_bytes", None, True), ("memory.memsw.limit_in_bytes", None, False)])
            )
    return parents


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
    own = 0
    for line in (read_text(Path("/proc/self/status")) or "").splitlines():
        if line.startswith(("RssAnon:", "RssShmem:")):
            own += int(line.split()[1]) * 1024
    return own or None


def watch_memory(limit_bytes: int, emit: Any) -> None:
    """End the process when its own memory goes over the limit: what can be done without a control group."""
    while True:
        own = own_memory_bytes()
        if own is None:
            return
        if own > limit_bytes:
            emit({"event": "error", "kind": "memory", "message": str(own)})
            os._exit(0)
        time.sleep(0.002)
