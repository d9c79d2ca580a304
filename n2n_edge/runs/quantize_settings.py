"""Settings of a quantization, checked before anything heavy is imported or read."""

from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from n2n_edge.devices.profile import Profile
from n2n_edge.devices.registry import load_profile
from n2n_edge.errors import InputError
from n2n_edge.graph.file_version import check_versions
from n2n_edge.graph.load import load_model
from n2n_edge.graph.op import counted_op
from n2n_edge.quantize.calibrate import METHODS
from n2n_edge.quantize.qdq import LEAST_OPSET
from n2n_edge.runs.settings import CompressSettings
from n2n_edge.writing import refuse_unwritable

__all__ = ["CALIBRATIONS", "PRECISIONS", "Order", "QuantizeSettings", "checked"]

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
class Order:
    """What is to be quantized, for which device, and where the file goes."""

    model: Path
    loaded: ir.Model
    profile: Profile
    out: Path


def checked(settings: QuantizeSettings, out: Path | None = None) -> Order:
    """Return what settings ask for, the file going to `out`, by default beside the model.

    Raises:
        InputError: there are no data, no such device, a file that can't be read or is quantized already, or an `out`
            that can't be written.
    """
    model, how = Path(str(settings.of_data.teacher)), settings.of_data
    if how.data is None:
        raise InputError(f"{model}: ranges are set by images; give ‹data›, a folder of them as for `n2n-edge compress`")
    out = out if out is not None else model.with_name(f"{model.stem}-{settings.precision}.onnx")
    refuse_unwritable(out, inputs=[model])
    refuse_unwritable(out.with_suffix(".json"), inputs=[model, out])
    profile = load_profile(settings.device)
    loaded = load_model(model)
    kinds = sorted({node.op_type for node in loaded.graph if counted_op(node.op_type, node.domain).quantized})
    if kinds:
        raise InputError(
            f"{model}: is quantized already ({', '.join(kinds)}); give the float model, or what `n2n-edge quantize "
            "--undo` makes of it"
        )
    return Order(model, loaded, profile, out)
