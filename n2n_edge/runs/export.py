"""A model in the forms that other runtimes read, each proven against the ONNX file that it was made from."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from n2n_edge.errors import InputError, N2NError
from n2n_edge.graph.batchnorm import fold_batchnorm
from n2n_edge.graph.learned import nodes_behind_learned
from n2n_edge.graph.load import load_model, save_model
from n2n_edge.graph.teacher import Teacher
from n2n_edge.measure.conversion import SAMPLES, Converted, Parity, Reference, converted, proven, reference
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.runtimes import RUNTIMES, ConversionError, parse_runtimes, split_names
from n2n_edge.metrics.figures import MB, SCHEMA_VERSION, Figure
from n2n_edge.metrics.runtimes import ONNXRUNTIME
from n2n_edge.quantize.half import in_half
from n2n_edge.report.bench_document import file_sha256
from n2n_edge.runs.accuracy import TestData, real_inputs

__all__ = ["Export", "Exported", "export", "parse_forms", "real_samples"]

HALF = "fp16"
HALF_TOLERANCE = 0.02
"""Of an output's largest value: float16 has 11 bits, of which a deep network's sums leave some."""


@dataclass(frozen=True)
class Exported:
    """One form of a model: its files, their size in MB, parity, and the runtime that it was proven with."""

    form: str
    files: tuple[Path, ...]
    size_mb: float
    parity: Parity
    runtime: str

    def to_json(self) -> dict[str, Any]:
        """Return it for a document."""
        return {
            "form": self.form,
            "files": [file.name for file in self.files],
            "size_mb": Figure(self.size_mb, "MB", "computed").to_json(),
            "parity": self.parity.to_json(),
            "runtime": self.runtime,
        }


@dataclass(frozen=True)
class Export:
    """What `export` has written, and why what it hasn't couldn't be: an error for each form."""

    model: Path
    folder: Path
    exported: tuple[Exported, ...]
    failures: Mapping[str, N2NError]

    def to_json(self) -> dict[str, Any]:
        """Return the document."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "export",
            "model": str(self.model),
            "sha256": file_sha256(self.model),
            "folder": str(self.folder),
            "exported": [each.to_json() for each in self.exported],
            "failures": {form: error.on_command_line() for form, error in self.failures.items()},
        }


def parse_forms(names: Sequence[str]) -> tuple[str, ...]:
    """Return forms in order, each once; names may stand in one text with commas between.

    Raises:
        InputError: no such form, or none.
        UnsuitableEnvironmentError: one whose packages aren't installed here.

    >>> parse_forms(["fp16,fp16"])
    ('fp16',)
    """
    wanted = split_names(names)
    if not wanted:
        raise InputError(f"‹to›: in which form? give {', '.join(RUNTIMES)} or {HALF}")
    for name in wanted:
        if name == ONNXRUNTIME:
            raise InputError(f"‹to› {name}: that runs the file as it is; give {', '.join(RUNTIMES)} or {HALF}")
        if name != HALF:
            parse_runtimes([name])
    return wanted


def export(
    model: Path | str,
    to: Sequence[str],
    *,
    out: Path | str | None = None,
    data: str | None = None,
    input_shape: tuple[int, ...] | None = None,
    bind: Sequence[str] = (),
    on_message: Callable[[str], None] = lambda text: None,
) -> Export:
    """Write a model for other runtimes, beside it or in the folder `out`: ``ncnn``, ``openvino``, ``fp16``.

    Each form is run on images of `data`, as the file records that they go in, or on random inputs, and written only if
    it gives what the file gives. `input_shape` is for files that leave the sizes of their input free.

    Raises:
        InputError: no such file or form.
        UnsuitableEnvironmentError: a form's packages aren't installed.

    >>> import tempfile
    >>> found = n2n_edge.export(example_teacher, ["fp16"], out=tempfile.mkdtemp())
    >>> [each.form for each in found.exported], found.failures
    (['fp16'], {})
    """
    source, forms = Path(model), parse_forms(to)
    load_model(source)
    folder = source.parent if out is None else Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    options = BenchOptions(input_shape=input_shape, bind=tuple(bind))
    wanted = None if data is None else TestData(data, bind=tuple(bind), input_shape=input_shape)
    exported, failures = [], {}
    with real_samples(source, wanted) as given, reference(source, options, given) as made:
        for form in forms:
            on_message(f"converting {source.name} for {form}")
            try:
                found = _half(made) if form == HALF else converted(made, form)
                exported.append(_written(form, found, folder, source.stem))
            except N2NError as error:
                failures[form] = error
    return Export(source, folder, tuple(exported), failures)


@contextmanager
def real_samples(model: Path, wanted: TestData | None) -> Iterator[Path | None]:
    """Write some test images as a model's first input takes them, and yield the file; None where none are wanted."""
    if wanted is None:
        yield None
        return
    with TemporaryDirectory(prefix="n2n-edge-") as folder:
        path = Path(folder) / "inputs.npz"
        np.savez(path, in0=real_inputs(model, wanted, SAMPLES))
        yield path


def _half(made: Reference) -> Converted:
    """Write the model in float16, its inputs and outputs in float32."""
    model = fold_batchnorm(Teacher.load(made.source).model)
    folder = made.folder / HALF
    folder.mkdir()
    file = folder / "model.onnx"
    try:
        save_model(in_half(model, nodes_behind_learned(model)), file)
    except InputError as error:
        raise ConversionError(f"{made.source}: it can't be written in float16: {error.text}") from error
    return proven(made, ONNXRUNTIME, (file,), HALF_TOLERANCE)


def _written(form: str, found: Converted, folder: Path, stem: str) -> Exported:
    """Put the files of a form into a folder under the model's name."""
    size_mb = found.size_bytes / MB
    files = []
    for file in found.files:
        name = f"{stem}-{HALF}.onnx" if form == HALF else f"{stem}.{form}{file.suffix}"
        files.append(Path(shutil.copyfile(file, folder / name)))
    return Exported(form, tuple(files), size_mb, found.parity, found.version)
