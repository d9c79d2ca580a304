"""A model converted for another runtime, and the proof that it gives there what ONNX Runtime gives for it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from n2n_edge.graph.model_file import check_path
from n2n_edge.measure.measurement import alone_in_failing
from n2n_edge.measure.messages import Inferred, Referred
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.runtimes import ConversionError, InputType, convert
from n2n_edge.measure.target import HostTarget, model_bytes
from n2n_edge.measure.worker.runtimes import read_arrays
from n2n_edge.metrics.runtimes import ONNXRUNTIME

__all__ = [
    "SAMPLES", "TOLERANCE", "Converted", "Parity", "Reference", "converted", "proven", "read_by", "reference",
]  # fmt: skip

SAMPLES = 4
TOLERANCE = 1e-3
"""The largest difference that passes, as a share of the output's largest value: kernels in float32 stay far below."""


@dataclass(frozen=True)
class Parity:
    """How far a converted model's outputs are from those of ONNX Runtime, over some samples.

    `difference` is the largest of any output, as a share of that output's largest value; `inputs` says what the
    samples were.
    """

    difference: float
    tolerance: float
    samples: int
    inputs: str

    def to_json(self) -> dict[str, Any]:
        """Return it for a document."""
        return {
            "largest_difference": self.difference,
            "tolerance": self.tolerance,
            "samples": self.samples,
            "inputs": self.inputs,
        }

    @property
    def in_words(self) -> str:
        """The proof on one line."""
        return f"within {self.difference:.1g} of ONNX Runtime's outputs on {self.samples} {self.inputs} inputs"


@dataclass(frozen=True)
class Converted:
    """Files that a runtime reads in place of an ONNX file, with samples of its inputs; `version` is the runtime's."""

    source: Path
    runtime: str
    files: tuple[Path, ...]
    samples: Path
    parity: Parity
    version: str

    def __str__(self) -> str:
        return f"{self.source} ({self.runtime})"

    @property
    def size_bytes(self) -> int:
        """The size of its files together."""
        return sum(file.stat().st_size for file in self.files)


@dataclass(frozen=True)
class Reference:
    """What ONNX Runtime gives for samples of a model's inputs, in a folder that is removed with it."""

    source: Path
    options: BenchOptions
    folder: Path
    inputs: str

    @property
    def samples(self) -> Path:
        """The file of the samples: arrays ``in0``, ``out0`` and so on."""
        return self.folder / "samples.npz"


@contextmanager
def reference(model: Path, options: BenchOptions, given: Path | None = None) -> Iterator[Reference]:
    """Run a model on samples with ONNX Runtime on this host: random ones, or `given`, arrays ``in0`` of an .npz file.

    Raises:
        InputError: no such file, or one that ONNX Runtime refuses.
        MeasurementError: the runtime crashed or hung.
    """
    check_path(model)
    with TemporaryDirectory(prefix="n2n-edge-") as name, HostTarget() as host:
        made = Reference(model, options, Path(name), "random" if given is None else "real")
        with host.start() as process:
            process.request(
                Referred,
                str(model),
                options.timeout_s,
                **{**options.request(1), "providers": [], "provider_options": {}},
                model_path=str(model.absolute()),
                count=SAMPLES,
                samples_path=str(made.samples),
                given_path=None if given is None else str(given.absolute()),
            )
        yield made


@contextmanager
def read_by(runtime: str, model: Path, options: BenchOptions, given: Path | None = None) -> Iterator[Path | Converted]:
    """Give what a runtime reads in place of an ONNX file: the file itself, or for another runtime what it is there.

    That is proven before it is given, on `given` inputs as for `reference`, and removed with the context.

    Raises:
        InputError, MeasurementError: as `reference`.
        ConversionError: as `converted`.
    """
    if runtime == ONNXRUNTIME:
        yield model
        return
    with reference(model, options, given) as made:
        yield converted(made, runtime)


def converted(made: Reference, runtime: str) -> Converted:
    """Convert a model for a runtime and hold its outputs against the reference.

    Raises:
        ConversionError: it can't be converted, can't be run there, or gives something else; one line that says why.
    """
    label = f"{made.source} ({runtime})"
    folder = made.folder / runtime
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with alone_in_failing(label):
        model = folder / "source.onnx"
        model.write_bytes(model_bytes(made.source))
        inputs = [InputType(array.shape[1:], str(array.dtype)) for array in read_arrays(str(made.samples), "in")]
        try:
            files = convert(model, runtime, folder, inputs)
        except ConversionError as error:
            raise ConversionError(f"{label}: {error.text}") from error
        return proven(made, runtime, files)


def proven(made: Reference, runtime: str, files: tuple[Path, ...], tolerance: float = TOLERANCE) -> Converted:
    """Run files that a model was converted to on the samples, and hold their outputs against the reference.

    Raises:
        ConversionError: they can't be run, or give something else.
    """
    label = f"{made.source} ({runtime})"
    outputs = made.folder / "outputs.npz"
    with alone_in_failing(label), HostTarget() as host, host.start(runtime=runtime) as process:
        process.request(
            Inferred,
            label,
            made.options.timeout_s,
            runtime=runtime,
            files=[str(file) for file in files],
            threads=1,
            samples_path=str(made.samples),
            outputs_path=str(outputs),
        )
        version = process.ready.runtime
    expected = read_arrays(str(made.samples), "out")
    difference = _difference(expected, read_arrays(str(outputs), "out"), label)
    if not difference <= tolerance:
        raise ConversionError(
            f"{label}: what it was converted to differs: up to {difference:.2g} of an output's largest value on "
            f"{made.inputs} inputs, {tolerance:g} is allowed; it isn't used"
        )
    parity = Parity(difference, tolerance, len(expected[0]), made.inputs)
    return Converted(made.source, runtime, files, made.samples, parity, version)


def _difference(expected: list[np.ndarray], got: list[np.ndarray], label: str) -> float:
    """Return the largest difference of any output, as a share of its largest value; NaN where either has one alone."""
    if len(expected) != len(got):
        raise ConversionError(f"{label}: what it was converted to gives {len(got)} outputs, not {len(expected)}")
    worst = 0.0
    for index, (wanted, found) in enumerate(zip(expected, got, strict=True)):
        if _sizes(wanted) != _sizes(found):
            raise ConversionError(
                f"{label}: what it was converted to gives output {index} in shape {found.shape[1:]}, not "
                f"{wanted.shape[1:]}"
            )
        one, other = wanted.astype(np.float64).ravel(), found.astype(np.float64).ravel()
        if not one.size:
            continue
        scale = float(np.max(np.abs(one))) or 1.0
        with np.errstate(invalid="ignore"):
            apart = np.where(one == other, 0.0, np.abs(one - other))
        apart = np.where(np.isnan(one) & np.isnan(other), 0.0, apart)
        worst = float(np.maximum(worst, np.max(apart) / scale))
    return worst


def _sizes(array: np.ndarray) -> list[int]:
    """Return the sizes of a sample's axes but for those of one, which runtimes leave out."""
    return [size for size in array.shape[1:] if size != 1]
