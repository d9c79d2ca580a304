"""Export a torch module once, on the way in; the only place below `distill` that knows of torch, and only by name."""

import tempfile
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx_ir as ir

from n2n_edge.errors import InputError, UnsuitableEnvironmentError
from n2n_edge.foreign import foreign_code, printable
from n2n_edge.graph.export_check import ExportMismatchError, check_export
from n2n_edge.graph.load import load_model

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
        check_export(torch, name, module, example_input, model)

    try:
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
            check_export(torch, "the program", module, inputs[0][0], model)

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


def _exported(name: str, ways: list[Callable[[Path], None]], check: Callable[[ir.Model], None]) -> ir.Model:
    """Return what the first of `ways` writes that passes `check`.

    The error is that of a failed check, if there was one, else the first one's. Exporters run the module, and raise
    whatever they or the module meet.
    """
    first: BaseException | None = None
    for way in ways:
        try:
            with warnings.catch_warnings(record=True) as caught, redirect_stdout(StringIO()):
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
    line = printable(str(first).strip().split("\n")[0])
    raise InputError(f"torch can't export {name}: {line}; give an ONNX file instead") from first


def _tracer_words(caught: list[warnings.WarningMessage]) -> str:
    """Say what the tracer warned of first: Python that it ran once and wrote down as a constant."""
    for warning in caught:
        if warning.category.__name__ == "TracerWarning":
            what = printable(str(warning.message).strip().split("\n")[0].split(". ")[0])
            return f"{what} ({printable(Path(warning.filename).name)}, line {warning.lineno})"
    return ""
