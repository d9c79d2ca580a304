"""n2n-edge: make a trained neural network fit a real embedded board.

>>> from n2n_edge import Teacher, build, costs
>>> teacher = Teacher.load("model.onnx")
>>> costs(build(teacher, teacher.full.resize("g3", 24)))
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

# Builds of ONNX Runtime report usage over the network unless told otherwise before their import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Torch's worker threads wait for each other by spinning; where another program wants the core too, that makes training
# many times slower. Sleep soon instead. Has to be set before torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

if TYPE_CHECKING:
    from n2n_edge.devices import Profile, load_profile
    from n2n_edge.distill import load_student
    from n2n_edge.errors import N2NError
    from n2n_edge.figures import Figure
    from n2n_edge.gate import Budget, Verdict
    from n2n_edge.graph import Architecture, ChannelGroup, Costs, Layer, Teacher, build, costs
    from n2n_edge.measure import BenchOptions, Measurement, bench
    from n2n_edge.ship import CompressResult, compress

    __version__: str

__all__ = [
    "Architecture",
    "BenchOptions",
    "Budget",
    "ChannelGroup",
    "CompressResult",
    "Costs",
    "Figure",
    "Layer",
    "Measurement",
    "N2NError",
    "Profile",
    "Teacher",
    "Verdict",
    "__version__",
    "bench",
    "build",
    "compress",
    "costs",
    "load_profile",
    "load_student",
]

_HOMES = {
    "devices": ("Profile", "load_profile"),
    "distill": ("load_student",),
    "errors": ("N2NError",),
    "figures": ("Figure",),
    "gate": ("Budget", "Verdict"),
    "graph": ("Architecture", "ChannelGroup", "Costs", "Layer", "Teacher", "build", "costs"),
    "measure": ("BenchOptions", "Measurement", "bench"),
    "ship": ("CompressResult", "compress"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that ``import n2n_edge`` costs nothing and needs no torch."""
    if name == "__version__":  # looking for it takes as long as everything else that the command does before its help
        from n2n_edge.versions import own_version

        return own_version()
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'n2n_edge' has no attribute {name!r}")
    return getattr(import_module(f"n2n_edge.{home}"), name)
