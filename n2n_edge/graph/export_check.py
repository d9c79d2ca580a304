"""Comparison of a torch module with the graph that was exported from it, on inputs of several scales and signs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from n2n_edge.errors import InputError
from n2n_edge.foreign import foreign_code
from n2n_edge.graph.shape_run import Array, run_graph

__all__ = ["ExportMismatchError", "check_export"]

_TOLERANCE = 1e-3
_FLOOR = 1e-5
_AGREEING = 0.99


class ExportMismatchError(InputError):
    """The exported graph isn't the module's function."""

    def with_hint(self, tracer: str) -> "ExportMismatchError":
        """Return the error with what the tracer warned of, if it did."""
        return ExportMismatchError(f"{self}; the tracer warned: {tracer}") if tracer else self


def check_export(torch: Any, name: str, module: Any, example: Any, model: ir.Model) -> None:
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
