"""The report on a quantized file beside its float twin."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n2n_edge.graph.quantized import Precisions
from n2n_edge.metrics.figures import SCHEMA_VERSION, Figure
from n2n_edge.metrics.notices import Notice, codes_of, texts_of
from n2n_edge.quantize.ptq import Quantized
from n2n_edge.runs.quantize_settings import QuantizeSettings

if TYPE_CHECKING:
    from n2n_edge.runs.parity import Parity

__all__ = ["Distillation", "QuantizationReport"]


@dataclass(frozen=True)
class Distillation:
    """What training with quantized values came to: `ships` tells whether its result does, or the calibrated network.

    `epochs` were made, over `images` each, `best_epoch` is the one that was kept (0: none was better than what was
    calibrated); `learning_rate` is the peak. `loss` and `drop` are those of the step ``distilled``. `parity` is how the
    network as it was trained and the file that ships agree.
    """

    ships: bool
    epochs: int
    images: int
    best_epoch: int
    learning_rate: float
    loss: float
    drop: float
    parity: "Parity | None" = None

    def to_json(self) -> dict[str, Any]:
        """Return it as it stands in the report."""
        return asdict(self)


@dataclass(frozen=True)
class QuantizationReport:
    """What became of a file: where it lies (None if it was rejected), and figures of both, `float` and `quantized`.

    `reasons` say why it is rejected, or would have been without `force`. `difference` is the quantized score less the
    float one. `ratio` is the time of the quantized file over that of the float one, timed in turns. `predicted` are
    latencies on the device, of float and quantized, where that isn't this host.
    """

    model: Path
    out: Path | None
    settings: QuantizeSettings
    task: str
    metric: str
    float_figures: Mapping[str, Figure]
    quantized_figures: Mapping[str, Figure]
    difference: Figure | None
    drop: Figure
    ratio: Figure | None
    predicted: tuple[Figure, Figure] | None
    precisions: Precisions
    found: Quantized | None
    distillation: Distillation | None = None
    reasons: tuple[Notice, ...] = ()
    notes: tuple[Notice, ...] = ()
    warnings: tuple[Notice, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether it loses nothing that wasn't allowed."""
        return not self.reasons

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON document."""
        found = self.found
        document: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "model": str(self.model),
            "out": None if self.out is None else str(self.out),
            "accepted": self.accepted,
            "reasons": list(texts_of(self.reasons)),
            "reason_codes": list(codes_of(self.reasons)),
            "precision": self.settings.precision,
            "device": self.settings.device,
            "task": {"name": self.task, "metric": self.metric},
            "max_drop": self.settings.max_drop,
            "float": {name: each.to_json() for name, each in self.float_figures.items()},
            "quantized": {name: each.to_json() for name, each in self.quantized_figures.items()},
            "drop": self.drop.to_json(),
            "precisions": self.precisions.to_json(),
        }
        if self.difference is not None:
            document["difference"] = self.difference.to_json()
        if self.ratio is not None:
            document["latency_ratio"] = self.ratio.to_json()
        if self.predicted is not None:
            pair = zip(("float", "quantized"), self.predicted, strict=True)
            document["predicted_latency_ms"] = {name: figure.to_json() for name, figure in pair}
        if found is not None:
            plan = found.plan
            document["calibration"] = {
                "method": found.method,
                "losses": dict(found.losses),
                "steps": dict(found.steps),
                "drops": dict(found.drops),
                "validation_drop": found.drop,
            }
            document["plan"] = {
                "float_nodes": sorted(plan.float_nodes),
                "returned": dict(found.returned),
                "weight_bits": plan.weight_bits,
                "activations": plan.activations,
                "symmetric": plan.symmetric,
            }
        if self.distillation is not None:
            document["distillation"] = self.distillation.to_json()
        document |= {"notes": list(texts_of(self.notes)), "note_codes": list(codes_of(self.notes))}
        return document | {"warnings": list(texts_of(self.warnings)), "warning_codes": list(codes_of(self.warnings))}
