"""What a distillation tells while it runs."""

from dataclasses import dataclass

__all__ = ["EpochReport", "StepReport"]


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch (counted from 1): mean training loss, validation metric in 0..1, and whether it is the best.

    `validation_loss` is the distillation loss on the validation images, which decides between equal metrics;
    `images_per_s` counts training alone, `seconds` everything; `learning_rate` is that of the last step; `loader_share`
    is the part of the training's time that went by waiting for images.
    """

    epoch: int
    epochs: int
    train_loss: float
    validation: float
    best: bool
    images_per_s: float
    seconds: float
    learning_rate: float | None = None
    validation_loss: float | None = None
    loader_share: float | None = None

    @property
    def in_words(self) -> str:
        """The epoch in a line."""
        best = " (best)" if self.best else ""
        return (
            f"training epoch {self.epoch}/{self.epochs}: loss {self.train_loss:.3f}, "
            f"validation {self.validation:.2%}{best}"
        )


@dataclass(frozen=True)
class StepReport:
    """Progress inside an epoch; `eta_s` is the time left until the last epoch would end.

    `loader_share` is the part of the epoch's time so far that went by waiting for images.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    images_per_s: float
    eta_s: float
    loader_share: float = 0.0
