"""Parity of two forms of one network: bounds on the difference of outputs, and proof for the shipped file."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from n2n_edge.data.dataset import Data
from n2n_edge.errors import UnsuitableEnvironmentError
from n2n_edge.graph.image_session import ImageSession
from n2n_edge.graph.load import load_model
from n2n_edge.graph.shape_run import Array
from n2n_edge.metrics.notices import Notice
from n2n_edge.quantize.device_plan import has_vnni, is_x86
from n2n_edge.tasks.choice import task_of
from n2n_edge.tasks.classification import Classification
from n2n_edge.training.executor import GraphModule

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MAX_RELATIVE_ERROR", "MIN_TOP1_AGREEMENT", "Difference", "Parity", "check_parity", "worst_difference"]

MAX_RELATIVE_ERROR = 1e-3

ABSOLUTE_FLOOR = 1e-6
"""Differences up to this are rounding, however small the output: sigmoids may be nearly nought everywhere."""

_SEVEN_BITS = 64
"""Largest magnitude of a weight that ONNX Runtime's quantizer calls reduced."""

_ROUNDING_FACTOR, _ROUNDING_AT_MOST = 4.0, 0.02
"""Beyond the bound a file may be so many times as far from exact outputs as torch in float32 is, and so far at most."""

MIN_TOP1_AGREEMENT = 0.99
MAX_QUANTIZED_ERROR, MIN_QUANTIZED_AGREEMENT = 1 / 127, 0.95
"""The bounds of a student in int8: one step of the largest output, see `check_parity`."""
_IMAGES = 256
_IMAGES_OF_ANOTHER_SIZE = 4


@dataclass(frozen=True)
class Parity:
    """How torch and ONNX Runtime agree on `n` real images.

    `max_relative_error` is the largest difference of any output element beyond an absolute floor (`ABSOLUTE_FLOOR`),
    relative to the largest magnitude of that output; `top1_agreement` is None for outputs that aren't class scores.
    `rounding`, of a network that amplifies rounding beyond the bound, is how far float32 alone moves its outputs, the
    same way: torch's own error, or what lies between two orders in which the runtime computes the file.
    """

    max_relative_error: float
    top1_agreement: float | None
    n: int
    rounding: float | None = None

    @property
    def in_words(self) -> str:
        """A line on it, as a command prints it."""
        agreement = "" if self.top1_agreement is None else f", top-1 agreement {self.top1_agreement:.1%}"
        return (
            f"parity of torch and ONNX Runtime on {self.n} images: relative error {self.max_relative_error:.1e}"
            f"{agreement}"
        )

    @property
    def notices(self) -> tuple[Notice, ...]:
        """A warning of a network that amplifies rounding."""
        if self.rounding is None:
            return ()
        text = (
            f"the student amplifies rounding: float32 alone moves its outputs by {self.rounding:.1%}, so that runtimes "
            "and boards will differ as much"
        )
        return (Notice("amplifies-rounding", text, "train it for longer, or on more images"),)


def _saturates(file: Path) -> bool:
    """Tell whether this processor's kernels, but no board's, overflow with a file's weights: 16 bits add two products.

    Node by node, without the runtime's optimisations, nothing does.
    """
    if not is_x86() or has_vnni():
        return False
    weights = (value.const_value for value in load_model(file).graph.initializers.values())
    signed = (each.numpy() for each in weights if each is not None and each.dtype == ir.DataType.INT8 and each.size)
    return any(np.abs(each.astype(np.int16)).max() > _SEVEN_BITS for each in signed)


def check_parity(
    trained: ir.Model,
    shipped: Path,
    data: Data,
    another: tuple[int, int, int] | None = None,
    *,
    coarse: bool = False,
) -> Parity:
    """Run the trained graph in torch and the shipped file in ONNX Runtime on the same real images and compare.

    With `another` shape ``(C, H, W)`` a few of them are compared at that size, too.

    Compared are the values that were learned (`learned_outputs`); what the file has behind them is the teacher's own.
    Where they differ by more than the bound, both are compared with outputs in float64: a network may amplify rounding
    so far that no two ways to run it agree, and a file that is as near to them as torch, or as its own outputs are to
    each other with and without the runtime's optimisations, is what was trained.

    Of a `coarse` student, in int8 or fp16, values may be rounded to a neighbouring step where they lie between two: its
    error is the root of the mean square over all images, relative to the largest magnitude, and its bound one step
    (`MAX_QUANTIZED_ERROR`).

    Raises:
        UnsuitableEnvironmentError: they differ by more than the bounds of this module; the file must not be used.
    """
    import torch

    from n2n_edge.training.batches import evaluation_batches
    from n2n_edge.training.evaluation import batch_for

    compared = data.validation.take(np.arange(min(_IMAGES, len(data.validation))))
    session = ImageSession.learned(shipped, optimised=not (coarse and _saturates(shipped)))
    size = session.batch or batch_for(data)
    module = GraphModule(trained)
    module.eval()
    worst, agreeing, seen = 0.0, 0, 0
    exact, task = _Exact(trained, shipped), task_of(trained, data)
    bound = MAX_QUANTIZED_ERROR if coarse else MAX_RELATIVE_ERROR
    rounding: float | None = None
    unexplained = classifier = False
    squares: dict[tuple[int, ...], _Squares] = {}
    batches = (batch.inputs for batch in evaluation_batches(data, compared, size))
    resized = []
    if another is not None:
        few = next(evaluation_batches(data, compared, min(size, _IMAGES_OF_ANOTHER_SIZE))).inputs
        resized.append(torch.nn.functional.interpolate(few, another[1:], mode="bilinear"))
    for batch in chain(batches, resized):
        with torch.inference_mode():
            outputs = module(batch)
        own = [item.numpy() for item in (outputs if isinstance(outputs, tuple) else (outputs,))]
        theirs = session.run(batch.contiguous().numpy())
        difference = worst_difference(own, theirs).relative
        if coarse and np.isfinite(difference):
            difference = 0.0
            squares.setdefault(tuple(batch.shape[1:]), _Squares()).add(own, theirs)
        found = exact.rounding(batch, own, theirs) if difference > bound and not coarse else None
        if found is not None:
            rounding = max(rounding or 0.0, found)
        unexplained = unexplained or (difference > bound and found is None)
        worst = max(worst, difference)
        classifier = len(own) == 1 and own[0].ndim == 2 and isinstance(task, Classification)
        if classifier:
            agreeing += int((own[0].argmax(1) == theirs[0].argmax(1)).sum())
        seen += len(batch)
    worst = max([worst, *(each.relative for each in squares.values())])
    agreement = agreeing / seen if classifier and seen else None
    least = MIN_QUANTIZED_AGREEMENT if coarse else MIN_TOP1_AGREEMENT
    unexplained = unexplained or not np.isfinite(worst) or (coarse and worst > bound)
    if unexplained or (agreement is not None and agreement < least):
        raise UnsuitableEnvironmentError(
            f"{shipped.name}: ONNX Runtime and torch differ (relative error {worst:.2g}, bound {bound:g}; "
            f"top-1 agreement {agreement if agreement is not None else 'not applicable'}); "
            "the file isn't what was trained: don't use it, and report this"
        )
    return Parity(worst, agreement, seen, rounding)


