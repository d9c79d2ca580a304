"""What a shipped model says about itself, with where figures come from, and the form in which it is written."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from n2n_edge.data.dataset import Data
from n2n_edge.data.preprocessing import METADATA_KEY
from n2n_edge.devices.profile import Profile
from n2n_edge.graph.bind import with_bound_inputs
from n2n_edge.graph.file_version import in_version
from n2n_edge.graph.free_batch import fix_batch
from n2n_edge.graph.free_size import FreeSize, with_batch_name, with_free_size
from n2n_edge.graph.load import save_model
from n2n_edge.graph.torch_export import EXPORT_WARNING
from n2n_edge.metrics.budget import Budget
from n2n_edge.metrics.figures import Figure
from n2n_edge.runs.normalisation import MEAN_KEY, STD_KEY
from n2n_edge.tasks.choice import TASK_KEY

__all__ = ["data_entries", "with_metadata", "write_in_outer_form"]


def data_entries(data: Data) -> dict[str, object]:
    """Return what a file says of the images that it takes, and of what it does with them, by key."""
    return {
        TASK_KEY: {} if data.task is None else data.task.to_json(),
        MEAN_KEY: data.mean,
        STD_KEY: data.std,
        METADATA_KEY: data.preprocessing.to_json(),
    }


def write_in_outer_form(
    model: ir.Model,
    path: Path,
    one_at_a_time: bool,
    batch_name: str,
    free: FreeSize | None,
    opset: int | None,
    ir_version: int | None,
) -> None:
    """Write a graph with the inputs, batch and sizes of the file that it was made from, in the versions asked for.

    Raises:
        InputError: an operator has no form in that opset.
    """
    model = with_bound_inputs(model)
    model = fix_batch(model) if one_at_a_time else with_batch_name(model, batch_name)
    if free is not None:
        model = with_free_size(model, free.source)
    save_model(in_version(model, opset, ir_version), path)


def with_metadata(
    model: ir.Model,
    *,
    version: str,
    teacher_sha256: str,
    profiles: Sequence[Profile],
    budgets: Sequence[Budget],
    figures: Mapping[str, Figure],
    data: Data,
) -> ir.Model:
    """Return `model` with what it is and where its figures come from in its metadata.

    The first of `profiles` is the primary device. Only what follows from the run's settings goes in, nothing that was
    timed: equal runs ship equal files.
    """
    model = model.clone()
    model.metadata_props.pop(EXPORT_WARNING, None)  # of the teacher's export
    profile = profiles[0]
    entries: dict[str, object] = {
        "n2n_edge.version": version,
        "n2n_edge.teacher_sha256": teacher_sha256,
        "n2n_edge.device": profile.name,
        "n2n_edge.profile": {
            "runtime": profile.runtime,
            "providers": profile.providers,
            "threads": profile.default_threads,
            "channel_multiple": profile.channel_multiple,
        },
        "n2n_edge.budgets": {budget.cost: budget.limit for budget in budgets},
        "n2n_edge.metrics.figures": {name: figure.to_json() for name, figure in figures.items()},
        **({"n2n_edge.devices": [each.name for each in profiles]} if len(profiles) > 1 else {}),
        **data_entries(data),
    }
    for key, value in entries.items():
        model.metadata_props[key] = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    model.producer_name = "n2n-edge"
    model.producer_version = version
    return model
