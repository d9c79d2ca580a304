"""What candidates share but for their widths, and their precision: the form in which they ship and are costed."""

from dataclasses import dataclass
from typing import NamedTuple

import onnx_ir as ir

from n2n_edge.data.dataset import Data
from n2n_edge.devices.profile import Profile
from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.batchnorm import fold_batchnorm
from n2n_edge.graph.learned import nodes_behind_learned
from n2n_edge.graph.regions import nodes_outside
from n2n_edge.graph.teacher import Teacher
from n2n_edge.metrics.precisions import ShippedPrecision
from n2n_edge.quantize.calibrate import Method
from n2n_edge.quantize.device_plan import plan_for
from n2n_edge.quantize.half import in_half
from n2n_edge.quantize.plan import QuantizationPlan
from n2n_edge.quantize.ptq import calibrated
from n2n_edge.quantize.qdq import structural, with_qdq

__all__ = ["Base", "CandidatePrecision", "Depth"]

_IMAGES = 64
_METHOD: Method = "mse"
"""Training images that a candidate is calibrated on, and how its ranges are found: the final way tries them all."""


class Depth(NamedTuple):
    """Which layers are there: those that are gone, and those that are merged with what reads them."""

    removed: frozenset[str] = frozenset()
    linear: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Base:
    """What all widths of one choice of layers and precisions share: layers gone or merged, and regions in int8."""

    removed: frozenset[str] = frozenset()
    int8: frozenset[str] = frozenset()
    linear: frozenset[str] = frozenset()

    @classmethod
    def of(cls, architecture: Architecture) -> "Base":
        """Return an architecture without its widths."""
        return cls(architecture.removed, architecture.int8, architecture.linear)

    @property
    def depth(self) -> Depth:
        """Its layers."""
        return Depth(self.removed, self.linear)

    def distance(self, other: "Base") -> tuple[int, int]:
        """Return in how many regions, and in how many layers, `other` differs."""
        layers = len(self.removed ^ other.removed) + len(self.linear ^ other.linear)
        return len(self.int8 ^ other.int8), layers


class CandidatePrecision:
    """What precisions a search may choose, and what becomes of a candidate in the one that was chosen.

    ``auto`` leaves each region of the teacher to the search; ``int8`` puts all of them into int8, ``fp32`` none, and
    ``fp16`` the whole file into float16.

    >>> CandidatePrecision(teacher, "int8").always == {region.name for region in teacher.regions}
    True
    """

    def __init__(self, teacher: Teacher, precision: ShippedPrecision = "fp32", profile: Profile | None = None) -> None:
        """`profile` is the device whose integers they are, by default an ARM board."""
        self._profile = profile
        self._regions = teacher.regions
        names = tuple(region.name for region in teacher.regions)
        self.open: tuple[str, ...] = names if precision == "auto" else ()
        """The regions that candidates choose the precision of, in execution order."""
        self.always: frozenset[str] = frozenset(names if precision == "int8" else ())
        """The regions that are in int8 in every candidate."""
        self.half = precision == "fp16"
        """Whether candidates are in float16, as a whole."""

    @property
    def most(self) -> frozenset[str]:
        """All regions that may be in int8."""
        return self.always.union(self.open)

    def plan(self, model: ir.Model, int8: frozenset[str]) -> QuantizationPlan:
        """Return how a candidate's graph is quantized whose regions `int8` are."""
        chosen = [region for region in self._regions if region.name in int8]
        outside = nodes_outside(model, chosen)
        return QuantizationPlan(outside) if self._profile is None else plan_for(self._profile, outside)

    def shipped(self, model: ir.Model, int8: frozenset[str]) -> ir.Model:
        """Return the form in which `model` ships, as far as its costs go: scales are those of no calibration.

        It is `model` itself where nothing is converted.
        """
        if self.half:
            return in_half(fold_batchnorm(model), nodes_behind_learned(model))
        return structural(fold_batchnorm(model), self.plan(model, int8)) if int8 else model

    def calibrated(self, model: ir.Model, data: Data, int8: frozenset[str]) -> ir.Model:
        """Return the training form of a trained candidate, its scales from some training images.

        It calculates what the quantized file would; norms are folded.
        """
        model = fold_batchnorm(model)
        plan = self.plan(model, int8)
        return with_qdq(model, calibrated(model, plan, data, _IMAGES).ranges(_METHOD), plan)
