"""The end of a graph behind what is learned: selections such as suppression and top scores, as the file has them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.graph.learned import learned_outputs
from n2n_edge.graph.load import serialize

__all__ = ["Tail", "has_image_axis", "tail_of"]


@dataclass(frozen=True)
class Tail:
    """A graph from what is learned to a file's outputs, in the bytes of an ONNX file; it is run image by image.

    `by_image` says of each output whether its first axis is that of the images, which the rows that a selection leaves
    of one image lack.
    """

    inputs: tuple[str, ...]
    by_image: tuple[bool, ...]
    model: bytes

    def __getstate__(self) -> dict[str, object]:
        return {"inputs": self.inputs, "by_image": self.by_image, "model": self.model}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)

    @cached_property
    def _session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(self.model, options, providers=["CPUExecutionProvider"])

    def run(self, learned: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the file's outputs for a batch; where images give unlike many, the shorter are filled with noughts."""
        rows = []
        axes = {entry.name: len(entry.shape) for entry in self._session.get_inputs()}
        for place in range(len(learned[0])):
            given = {
                name: each[place : place + 1] if axes[name] == each.ndim else each[place]
                for name, each in zip(self.inputs, learned, strict=True)
            }
            rows.append([np.asarray(output, np.float32) for output in self._session.run(None, given)])
        columns = zip(*rows, strict=True)
        return [_joined(list(each), by_image) for each, by_image in zip(columns, self.by_image, strict=True)]


def _joined(parts: Sequence[NDArray[Any]], by_image: bool) -> NDArray[Any]:
    """Join the outputs of single images, each with an axis for it or without."""
    if len({part.shape for part in parts}) > 1:
        most = np.max([part.shape for part in parts], axis=0)
        parts = [np.pad(part, [(0, size - own) for own, size in zip(part.shape, most, strict=True)]) for part in parts]
    joined: NDArray[Any] = np.concatenate(parts) if by_image else np.stack(parts)
    return joined


def has_image_axis(output: ir.Value, model: ir.Model) -> bool:
    """Tell whether an output's first axis is that of the images: it is of size 1, or called as the input's is."""
    batch = next((value.shape for value in model.graph.inputs if not value.is_initializer()), None)
    if output.shape is None or not len(output.shape):
        return False
    first = output.shape[0]
    return first == 1 or (batch is not None and len(batch) > 0 and not isinstance(first, int) and first == batch[0])


def tail_of(model: ir.Model) -> Tail | None:
    """Return what a graph has behind its `learned_outputs`, None where they are its outputs, or where it needs more."""
    learned = learned_outputs(model)
    if list(learned) == list(model.graph.outputs):
        return None
    try:
        graph = ir.convenience.extract(model.graph, list(learned), list(model.graph.outputs))
    except ValueError:  # it reads other values of the network as well
        return None
    graph.opset_imports.update(model.opset_imports)
    found = ir.Model(graph, ir_version=model.ir_version, functions=list(model.functions.values()))
    by_image = tuple(has_image_axis(output, model) for output in model.graph.outputs)
    return Tail(tuple(str(value.name) for value in learned), by_image, serialize(found))
