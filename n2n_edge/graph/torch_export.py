"""Export of a torch module to ONNX, and the comparison of what was exported with the module."""

import ctypes
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx_ir as ir

from n2n_edge.errors import InputError, UnsuitableEnvironmentError, first_line
from n2n_edge.foreign import foreign_code, printable
from n2n_edge.graph.load import load_model
from n2n_edge.graph.shape_run import Array, run_graph

__all__ = ["EXPORT_WARNING", "export_module", "export_program"]

_OPSET = 18

EXPORT_WARNING = "n2n_edge.export_warning"
"""Metadata of an exported model: what torch's tracer warned of."""


def export_module(module: object, example_input: object) -> ir.Model:
    """Return the ONNX graph of a `torch.nn.Module` in evaluation mode, BatchNorm kept and the batch axis free.

    `example_input` is a tensor ``(N, C, H, W)``. What the TorchScript exporter can't take, or makes another function
    of (a branch on the data is baked in), goes to the newer one, which needs onnxscript. What the tracer warned of
    stands in the model's metadata under `EXPORT_WARNING`.

    Raises:
        InputError: torch can't export the module, or the exported graph isn't the module's function.
        UnsuitableEnvironmentError: torch isn't installed.
    """
    torch = _torch()
    name = type(module).__name__
    with foreign_code(f"the torch module {name}"):
        was_training = module.training  # type: ignore[attr-defined]
        module.eval()  # type: ignore[attr-defined]

    def by_script(path: Path) -> None:
        torch.onnx.export(
            module,
            (example_input,),
            str(path),
            dynamo=False,
            # EVAL would fold BatchNorm into the convolutions; PRESERVE keeps it, and the module is in eval
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            opset_version=_OPSET,
            input_names=["input"],
            dynamic_axes={"input": {0: "N"}},
        )

    def by_program_for_any_batch(path: Path) -> None:
        pair = torch.cat([example_input, example_input])  # a batch of one would be taken for a constant
        _export_dynamo(torch, module, (pair,), path, dynamic_shapes=({0: torch.export.Dim.AUTO},))

    def by_program(path: Path) -> None:
        _export_dynamo(torch, module, (example_input,), path)

    def check(model: ir.Model) -> None:
        _check_export(torch, name, module, example_input, model)

    def by_running(path: Path) -> None:
        with torch.no_grad():
            module(example_input)  # type: ignore[operator]

    try:
        _refuse_failing(name, by_running)
        return _exported(name, [by_script, by_program_for_any_batch, by_program], check)
    finally:
        with foreign_code(f"the torch module {name}"):
            module.train(was_training)  # type: ignore[attr-defined]


def export_program(program: object) -> ir.Model:
    """Return the ONNX graph of a `torch.export.ExportedProgram`, BatchNorm kept.

    Raises:
        InputError: torch can't export the program, or the exported graph isn't the program's function.
        UnsuitableEnvironmentError: torch isn't installed.
    """
    torch = _torch()

    def check(model: ir.Model) -> None:
        inputs = getattr(program, "example_inputs", None)
        if inputs and len(inputs[0]) == 1 and not inputs[1]:
            module = program.module()  # type: ignore[attr-defined]
            _check_export(torch, "the program", module, inputs[0][0], model)

    return _exported("the program", [lambda path: _export_dynamo(torch, program, (), path)], check)


def _torch() -> ModuleType:
    try:
        return import_module("torch")
    except ImportError as error:
        raise UnsuitableEnvironmentError(
            'a torch module needs torch, which is not installed; run: pip install "n2n-edge[compress]"'
        ) from error


def _export_dynamo(torch: Any, model: object, inputs: tuple[object, ...], path: Path, **more: object) -> None:
    """Export by torch.export; its optimiser would fold BatchNorm into the convolutions."""
    torch.onnx.export(
        model, inputs, str(path), dynamo=True, optimize=False, external_data=False, verbose=False, **more
    )  # fmt: skip


@contextmanager
def _without_logs() -> Iterator[None]:
    """Keep torch's exporters from writing to stderr what is of no use to anybody but their makers."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def _without_native_output() -> Iterator[None]:
    """Keep what torch's exporter prints past Python, the whole graph where it fails, out of standard output."""
    try:
        before = os.dup(1)
    except OSError:  # closed
        yield
        return
    libc = ctypes.CDLL(None)
    libc.fflush(None)
    try:
        with Path(os.devnull).open("wb") as null:
            os.dup2(null.fileno(), 1)
        yield
    finally:
        libc.fflush(None)
        os.dup2(before, 1)
        os.close(before)


def _refuse_failing(name: str, run: Callable[[Path], None]) -> None:
    """Raise InputError for a module that fails by itself: exporters would each take their time to say so."""
    try:
        run(Path())
    except KeyboardInterrupt:
        raise
    except SystemExit:
        with foreign_code(f"the torch module {name}"):
            raise
    except BaseException as error:
        raise _unexported(name, error) from error


def _unexported(name: str, error: BaseException | None) -> InputError:
    return InputError(f"torch can't export {name}: {printable(first_line(error))}; give an ONNX file instead")


def _exported(name: str, ways: list[Callable[[Path], None]], check: Callable[[ir.Model], None]) -> ir.Model:
    """Return what the first of `ways` writes that passes `check`.

    The error is that of a failed check, if there was one, else the first one's. Exporters run the module, and raise
    whatever they or the module meet.
    """
    first: BaseException | None = None
    for way in ways:
        try:
            with (
                warnings.catch_warnings(record=True) as caught,
                redirect_stdout(StringIO()),
                redirect_stderr(StringIO()),
                _without_logs(),
                _without_native_output(),
            ):
                warnings.simplefilter("always")
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / "module.onnx"
                    way(path)
                    model = load_model(path)
                check(model)
        except KeyboardInterrupt:
            raise
        except SystemExit:
            with foreign_code(f"the torch module {name}"):
                raise
        except ExportMismatchError as error:
            first = error.with_hint(_tracer_words(caught))
        except BaseException as error:
            first = first or error
        else:
            words = _tracer_words(caught)
            if words:
                model.metadata_props[EXPORT_WARNING] = words
            return model
    if isinstance(first, InputError):
        raise first
    raise _unexported(name, first) from first


