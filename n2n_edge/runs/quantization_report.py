"""Settings of a quantization, and the report on a quantized file beside its float twin."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from n2n_edge.errors import InputError
from n2n_edge.graph.file_version import check_versions
from n2n_edge.graph.quantized import Precisions
from n2n_edge.metrics.figures import SCHEMA_VERSION, Figure
from n2n_edge.metrics.notices import Notice, codes_of, texts_of
from n2n_edge.quantize.calibrate import METHODS
from n2n_edge.quantize.ptq import Quantized
from n2n_edge.quantize.qdq import LEAST_OPSET
from n2n_edge.runs.settings import CompressSettings

if TYPE_CHECKING:
    from n2n_edge.runs.parity import Parity

__all__ = ["CALIBRATIONS", "PRECISIONS", "Distillation", "QuantizationReport", "QuantizeSettings"]

PRECISIONS = ("int8", "fp16")
CALIBRATIONS = ("auto", *METHODS)
_OF_TRAINING = ("label_weight", "augment", "flip", "train_device")
"""Settings of `CompressSettings` that mean something only where a file is distilled."""


@dataclass(frozen=True)
class QuantizeSettings:
    """How a file is quantized; what says how its images go in is in `of_data`, as `compress` takes it.

    `max_drop` is in points of a hundred, on validation images (by which layers go back to float) and on test images.
    `images` are those that ranges are set by. `target` is where both files are timed. With `epochs` or `minutes` the
    calibrated network is distilled from the float one, for so many epochs and at most so long.
    """

    of_data: CompressSettings
    precision: Literal["int8", "fp16"] = "int8"
    device: str = "cpu"
    keep_float: tuple[str, ...] = ()
    max_drop: float = 1.0
    opset: int | None = None
    calibration: Literal["auto", "minmax", "percentile", "entropy", "mse"] = "auto"
    images: int = 256
    target: str = "host"
    threads: int | None = None
    max_time_s: float = 10.0
    force: bool = False
    epochs: int | None = None
    minutes: float | None = None

    @property
    def distils(self) -> bool:
        """Whether the network is trained after it was calibrated."""
        return self.epochs is not None or self.minutes is not None

    def __post_init__(self) -> None:
        for name, allowed in (("precision", PRECISIONS), ("calibration", CALIBRATIONS)):
            if getattr(self, name) not in allowed:
                raise InputError(f"‹{name}› {getattr(self, name)}: give one of {', '.join(allowed)}")
        if self.images < 1:
            raise InputError(f"‹images› {self.images}: calibration needs one at least")
        if not 0 <= self.max_drop <= 100:
            raise InputError(f"‹max_drop› {self.max_drop:g}: give points of a hundred, from 0 to 100")
        self._check_training()
        check_versions(self.opset, None)
        if self.precision == "int8" and self.opset is not None and self.opset < LEAST_OPSET:
            raise InputError(f"‹opset› {self.opset}: a scale per channel needs {LEAST_OPSET} at least; give that")

    def _check_training(self) -> None:
        if self.epochs is not None and self.epochs < 1:
            raise InputError(f"‹epochs› {self.epochs}: give 1 at least, or leave it out to calibrate alone")
        if self.minutes is not None and not (self.minutes > 0 and isfinite(self.minutes)):
            raise InputError(f"‹minutes› {self.minutes:g}: must be a number above 0; leave it out to calibrate alone")
        if self.distils and self.precision == "fp16":
            name = "minutes" if self.epochs is None else "epochs"
            raise InputError(f"‹{name}› {getattr(self, name):g}: only int8 is trained for; leave it out with fp16")
        for name in () if self.distils else _OF_TRAINING:
            given = getattr(self.of_data, name)
            if given != getattr(CompressSettings, name):
                raise InputError(f"‹{name}› {given}: is for training; give ‹epochs› or ‹minutes›, too")


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
