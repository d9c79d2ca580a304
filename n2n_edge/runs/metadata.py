"""What a shipped model says about itself: version, teacher, device, budgets, figures with their provenance."""

import json
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from n2n_edge.data.dataset import Data
from n2n_edge.data.preprocessing import METADATA_KEY
from n2n_edge.devices.profile import Profile
from n2n_edge.graph.torch_export import EXPORT_WARNING
from n2n_edge.metrics.budget import Budget
from n2n_edge.metrics.figures import Figure
from n2n_edge.runs.normalisation import MEAN_KEY, STD_KEY
from n2n_edge.tasks.choice import TASK_KEY

__all__ = ["with_metadata"]


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
        TASK_KEY: {} if data.task is None else data.task.to_json(),
        "n2n_edge.budgets": {budget.cost: budget.limit for budget in budgets},
        "n2n_edge.metrics.figures": {name: figure.to_json() for name, figure in figures.items()},
        **({"n2n_edge.devices": [each.name for each in profiles]} if len(profiles) > 1 else {}),
        MEAN_KEY: data.mean,
        STD_KEY: data.std,
        METADATA_KEY: data.preprocessing.to_json(),
    }
    for key, value in entries.items():
        model.metadata_props[key] = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    model.producer_name = "n2n-edge"
    model.producer_version = version
    return model
