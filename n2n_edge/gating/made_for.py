"""The runtime that a student's file says it was made for, beside the one that its latency is told under."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import onnx_ir as ir

from n2n_edge.errors import InputError
from n2n_edge.metrics.notices import Notice
from n2n_edge.metrics.runtimes import RuntimeName
from n2n_edge.reading import parse_json

__all__ = ["refuse_different", "runtime_warnings"]


def refuse_different(paths: Sequence[Path], models: Sequence[ir.Model]) -> None:
    """Refuse to compare the latencies of a model and its baseline that were made for different runtimes.

    Raises:
        InputError: both say what they were made for, and it isn't the same.
    """
    said = [_recorded_runtime(model) for model in models]
    if len(said) == 2 and None not in said and said[0] != said[1]:
        raise InputError(
            f"{paths[0]}: was made for {said[0]}, its baseline {paths[1]} for {said[1]}, and latencies of different "
            "runtimes aren't compared; give the ‹runtime› under which both are timed"
        )


def runtime_warnings(model: ir.Model, used: str) -> list[Notice]:
    """Return what is to be said where a file was made for another runtime than the one `used`."""
    made_for = _recorded_runtime(model)
    if made_for in (None, used):
        return []
    text = f"the file was made for {made_for}; its latency here is that under {used}"
    return [Notice("made-for-runtime", text, f"ask for the other with --runtime {made_for}")]


def _recorded_runtime(model: ir.Model) -> str | None:
    """Return the runtime that a student's file says it was made for; None where it doesn't say."""
    try:
        said = parse_json(model.metadata_props.get("n2n_edge.profile", "null"))
    except ValueError:
        return None
    runtime = said.get("runtime") if isinstance(said, dict) else None
    return runtime if runtime in get_args(RuntimeName) else None