def _tracer_words(caught: list[warnings.WarningMessage]) -> str:
    """Say what the tracer warned of first: Python that it ran once and wrote down as a constant."""
    for warning in caught:
        if warning.category.__name__ == "TracerWarning":
            what = printable(str(warning.message).strip().split("\n")[0].split(". ")[0])
            return f"{what} ({printable(Path(warning.filename).name)}, line {warning.lineno})"
    return ""


_TOLERANCE = 1e-3
_FLOOR = 1e-5
_AGREEING = 0.99


class ExportMismatchError(InputError):
    """The exported graph isn't the module's function."""

    def with_hint(self, tracer: str) -> "ExportMismatchError":
        """Return the error with what the tracer warned of, if it did."""
        return ExportMismatchError(f"{self}; the tracer warned: {tracer}") if tracer else self


def _check_export(torch: Any, name: str, module: Any, example: Any, model: ir.Model) -> None:
    """Compare the module with the exported graph on several random inputs, one image at a time and three at once.

    Raises:
        ExportMismatchError: they differ, or the graph doesn't take as many images as the module does.
        InputError: the module gives other outputs for the same input each time.
    """
    source = model.graph.inputs[0]
    names = [str(value.name) for value in model.graph.outputs]
    fixed = source.shape[0] if source.shape is not None and isinstance(source.shape[0], int) else None
    if fixed not in (None, len(example)):
        raise ExportMismatchError(f"torch's export of {name} takes {fixed} images at a time; give an ONNX file instead")
    for images in _inputs(torch, example):
        if fixed is not None and len(images) != fixed:
            continue  # opened later, or refused
        expected = _run(torch, module, images, name)
        if expected is None:
            continue  # the module takes no such batch
        again = _run(torch, module, images, name)
        if again is None or _apart(expected, again) > _TOLERANCE:
            raise InputError(
                f"{name} gives other outputs for the same images each time; make it deterministic in evaluation mode"
            )
        try:
            seen = run_graph(model, {str(source.name): images.numpy()}, set(names))
        except InputError as error:
            raise ExportMismatchError(
                f"torch's export of {name} doesn't run on {len(images)} images, on which {name} does; "
                "give an ONNX file instead"
            ) from error
        apart = _difference(expected, seen, names)
        if apart > _TOLERANCE:
            raise ExportMismatchError(
                f"torch's export of {name} is another function: outputs differ by {apart:.0%} on some inputs, as where "
                "Python branches on the data; write such a branch with torch.where, or give an ONNX file instead"
            )


def _inputs(torch: Any, example: Any) -> Iterator[Any]:
    """Yield batches like `example`: of one image and of three, of several scales and signs."""
    generator = torch.Generator().manual_seed(0)
    shape = tuple(example.shape[1:])

    def noise(count: int) -> Any:
        return torch.randn((count, *shape), generator=generator)

    size = torch.tensor([1.0, 0.1, 20.0]).reshape(3, *(1,) * len(shape))
    batches = [noise(1).abs(), -noise(1).abs(), 40 * noise(1), torch.zeros(1, *shape), noise(3) * size + 0.5]
    batches += [-(noise(3).abs())]
    for batch in batches:
        if example.dtype.is_floating_point:
            yield batch.to(example.dtype)
        elif example.dtype == torch.uint8:
            yield (batch.abs() * 60).clamp(0, 255).to(torch.uint8)
        else:
            yield example


def _run(torch: Any, module: Any, images: Any, name: str) -> list[Array] | None:
    try:
        with torch.no_grad():
            outputs = module(images)
    except SystemExit:
        with foreign_code(f"the torch module {name}"):
            raise
    except Exception:  # whatever a module raises for a batch that it wasn't made for
        return None
    leaves, _ = torch.utils._pytree.tree_flatten(outputs)
    return [leaf.detach().cpu().numpy() for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _difference(expected: Sequence[Array], seen: Mapping[str, Array], names: Sequence[str]) -> float:
    """Return the largest difference of any output; outputs that the exporter joined or left out can't be compared."""
    if len(expected) != len(names) or any(name not in seen for name in names):
        return 0.0
    given = [seen[name] for name in names]
    if [array.shape for array in expected] != [array.shape for array in given]:
        order = sorted(range(len(given)), key=lambda index: given[index].shape)
        expected = sorted(expected, key=lambda array: array.shape)
        given = [given[index] for index in order]
    return _apart(expected, given)


def _apart(expected: Sequence[Array], given: Sequence[Array]) -> float:
    """Return the largest difference, relative to each output's largest magnitude; infinite for other shapes."""
    worst = 0.0
    for one, other in zip(expected, given, strict=True):
        if one.shape != other.shape:
            return np.inf
        if not one.size:
            continue
        if not np.issubdtype(one.dtype, np.floating):
            worst = max(worst, 0.0 if float(np.mean(one == other)) >= _AGREEING else 1.0)
            continue
        finite = np.isfinite(one)
        if not np.array_equal(finite, np.isfinite(other)):
            return np.inf
        error = np.abs(one[finite] - other[finite]).max(initial=0)
        if error > _FLOOR:
            worst = max(worst, float(error / np.abs(one[finite]).max(initial=0)) if np.any(one[finite]) else np.inf)
    return worst
