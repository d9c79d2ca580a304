"""From the winner to the file that ships: final distillation, parity proof, budgets, report, model card."""

from importlib import import_module
from typing import TYPE_CHECKING

from n2n_edge.ship.api import compress, require_pillow, require_training_packages
from n2n_edge.ship.folder import RunFolder
from n2n_edge.ship.settings import EFFORTS, CompressSettings, absolute_paths, read_settings, write_settings

if TYPE_CHECKING:
    from n2n_edge.ship.chosen import ship_candidate
    from n2n_edge.ship.finish import CompressResult
    from n2n_edge.ship.front import RunCandidates, read_candidates
    from n2n_edge.ship.observer import Observer
    from n2n_edge.ship.run import run_compress

__all__ = [
    "EFFORTS",
    "CompressResult",
    "CompressSettings",
    "Observer",
    "RunCandidates",
    "RunFolder",
    "absolute_paths",
    "compress",
    "read_candidates",
    "read_settings",
    "require_pillow",
    "require_training_packages",
    "run_compress",
    "ship_candidate",
    "write_settings",
]


_HOME_OF = {
    "CompressResult": "finish",
    "Observer": "observer",
    "RunCandidates": "front",
    "read_candidates": "front",
    "run_compress": "run",
    "ship_candidate": "chosen",
}


def __getattr__(name: str) -> object:
    """Import what needs torch when it is first used."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'n2n_edge.ship' has no attribute {name!r}")
    return getattr(import_module(f"n2n_edge.ship.{_HOME_OF[name]}"), name)
