"""A graph that is run part by part, in the order of its nodes, with what later nodes read kept in between.

Between two parts weights may change, and from one point on several continuations can be tried: what comes before is
calculated once.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.errors import InputError, first_line
from n2n_edge.graph.load import to_proto
from n2n_edge.graph.model_file import to_bytes
from n2n_edge.graph.operands import values_read
from n2n_edge.graph.shape_run import Array
from n2n_edge.quantize.integer_ops import constant_of

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["Batch", "Stages", "node_reading", "pair_of", "rounded_constant", "settings_of"]

Batch = dict[str, Array]
"""Values by name."""


class Stages:
    """The state of a run of `model` on batches: `live` are the values that nodes from `position` on still read.

    The model's nodes are in topological order, and its names are unique. Not `optimised`, every node is run as it is
    written, pairs of a quantized graph too.

    Raises:
        InputError: ONNX Runtime can't run a part.
    """

    def __init__(
        self,
        model: ir.Model,
        batches: Iterable[Mapping[str, Array]],
        *,
        optimised: bool = False,
        threads: int = 1,
    ) -> None:
        self.model, self.nodes = model, list(model.graph)
        self.live: list[Batch] = [dict(batch) for batch in batches]
        self.position = 0
        self._optimised, self._threads = optimised, threads
        self._reads = [{str(value.name) for value in values_read(node) if value.name} for node in self.nodes]
        self._last: dict[str, int] = {}
        for index, names in enumerate(self._reads):
            self._last |= dict.fromkeys(names, index)
        self.outputs = [str(value.name) for value in model.graph.outputs]
        self._last |= dict.fromkeys(self.outputs, len(self.nodes))
        self._shell = to_proto(model, without=tuple(model.graph.initializers))
        del self._shell.graph.node[:], self._shell.graph.input[:], self._shell.graph.output[:]
        del self._shell.graph.value_info[:]

    def advance(self, stop: int) -> None:
        """Run the nodes up to, without, number `stop`; raises InputError as the class does."""
        nodes = self.nodes[self.position : stop]
        given = [str(value.name) for node in nodes for value in node.outputs if value.name]
        wanted = [name for name in given if self._is_needed(name, stop)]
        if wanted:
            for batch, seen in zip(self.live, self.run(nodes, wanted), strict=True):
                batch.update(seen)
        self.position = stop
        for batch in self.live:
            for name in [name for name in batch if not self._is_needed(name, stop)]:
                del batch[name]

    def _is_needed(self, name: str, position: int) -> bool:
        return self._last.get(name, -1) >= position

    def run(
        self,
        nodes: Sequence[ir.Node],
        wanted: Sequence[str],
        *,
        extra: Mapping[str, Array] | None = None,
        given: Sequence[Mapping[str, Array]] | None = None,
    ) -> list[Batch]:
        """Return values that `nodes` give, for each batch; they read live values, constants and each other's.

        `extra` are constants beside those of the model, `given` batches that stand for the live ones.
        """
        batches = self.live if given is None else given
        made = {str(value.name) for node in nodes for value in node.outputs}
        read = {name for node in nodes for name in self._names(node)} - made
        types = {name: batches[0][name].dtype for name in sorted(read & batches[0].keys())} if batches else {}
        kept = [name for name in wanted if name in made]
        fetched: list[Batch] = [{name: batch[name] for name in wanted if name not in made} for batch in batches]
        if kept and batches:
            session = self._session(nodes, types, kept, read - types.keys(), extra or {})
            for batch, seen in zip(batches, fetched, strict=True):
                arrays = session.run(kept, {name: batch[name] for name in types})
                seen.update({name: np.asarray(array) for name, array in zip(kept, arrays, strict=True)})
        return fetched

    def _names(self, node: ir.Node) -> set[str]:
        return {str(value.name) for value in values_read(node) if value.name}

    def _session(
        self,
        nodes: Sequence[ir.Node],
        types: Mapping[str, np.dtype[np.generic]],
        kept: Sequence[str],
        constants: set[str],
        extra: Mapping[str, Array],
    ) -> "onnxruntime.InferenceSession":
        import onnxruntime

        proto = onnx.ModelProto()
        proto.CopyFrom(self._shell)
        for node in nodes:
            ir.serde.serialize_node_into(proto.graph.node.add(), node)
        for name in sorted(constants):
            tensor = proto.graph.initializer.add()
            if name in extra:
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(extra[name]), name))
                continue
            value = self.model.graph.initializers.get(name)
            if value is None or value.const_value is None:
                raise InputError(f"ONNX Runtime can't run the model: nothing gives '{name}'")
            ir.serde.serialize_tensor_into(tensor, value.const_value)
            tensor.name = name
        for name, dtype in types.items():
            kind = onnx.helper.np_dtype_to_tensor_dtype(dtype)
            proto.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, None))
        proto.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in kept)
        options = onnxruntime.SessionOptions()
        if not self._optimised:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 4
        try:
            return onnxruntime.InferenceSession(to_bytes(proto), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions share no public base class
            raise InputError(f"ONNX Runtime can't run a part of the model: {first_line(error)}") from error


def node_reading(node: ir.Node, inputs: Sequence[ir.Value | None]) -> ir.Node:
    """Return a node like `node`, outside any graph, that reads what is called as `inputs` and gives the same names."""
    inputs = [None if value is None else ir.Value(name=value.name) for value in inputs]
    outputs = [ir.Value(name=value.name) for value in node.outputs]
    return ir.Node(node.domain, node.op_type, inputs, list(node.attributes.values()), outputs=outputs, name=node.name)


def pair_of(value: ir.Value | None) -> ir.Node | None:
    """Return the DequantizeLinear that gives a value, if one does."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def settings_of(pair: ir.Node) -> tuple[NDArray[np.float32], NDArray[np.generic], int]:
    """Return scale, zero point and axis of a DequantizeLinear."""
    scale, zero = constant_of(pair, 1), constant_of(pair, 2)
    assert scale is not None
    return scale.astype(np.float32), np.zeros(scale.shape, np.int8) if zero is None else zero, _axis(pair)


def _axis(pair: ir.Node) -> int:
    axis = pair.attributes.get_int("axis", 1)
    return 1 if axis is None else axis


def rounded_constant(pair: ir.Node | None) -> Array | None:
    """Return what a pair around a constant gives, calculated as ONNX Runtime does; None if it isn't around one."""
    if pair is None:
        return None
    scale, zero, axis = settings_of(pair)
    held = constant_of(pair, 0)
    source = pair.inputs[0]
    quantizer = source.producer() if source is not None else None
    floats = constant_of(quantizer, 0) if held is None and quantizer is not None else None
    array = held if floats is None else floats
    if array is None:
        return None
    if scale.size > 1:
        shape = [-1 if place == axis % array.ndim else 1 for place in range(array.ndim)]
        scale, zero = scale.reshape(shape), zero.reshape(shape) if zero.size > 1 else zero
    zeros = zero.astype(np.float32)
    if floats is not None:
        low, high = _limits(zero.dtype)
        array = np.clip(np.rint(floats.astype(np.float32) / scale) + zeros, low, high)
    return np.asarray(((array.astype(np.float32) - zeros) * scale).astype(np.float32))


def _limits(dtype: np.dtype[np.generic]) -> tuple[int, int]:
    return (-128, 127) if dtype == np.int8 else (0, 255) if dtype == np.uint8 else (-(2**31), 2**31 - 1)
