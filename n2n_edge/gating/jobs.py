"""Jobs of a gate: its models, and what a budget file and the command line on top ask of each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from n2n_edge.errors import InputError
from n2n_edge.gating.budget_file import BudgetFile
from n2n_edge.gating.run import GateJob
from n2n_edge.gating.settings import settings_of

__all__ = ["gate_jobs"]


def gate_jobs(models: Sequence[Path], given: Mapping[str, Any], budget_file: BudgetFile | None) -> tuple[GateJob, ...]:
    """Return a job per model, of all that the budget file names where none is given; a model given twice counts once.

    `given` are settings from the command line, which hold over those of the file.

    Raises:
        InputError: no model, or settings that aren't right.
    """
    if not models and budget_file is None:
        raise InputError(
            "gate: no model, and no n2n-edge.toml that names any; give MODEL, or write one with --init MODEL"
        )
    chosen = models or (budget_file.found_models() if budget_file is not None else ())
    jobs = []
    for model in dict.fromkeys(chosen):
        tables = budget_file.tables_for(model) if budget_file is not None else []
        jobs.append(GateJob(model, settings_of([*tables, ("command line", given, None)])))
    return tuple(jobs)