class _Exact:
    """A graph in float64, and the file run as it is written; each made when it is first asked."""

    def __init__(self, model: ir.Model, shipped: Path) -> None:
        self._model, self._shipped = model, shipped

    @cached_property
    def _module(self) -> GraphModule:
        return GraphModule(self._model).double().eval()

    @cached_property
    def _unoptimised(self) -> ImageSession:
        return ImageSession.learned(self._shipped, optimised=False)

    def rounding(self, batch: "Tensor", own: Sequence[Array], theirs: Sequence[Array]) -> float | None:
        """Return what rounding moves, or None where that doesn't explain how far the file's outputs are off."""
        import torch

        try:
            with torch.inference_mode():
                outputs = self._module(batch.double())
        except RuntimeError:  # some operator has no float64, or is run by ONNX Runtime
            return None
        exact = [item.numpy() for item in (outputs if isinstance(outputs, tuple) else (outputs,))]
        mine, other = (worst_difference(exact, found).relative for found in (own, theirs))
        if other > _ROUNDING_FACTOR * mine:  # the runtime's kernels may round more coarsely than torch's
            mine = max(mine, worst_difference(theirs, self._unoptimised.run(batch.contiguous().numpy())).relative)
        return mine if other <= min(_ROUNDING_AT_MOST, max(MAX_RELATIVE_ERROR, _ROUNDING_FACTOR * mine)) else None


@dataclass(frozen=True)
class Difference:
    """How far two runs are apart in one output: the largest difference beyond the floor, relative to its magnitude."""

    output: int
    relative: float

    @property
    def agrees(self) -> bool:
        """Whether this is rounding."""
        return self.relative <= MAX_RELATIVE_ERROR


class _Squares:
    """Squares of what outputs differ by, and their magnitudes, over batches: a batch may be one image."""

    def __init__(self) -> None:
        self._outputs: list[tuple[float, int, float]] = []

    def add(self, expected: Sequence[Array], got: Sequence[Array]) -> None:
        """Count a batch whose outputs have the same shapes and are finite in the same elements."""
        before = self._outputs or [(0.0, 0, 0.0)] * len(expected)
        self._outputs = []
        for (total, count, largest), a, b in zip(before, expected, got, strict=True):
            one, other = (each[np.isfinite(a)].astype(np.float64) for each in (a, b))
            squares = float(((one - other) ** 2).sum())
            self._outputs.append((total + squares, count + one.size, max(largest, np.abs(one).max(initial=0.0))))

    @property
    def relative(self) -> float:
        """The root of the mean square beyond the floor, relative to the largest magnitude, of the worst output."""
        roots = [((total / max(count, 1)) ** 0.5 - ABSOLUTE_FLOOR, largest) for total, count, largest in self._outputs]
        relative = [root / largest if largest > 0 else float("inf") for root, largest in roots if root > 0]
        return max(relative, default=0.0)


def worst_difference(expected: Sequence[Array], got: Sequence[Array]) -> Difference:
    """Return the output that differs most; infinitely where shapes, or what is finite, aren't the same."""
    if len(expected) != len(got):
        return Difference(0, float("inf"))
    found = [Difference(index, _apart(a, b)) for index, (a, b) in enumerate(zip(expected, got, strict=True))]
    return max(found, key=lambda difference: difference.relative, default=Difference(0, 0.0))


def _apart(expected: Array, got: Array) -> float:
    if expected.shape != got.shape:
        return float("inf")
    if not np.issubdtype(expected.dtype, np.floating):
        return float(np.mean(expected != got)) if expected.size else 0.0
    finite = np.isfinite(expected)
    if not np.array_equal(finite, np.isfinite(got)) or not np.array_equal(
        expected[~finite], got[~finite], equal_nan=True
    ):
        return float("inf")
    a, b = expected[finite].astype(np.float64), got[finite].astype(np.float64)
    beyond = float(np.abs(a - b).max(initial=0)) - ABSOLUTE_FLOOR
    if beyond <= 0:
        return 0.0
    largest = float(np.abs(a).max(initial=0))
    return beyond / largest if largest > 0 else float("inf")
