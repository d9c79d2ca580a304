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

__all__ = ["Tail", "tail_of"]


@dataclass(frozen=True)
class Tail:
    """A graph from what is learned to a file's outputs, in the bytes of an ONNX file; it is run image by image."""

    inputs: tuple[str, ...]
    model: bytes

    def __getstate__(self) -> dict[str, object]:
        return {"inputs": self.inputs, "model": self.model}

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
        return [_joined([row[index] for row in rows]) for index in range(len(rows[0]))]


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Join the outputs of single images, each with or without an axis for it."""
    if len({part.shape for part in parts}) > 1:
        most = np.max([part.shape for part in parts], axis=0)
        parts = [np.pad(part, [(0, size - own) for own, size in zip(part.shape, most, strict=True)]) for part in parts]
    joined: NDArray[Any] = np.concatenate(parts) if parts[0].shape[:1] == (1,) else np.stack(parts)
    return joined


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
    return Tail(tuple(str(value.name) for value in learned), serialize(found))
