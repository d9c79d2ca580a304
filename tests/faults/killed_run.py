"""`n2n-edge` as a run that is to be killed: it says on its stdout which phase it is in, and takes seconds.

Its first argument is the address of a server of forks, or ''. Its amounts are a tenth of `--effort quick`. Where
`N2N_EDGE_TEST_CLOCK` is set its clock jumps, back and forth, by up to a year.
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from n2n_edge import watchdog
from n2n_edge.graph import child
from n2n_edge.measure.launch import Launch
from n2n_edge.measure.target import HostTarget
from n2n_edge.runs.effort import EFFORTS
from tests.fork_server import Forks

__all__ = ["MARK"]

MARK = "PHASE "


def announce(name: str) -> None:
    os.write(1, f"{MARK}{name}\n".encode())


def jumping_clock(seed: int) -> None:
    """Have the time of day jump with every look at it; what elapses is measured by another clock."""
    now, random = time.time, Random(seed)
    jumps = (0.0, -1.0, 1.0, -3600.0, 3600.0, -86_400.0, 86_400.0, -3e7, 3e7)
    time.time = lambda: now() + random.choice(jumps)


def prepare(forks: Forks) -> None:
    """Have phases announced, processes forked, and amounts small."""
    phase = watchdog.Watchdog.phase

    @contextmanager
    def announced(self: watchdog.Watchdog, name: str) -> Iterator[None]:
        announce(name)
        with phase(self, name):
            yield

    watchdog.Watchdog.phase = announced  # type: ignore[method-assign]
    from n2n_edge.runs import finish

    write = finish.write_html

    def write_html(*given: Any) -> None:
        announce("report")
        write(*given)

    finish.write_html = write_html
    launch, command = HostTarget.launch, child._command

    def forked(self: HostTarget, arguments: Sequence[str], prefix: Sequence[str] = ()) -> Launch:
        found = launch(self, arguments, prefix)
        return replace(found, argv=forks.argv(found.argv))

    HostTarget.launch = forked  # type: ignore[method-assign]
    child._command = lambda folder: forks.argv(command(folder))
    EFFORTS["quick"] = replace(EFFORTS["quick"], short_images=128, rungs=((2, 2), (2, 4)))  # type: ignore[index]


def main() -> None:
    announce(f"{os.getpid()} start")
    address = sys.argv.pop(1)
    prepare(Forks(Path(address) if address else None))
    if "N2N_EDGE_TEST_CLOCK" in os.environ:
        jumping_clock(int(os.environ["N2N_EDGE_TEST_CLOCK"]))
    from n2n_edge.cli.app import main as command

    command()


if __name__ == "__main__":
    main()
