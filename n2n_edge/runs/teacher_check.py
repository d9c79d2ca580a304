"""Comparison, before a search, of all forms in which a run uses its teacher: the file, the loaded graph, torch."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from n2n_edge.data.dataset import Data
from n2n_edge.errors import InputError
from n2n_edge.foreign import printable
from n2n_edge.graph.free_batch import takes_one_image
from n2n_edge.graph.image_session import ImageSession
from n2n_edge.graph.input_shape import in_layout, input_layout
from n2n_edge.graph.learned import learned_outputs
from n2n_edge.graph.shape_run import Array, run_graph
from n2n_edge.runs.parity import worst_difference
from n2n_edge.training.executor import GraphModule

__all__ = ["check_teacher", "real_images"]

_BATCH = 3

Run = Callable[[Array], list[Array]]
"""Gives the outputs for a batch of images."""


def check_teacher(path: Path, graphs: Sequence[ir.Model], data: Data) -> None:
    """Compare the teacher's file in ONNX Runtime with every graph a run makes of it, in ONNX Runtime and in torch.

    They have to agree on several different real images, one at a time and together, and the file with itself. Compared
    are the values that are learned (`learned_outputs`): behind a selection rounding decides what stands where.

    Raises:
        InputError: two of them differ; the message says which, in which output, and where they part.
    """
    images = real_images(data, _BATCH)
    names = [str(value.name) for value in learned_outputs(graphs[0])]
    session = ImageSession.learned(path)
    file = session.run
    alone = _alone(file, images)

    def compare(what: str, got: Sequence[Array], where: Callable[[], str] = lambda: "") -> None:
        expected = [_joined(parts, array.shape) for parts, array in zip(alone, got, strict=True)]
        worst = worst_difference(expected, got)
        if not worst.agrees:
            by = "in shape" if worst.relative == np.inf else f"by {worst.relative:.1%}"
            raise InputError(
                f"{path}: {what}: output '{printable(names[worst.output])}' differs {by} on real images{where()}"
            )

    closed = takes_one_image(graphs[0])

    def compare_both(what: str, run: Run, where: Callable[[], str] = lambda: "", *, batches: bool = True) -> None:
        compare(f"{what}, one image at a time", [np.concatenate(parts) for parts in _alone(run, images)], where)
        if batches:
            compare(f"{what}, in a batch", run(images), where)

    if not closed and session.batch is None:
        compare(
            "gives an image another answer in a batch than alone, so it can't be trained in batches; every operator "
            "has to work within an image",
            file(images),
        )
    for graph in graphs:
        loaded = "the graph as loaded isn't the file's function; report this"
        compare_both(loaded, ImageSession.learned(graph).run, batches=not closed)
    for graph in graphs:
        compare_both(
            "torch computes something else than ONNX Runtime; export it without that operator",
            _in_torch(graph),
            lambda graph=graph: _first_difference(graph, images),  # type: ignore[misc]
        )


def real_images(data: Data, count: int) -> Array:
    """Return `count` different images of the data, normalised, as ``(count, C, H, W)``; fewer are repeated."""
    splits = (data.validation, data.train)
    pools = [np.asarray(split.images[:: max(1, len(split) // count)][:count]) for split in splits]
    images = np.concatenate(pools)[:count]
    images = np.concatenate([images] * -(-count // len(images)))[:count]
    return data.inputs(images)


def _in_torch(graph: ir.Model) -> Run:
    module = GraphModule(graph)

    def run(batch: Array) -> list[Array]:
        with torch.inference_mode():
            outputs = module(torch.from_numpy(batch))
        return [item.numpy() for item in (outputs if isinstance(outputs, tuple) else (outputs,))]

    return run


def _alone(run: Run, images: Array) -> list[list[Array]]:
    """Return, for every output, what each image gives alone."""
    singles = [run(images[index : index + 1]) for index in range(len(images))]
    return [[np.atleast_1d(item) for item in parts] for parts in zip(*singles, strict=True)]


def _joined(parts: Sequence[Array], shape: tuple[int, ...]) -> Array:
    """Return outputs of single images as one of `shape`, the images along whichever axis is longer there."""
    first = parts[0]
    if len(shape) == first.ndim + 1:
        return np.stack(parts)
    longer = [axis for axis, size in enumerate(first.shape) if len(shape) == first.ndim and shape[axis] != size]
    same = all(part.shape == first.shape for part in parts)
    return np.concatenate(parts, longer[0] if same and len(longer) == 1 else 0)


def _first_difference(graph: ir.Model, images: Array) -> str:
    """Name the first node whose output in torch isn't that in ONNX Runtime, with the same inputs before it."""
    images = images[:1] if takes_one_image(graph) else images
    expected = run_graph(graph, {str(graph.graph.inputs[0].name): in_layout(images, input_layout(graph))})
    found: list[str] = []

    class Comparing:
        def before(self, node: ir.Node, inputs: Sequence[Tensor | None]) -> None:
            """Take nothing."""

        def after(self, node: ir.Node, outputs: Sequence[Tensor]) -> None:
            for value, tensor in zip(node.outputs, outputs, strict=False):
                name = str(value.name)
                if not found and name in expected and not worst_difference([expected[name]], [tensor.numpy()]).agrees:
                    found.append(f"{node.op_type} '{printable(node.name)}'")

    with torch.inference_mode():
        GraphModule(graph).visit(Comparing(), torch.from_numpy(images))
    return f", first at {found[0]}" if found else ""
