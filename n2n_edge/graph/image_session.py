"""ONNX Runtime session of a model of images: batches of any size, outputs by image."""

import platform
from pathlib import Path

import numpy as np
import onnx_ir as ir

from n2n_edge.graph.input_shape import in_layout, input_layout
from n2n_edge.graph.learned import with_learned_outputs
from n2n_edge.graph.load import load_model, serialize
from n2n_edge.graph.shape_run import Array

__all__ = ["ImageSession", "is_x86"]

_X86 = ("x86_64", "amd64", "i686")

_KINDS = {"tensor(uint8)": np.uint8, "tensor(float16)": np.float16, "tensor(double)": np.float64}


def is_x86() -> bool:
    """Whether this machine is an x86."""
    return platform.machine().lower() in _X86


class ImageSession:
    """Runs a model, as it stands, on batches of images.

    `run` takes batches ``(N, C, H, W)`` of any size, which it turns to the model's layout and, where that is bytes,
    type: a file whose batch is fixed gets as many images as it takes, the last ones again where there are too few. The
    first axis of every output is the image; where a file for one image has none, it is added. Not
    `optimised`, the graph is run node by node, as it is written.

    On an x86 a model in int8 with signed activations, which is one for other processors, runs between its pairs in
    float: it then gives what these give, where the runtime's kernels for it here overflow without VNNI.
    """

    def __init__(self, model: Path | str | ir.Model, *, threads: int = 0, optimised: bool = True) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        if not optimised:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        loaded = model if isinstance(model, ir.Model) else load_model(model)
        if is_x86() and _has_signed_activations(loaded):
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        source = serialize(model) if isinstance(model, ir.Model) else str(model)
        self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        entry = self._session.get_inputs()[0]
        self._layout = input_layout(loaded)
        self._kind = _KINDS.get(entry.type, np.float32)
        self.name: str = entry.name
        first = entry.shape[0] if entry.shape else None
        self.batch: int | None = first if isinstance(first, int) and first > 0 else None
        """How many images it takes at a time, None for any number."""

    @classmethod
    def learned(cls, model: Path | str | ir.Model, *, threads: int = 0, optimised: bool = True) -> "ImageSession":
        """Open a model so that it gives its `learned_outputs`."""
        loaded = model if isinstance(model, ir.Model) else load_model(model)
        changed = with_learned_outputs(loaded)
        return cls(model if changed is loaded else changed, threads=threads, optimised=optimised)

    def run(self, images: Array) -> list[Array]:
        """Return every output for `images`, ``(N, ...)``."""
        images = in_layout(images.astype(self._kind, copy=False), self._layout)
        if self.batch is None:
            try:
                return self._outputs(images)
            except Exception:
                if len(images) == 1:
                    raise
                self.batch = 1  # free in name only: some constant inside fixes it
        parts = []
        for start in range(0, len(images), self.batch):
            chosen = images[start : start + self.batch]
            count = len(chosen)
            if count < self.batch:
                chosen = np.concatenate([chosen, np.repeat(chosen[-1:], self.batch - count, axis=0)])
            outputs = self._outputs(chosen)
            if self.batch == 1:
                outputs = [item if item.ndim and item.shape[0] == 1 else item[None] for item in outputs]
            parts.append([item[:count] for item in outputs])
        return [np.concatenate(items) for items in zip(*parts, strict=True)]

    def _outputs(self, images: Array) -> list[Array]:
        return [np.asarray(item) for item in self._session.run(None, {self.name: np.ascontiguousarray(images)})]


def _has_signed_activations(model: ir.Model) -> bool:
    """Tell whether a model quantizes what it calculates, which isn't its weights, to signed bytes."""
    for node in model.graph:
        if node.op_type != "QuantizeLinear" or node.inputs[0] is None or node.inputs[0].const_value is not None:
            continue
        zero = node.inputs[2] if len(node.inputs) > 2 else None
        kind = node.attributes.get_int("output_dtype", 0) if zero is None else zero.dtype
        if kind == ir.DataType.INT8:
            return True
    return False
