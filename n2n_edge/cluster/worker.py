"""Worker on a node: it fetches a distiller once, and evaluates the candidates, or does other work, that it is sent.

This module travels to the nodes as it is, so that they can say which versions they have before anything of n2n-edge is
imported there: it imports nothing but the standard library at its top.
"""

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from n2n_edge.search.evaluations import Outcome, Work

__all__ = ["Worker", "versions"]

_ADVICE = "the worker is given up, and the evaluation begun again elsewhere"


def versions() -> dict[str, str]:
    """Return the releases here of what has to be the same on every node; of Python major and minor.

    Builds of one release, such as those of torch for a processor or a GPU, count as the same.
    """
    found = {"Python": ".".join(platform.python_version_tuple()[:2])}
    for name, module in (("n2n-edge", "n2n_edge"), ("torch", "torch")):
        try:
            found[name] = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            found[name] = "not installed" if find_spec(module) is None else "0+unknown"
    return found


class Worker:
    """Evaluates one candidate after the other with `threads` of torch; `ping` answers meanwhile."""

    def __init__(self, threads: int, environment: Mapping[str, str]) -> None:
        os.environ.update(environment)
        self._threads = threads
        self._distiller: tuple[str, Any] | None = None
        self._said: list[str] = []

    def hello(self) -> tuple[dict[str, str], str, int]:
        """Return the versions here, the name of this machine, and the process."""
        return versions(), platform.node(), os.getpid()

    def ping(self) -> list[str]:
        """Return what the work and the watchdog have said since they were asked last."""
        said, self._said = self._said, []
        return said

    def evaluate(self, distiller: Sequence[Any], name: str, work: "Work") -> "Outcome":
        """Return what comes of some work; `distiller` holds the reference of what it needs, `name` is unique."""
        import ray

        from n2n_edge.watchdog import watched

        self._said = []
        if self._distiller is None or self._distiller[0] != name:
            self._distiller = None  # its memory first
            self._distiller = (name, ray.get(distiller[0]) if distiller else None)
        if "torch" in sys.modules:
            import torch

            torch.set_num_threads(self._threads)
        with watched(self._tell, _ADVICE):
            return work.evaluated(self._distiller[1], self._tell)

    def _tell(self, text: str) -> None:
        self._said.append(text)
