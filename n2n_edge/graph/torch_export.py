"""Export a torch module once, on the way in; the only place below `distill` that knows of torch, and only by name."""

import tempfile
import warnings
from importlib import import_module
from pathlib import Path

import onnx_ir as ir

from n2n_edge.errors import InputError, UnsuitableEnvironmentError
from n2n_edge.graph.load import load_model

__all__ = ["export_module"]

_OPSET = 18


def export_module(module: object, example_input: object) -> ir.Model:
    """Return the ONNX graph of a `torch.nn.Module` in evaluation mode, BatchNorm kept and the batch axis free.

    `example_input` is a tensor ``(N, C, H, W)``.

    Raises:
        InputError: torch can't export the module.
        UnsuitableEnvironmentError: torch isn't installed.
    """
    try:
        torch = import_module("torch")
    except ImportError as error:
        raise UnsuitableEnvironmentError(
            'a torch module needs torch, which is not installed; run: pip install "n2n-edge[compress]"'
        ) from error
    was_training = module.training  # type: ignore[attr-defined]
    module.eval()  # type: ignore[attr-defined]
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = Path(folder) / "module.onnx"
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
            return load_model(path)
    except InputError:
        raise
    except Exception as error:  # exporters raise whatever they meet
        first = str(error).strip().split("\n")[0]
        raise InputError(f"torch can't export {type(module).__name__}: {first}; give an ONNX file instead") from error
    finally:
        module.train(was_training)  # type: ignore[attr-defined]
