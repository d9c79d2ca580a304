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
from n2n_edge.foreign import foreign_code
from n2n_edge.graph.load import load_model

__all__ = ["export_module", "export_program"]

_OPSET = 18


def export_module(module: object, example_input: object) -> ir.Model:
    """Return the ONNX graph of a `torch.nn.Module` in evaluation mode, BatchNorm kept and the batch axis free.

    `example_input` is a tensor ``(N, C, H, W)``. What the TorchScript exporter can't take goes to the newer one, which
    needs onnxscript.

    Raises:
        InputError: torch can't export the module.
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

    def by_program(path: Path) -> None:
        _export_dynamo(torch, module, (example_input,), path)

    try:
        return _exported(name, [by_script, by_program])
    finally:
        with foreign_code(f"the torch module {name}"):
            module.train(was_training)  # type: ignore[attr-defined]


def export_program(program: object) -> ir.Model:
    """Return the ONNX graph of a `torch.export.ExportedProgram`, BatchNorm kept.

    Raises:
        InputError: torch can't export the program.
        UnsuitableEnvironmentError: torch isn't installed.
    """
    torch = _torch()
    return _exported("the program", [lambda path: _export_dynamo(torch, program, (), path)])


def _torch() -> ModuleType:
    try:
        return import_module("torch")
    except ImportError as error:
        raise UnsuitableEnvironmentError(
            'a torch module needs torch, which is not installed; run: pip install "n2n-edge[compress]"'
        ) from error


def _export_dynamo(torch: Any, model: object, inputs: tuple[object, ...], path: Path) -> None:
    """Export by torch.export; its optimiser would fold BatchNorm into the convolutions."""
    torch.onnx.export(model, inputs, str(path), dynamo=True, optimize=False, external_data=False, verbose=False)


def _exported(name: str, ways: list[Callable[[Path], None]]) -> ir.Model:
    """Return what the first of `ways` writes; the error is the first one's.

    Exporters run the module, and raise whatever they or the module meet.
    """
    first: BaseException | None = None
    for way in ways:
        try:
            with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), redirect_stdout(StringIO()):
                warnings.simplefilter("ignore")
                path = Path(folder) / "module.onnx"
                way(path)
                return load_model(path)
        except KeyboardInterrupt:
            raise
        except SystemExit:
            with foreign_code(f"the torch module {name}"):
                raise
        except BaseException as error:
            first = first or error
    line = str(first).strip().split("\n")[0]
    raise InputError(f"torch can't export {name}: {line}; give an ONNX file instead") from first
