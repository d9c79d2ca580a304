"""Masks of single objects as run lengths, as COCO keeps them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["RunLengths"]

_MOST_DIGITS = 12
"""Five bits each: more than any run in a picture needs."""


@dataclass(frozen=True, eq=False)
class RunLengths:
    """A mask of `size` (height, width): lengths of runs of 0 and 1 in turns, column by column, beginning with 0."""

    counts: NDArray[np.int64]
    size: tuple[int, int]

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> "RunLengths":
        """Return the run lengths of a mask `(H, W)`."""
        flat = np.concatenate([[False], mask.ravel(order="F"), [not mask[-1, -1]] if mask.size else [True]])
        edges = np.flatnonzero(flat[1:] != flat[:-1])
        return cls(np.diff(edges, prepend=0).astype(np.int64), (mask.shape[0], mask.shape[1]))

    @classmethod
    def checked(cls, counts: object, size: tuple[int, int]) -> "RunLengths":
        """Return run lengths as a COCO file has them, as a list or a compressed text.

        Raises ValueError where they aren't, or don't fill the size.
        """
        if isinstance(counts, str):
            lengths = _decompressed(counts)
        elif isinstance(counts, list) and all(isinstance(each, int) for each in counts):
            lengths = counts
        else:
            raise ValueError("run lengths are neither a text nor a list of whole numbers")
        if any(each < 0 for each in lengths):
            raise ValueError("a run length is below 0")
        if sum(lengths) != size[0] * size[1]:
            raise ValueError(f"run lengths sum to {sum(lengths):,}, not to {size[0]} x {size[1]}")
        return cls(np.array(lengths, np.int64), size)

    def mask(self) -> NDArray[np.bool_]:
        """Return the mask `(H, W)`."""
        values = np.arange(len(self.counts)) % 2 == 1
        return np.repeat(values, self.counts).reshape(self.size, order="F")


def _decompressed(text: str) -> list[int]:
    """Return the run lengths in a text, six bits a character of which one goes on (cocoapi's rleFrString)."""
    lengths: list[int] = []
    value = digit = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or digit >= _MOST_DIGITS:
            raise ValueError("run lengths aren't a text that COCO's tools write")
        value |= (bits & 31) << 5 * digit
        digit += 1
        if not bits & 32:
            if bits & 16:
                value -= 1 << 5 * digit
            # from the third on, the difference to the last run of the same value but one
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = digit = 0
    if digit:
        raise ValueError("run lengths end within a number")
    return lengths
