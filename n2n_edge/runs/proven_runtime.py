"""Proof that a run's networks are the same under the runtime that they are for, if that isn't ONNX Runtime."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir as ir

from n2n_edge.data.dataset import Data
from n2n_edge.devices.profile import Profile
from n2n_edge.graph.input_shape import in_layout, input_layout
from n2n_edge.measure.conversion import SAMPLES, read_by
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.runtimes import require
from n2n_edge.metrics.runtimes import ONNXRUNTIME
from n2n_edge.runs.setting_values import refuse_precision
from n2n_edge.runs.teacher_check import real_images

__all__ = ["prove_teacher", "real_samples_of", "refuse_runtime"]


def refuse_runtime(profiles: Sequence[Profile], precision: str) -> None:
    """Refuse, before anything is read, a runtime that nothing can be proven for here, or in this precision.

    Raises:
        InputError: the student is to ship in another precision than float32.
        UnsuitableEnvironmentError: a package of the runtime isn't installed.
    """
    for profile in profiles:
        refuse_precision(precision, profile.runtime)
        require(profile.runtime)


def prove_teacher(
    file: Path,
    model: ir.Model,
    profiles: Sequence[Profile],
    data: Data,
    input_shape: tuple[int, ...] | None,
    on_message: Callable[[str], None],
) -> None:
    """Convert a teacher for each runtime that the run is for, and hold its outputs on real images against the file's.

    Raises:
        ConversionError: it can't be converted, or gives something else; one line that says why.
    """
    for runtime in dict.fromkeys(profile.runtime for profile in profiles):
        if runtime == ONNXRUNTIME:
            continue
        on_message(f"converting {file.name} for {runtime}")
        with (
            real_samples_of(data, model) as samples,
            read_by(runtime, file, BenchOptions(input_shape=input_shape), samples) as made,
        ):
            assert not isinstance(made, Path)
            on_message(f"{file.name} under {made.version}: {made.parity.in_words}")


@contextmanager
def real_samples_of(data: Data, model: ir.Model) -> Iterator[Path]:
    """Write some images as a model takes them, one in each batch, and give the file, which is removed afterwards."""
    with TemporaryDirectory(prefix="n2n-edge-") as folder:
        path = Path(folder) / "inputs.npz"
        images = in_layout(real_images(data, SAMPLES), input_layout(model))
        np.savez(path, in0=np.asarray(images)[:, np.newaxis])
        yield path
