"""How much work a run does, by name."""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["EFFORTS", "Effort"]


@dataclass(frozen=True)
class Effort:
    """How much work a run does.

    Trained candidates per stage, images of a candidate's short distillation, rungs on which the best are judged again
    (how many, and on how many times the images), and images of the final distillation in all, which with the data's
    size gives its epochs.
    """

    removal_candidates: int
    shrinkage_candidates: int
    short_images: int
    rungs: tuple[tuple[int, int], ...]
    final_images: int
    least_epochs: int
    most_epochs: int

    def epochs(self, train_images: int) -> int:
        """Return the epochs of the final distillation for so many training images."""
        return max(self.least_epochs, min(self.most_epochs, round(self.final_images / train_images)))


EFFORTS: Mapping[str, Effort] = {
    "quick": Effort(12, 16, 1024, ((6, 2), (2, 6)), 120_000, 2, 60),
    "standard": Effort(40, 60, 1024, ((12, 4), (4, 16)), 720_000, 8, 150),
    "thorough": Effort(150, 250, 2560, ((20, 4), (6, 16)), 3_000_000, 20, 400),
}
