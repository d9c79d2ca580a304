"""Base of tasks whose outputs are numbers of unlike size, compared by channel in units of the teacher's variance."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from n2n_edge.tasks.task import JoinedTask, LossSettings, Tensors

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor

    from n2n_edge.tasks.channels import ChannelScale
    from n2n_edge.tasks.losses import Mean

__all__ = ["ScaledTask"]


@dataclass(frozen=True)
class ScaledTask(JoinedTask):
    """A task that knows how far the teacher's channels vary: `scales`, measured on many images."""

    scales: "tuple[ChannelScale, ...] | None" = field(default=None, compare=False, kw_only=True)

    def measured(self, teacher: Callable[[], Iterable[Tensors]]) -> "Self":
        """Return the task with the scales of the teacher's channels."""
        from n2n_edge.tasks.channels import channel_scales

        return replace(self, scales=channel_scales(teacher()))

    def scales_for(self, teacher: Tensors) -> "tuple[ChannelScale, ...]":
        """Return the scales, those of this batch where none were measured."""
        from n2n_edge.tasks.channels import channel_scales

        return self.scales or channel_scales([teacher])

    def divergence(
        self, student: Tensors, teacher: Tensors, settings: LossSettings, mean: "Mean | None" = None
    ) -> "Tensor":
        """Give the error of every channel in units of its variance, averaged over the outputs."""
        from n2n_edge.tasks.losses import values_loss

        return values_loss(student, teacher, self.scales_for(teacher), mean)
