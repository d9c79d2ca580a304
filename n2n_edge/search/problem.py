"""What a policy has to decide: a sequence of steps, the actions allowed at each, and what it may know about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["DecisionProblem", "ProblemKind", "Proposal"]

Proposal = tuple[int, ...]
"""One action per step, the form in which a policy names a candidate."""

ProblemKind = Literal["removal", "shrinkage"]


@dataclass(frozen=True, eq=False)
class DecisionProblem:
    """The decisions of one search stage over L steps with F features and at most A actions per step.

    Actions of a step are ordered by how much of the layer they keep (in either direction), so that neighbouring
    actions are neighbouring widths. F and A are the same for every network: that is what lets a policy trained on one
    network be continued on another.

    Raises ValueError where the parts contradict each other.
    """

    features: npt.NDArray[np.float32]
    """(L, F), normalised state of each step."""
    choices: tuple[int, ...]
    """Number of allowed actions of each step; equal to the row sums of `mask`."""
    actions: int
    """A, the size of the action set that all steps share."""
    mask: npt.NDArray[np.bool_]
    """(L, A), true where an action is allowed."""
    default: Proposal
    """The action of each step that leaves the network as it is: keep, or full width."""
    kind: ProblemKind
    bias: npt.NDArray[np.float32] | None = None
    """(L, A), optional log-prior on actions that a learning policy starts from."""

    def __post_init__(self) -> None:
        steps = len(self.default)
        if not steps:
            raise ValueError("a problem without steps has nothing to decide")
        if self.features.ndim != 2 or self.features.shape[0] != steps:
            raise ValueError(f"features have shape {self.features.shape}; expected ({steps}, F)")
        if not np.isfinite(self.features).all():
            raise ValueError("features hold values that are not finite")
        if self.mask.shape != (steps, self.actions):
            raise ValueError(f"mask has shape {self.mask.shape}; expected ({steps}, {self.actions})")
        if self.choices != tuple(int(n) for n in self.mask.sum(axis=1)):
            raise ValueError("choices differ from the number of allowed actions in mask")
        if self.bias is not None and self.bias.shape != self.mask.shape:
            raise ValueError(f"bias has shape {self.bias.shape}; expected {self.mask.shape}")
        if self.bias is not None and not np.isfinite(self.bias[self.mask]).all():
            raise ValueError("bias holds values that are not finite for allowed actions")
        for step, action in enumerate(self.default):
            if not (0 <= action < self.actions and self.mask[step, action]):
                raise ValueError(f"default action {action} of step {step} is not allowed")

    @property
    def steps(self) -> int:
        """L, the number of decisions in one proposal."""
        return len(self.default)

    def size(self) -> float:
        """Return the number of distinct proposals (a float: it overflows any machine integer quickly)."""
        return float(np.prod(np.asarray(self.choices, dtype=np.float64)))

    def by_change(self, step: int) -> tuple[int, ...]:
        """Return the allowed actions of `step`, from the one that changes nothing to the one that changes most."""
        allowed = np.flatnonzero(self.mask[step])
        return tuple(int(action) for action in sorted(allowed, key=lambda action: abs(action - self.default[step])))

    def check(self, proposal: Sequence[int]) -> None:
        """Raise ValueError if `proposal` has the wrong length or takes an action that is not allowed."""
        if len(proposal) != self.steps:
            raise ValueError(f"a proposal of {len(proposal)} actions was given to a problem of {self.steps} steps")
        for step, action in enumerate(proposal):
            if not (0 <= action < self.actions and self.mask[step, action]):
                raise ValueError(f"action {action} is not allowed at step {step}")
