"""What a run's policies have learned, kept for `--policy-from`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from n2n_edge.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PolicyStates", "load_policies", "save_policies"]

PolicyStates = Mapping[str, Mapping[str, "Tensor"]]


def save_policies(states: "Mapping[str, Mapping[str, Tensor]]", path: Path) -> None:
    """Write the states of all stages to one file; policies that learn nothing leave none."""
    from safetensors.torch import save

    tensors = {f"{stage}/{name}": tensor for stage, state in states.items() for name, tensor in state.items()}
    if tensors:
        partial = path.with_name(f".{path.name}.partial")
        partial.write_bytes(save(tensors))  # save_file would keep everybody else from reading it
        partial.replace(path)


def load_policies(run: Path) -> "dict[str, dict[str, Tensor]]":
    """Read the policies of the run in folder `run`, by stage.

    Raises:
        InputError: no such run, or its policy learned nothing (random, greedy).
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = run / "policy.safetensors" if run.is_dir() else run
    if not path.is_file():
        raise InputError(
            f"‹policy_from› {run}: holds no trained policy; give the folder of a finished run with policy reinforce"
        )
    try:
        tensors = load_file(str(path))
    except SafetensorError as error:
        raise InputError(f"‹policy_from› {run}: {path.name} is damaged; give another run") from error
    states: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        stage, _, rest = name.partition("/")
        states.setdefault(stage, {})[rest] = tensor
    return states
