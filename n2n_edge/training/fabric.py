"""Lightning Fabric's object for a device, a number format and a number of processes."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.precision import MixedPrecision, Precision
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.single_device import SingleDeviceStrategy
from lightning_fabric.strategies.strategy import Strategy

from n2n_edge.training.settings import Format

__all__ = ["launch", "make_fabric"]

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)

_Result = TypeVar("_Result")


class Mixed(MixedPrecision):
    """Mixed precision whose inputs stay float32 and whose cast weights don't outlive an optimiser step."""

    def forward_context(self) -> torch.autocast:
        """Return the context that a forward pass runs in."""
        return torch.autocast(self.device, self._desired_input_dtype, cache_enabled=False)

    def convert_input(self, data: Any) -> Any:
        """Return inputs as they are: autocast decides op by op."""
        return data


def _precision(device: torch.device, number_format: Format) -> Precision:
    if number_format == "fp32":
        return Precision()
    if number_format == "bf16":
        return Mixed("bf16-mixed", device.type)
    return Mixed("16-mixed", device.type, torch.amp.GradScaler(device.type))


def make_fabric(device: torch.device, number_format: Format, processes: int = 1) -> Fabric:
    """Return what puts modules and batches on `device`; several processes have yet to be launched.

    Several take as many CUDA devices from the first on, or share the processor.
    """
    strategy: Strategy = SingleDeviceStrategy(device)
    if processes > 1:
        # parameters may be unused: those of outputs that no loss looks at
        strategy = DDPStrategy(start_method="spawn", find_unused_parameters=True)
    devices = [device.index or 0] if device.type == "cuda" and processes == 1 else processes
    return Fabric(
        accelerator=device.type if device.type in ("cuda", "mps") else "cpu",
        strategy=strategy,
        devices=devices,
        plugins=[_precision(device, number_format), LightningEnvironment()],  # no look at schedulers such as Slurm
    )


def launch(
    function: Callable[..., _Result], device: torch.device, number_format: Format, processes: int, *given: Any
) -> _Result:
    """Run ``function(fabric, *given)`` in several new processes, and return what the first one returns."""
    result: _Result = make_fabric(device, number_format, processes).launch(function, *given)
    return result
