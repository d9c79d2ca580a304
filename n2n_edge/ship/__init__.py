"""From the winner to the file that ships: final distillation, parity proof, budgets, report, model card."""

from typing import TYPE_CHECKING

from n2n_edge.ship.api import compress, require_training_packages
from n2n_edge.ship.folder import RunFolder
from n2n_edge.ship.settings import EFFORTS, CompressSettings, read_settings, write_settings

if TYPE_CHECKING:
    from n2n_edge.ship.run import CompressResult, Observer, run_compress

__all__ = [
    "EFFORTS",
    "CompressResult",
    "CompressSettings",
    "Observer",
    "RunFolder",
    "compress",
    "read_settings",
    "require_training_packages",
    "run_compress",
    "write_settings",
]


def __getattr__(name: str) -> object:
    """Import what needs torch when it is first used."""
    if name in ("CompressResult", "Observer", "run_compress"):
        from n2n_edge.ship import run as module

        return getattr(module, name)
    raise AttributeError(f"module 'n2n_edge.ship' has no attribute {name!r}")
