"""A graph that is run part by part, in the order of its nodes, with what later nodes read kept in between.

Between two parts weights may change, and from one point on several continuations can be tried: what comes before is
calculated once.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir

from n2n_edge.errors import InputError, first_line
from n2n_edge.graph.load import to_proto
from n2n_edge.graph.model_file import to_bytes
from n2n_edge.graph.operands import values_read
from n2n_edge.graph.shape_run import Array

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["Batch", "Stages"]

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
        self, model: ir.Model, batches: Iterable[Mapping[str, Array]], *, optimised: bool = False, threads: int = 1
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
        wanted = [name for name in given if self._last.get(name, -1) >= stop]
        if wanted:
            for batch, seen in zip(self.live, self.run(nodes, wanted), strict=True):
                batch.update(seen)
        self.position = stop
        for batch in self.live:
            for name in [name for name in batch if self._last.get(name, -1) < stop]:
                del batch[name]

    def run(
        self, nodes: Sequence[ir.Node], wanted: Sequence[str], extra: Mapping[str, Array] | None = None
    ) -> list[Batch]:
        """Return values that `nodes` give, for each batch; they read live values, constants and each other's.

        `extra` are constants beside those of the model.
        """
        given = {str(value.name) for node in nodes for value in node.outputs}
        read = {name for node in nodes for name in self._names(node)} - given
        names = sorted(read & self.live[0].keys()) if self.live else []
        kept = [name for name in wanted if name in given]
        fetched: list[Batch] = []
        if kept and self.live:
            session = self._session(nodes, names, kept, read, extra or {})
            for batch in self.live:
                arrays = session.run(kept, {name: batch[name] for name in names})
                fetched.append({name: np.asarray(array) for name, array in zip(kept, arrays, strict=True)})
        else:
            fetched = [{} for _ in self.live]
        for batch, seen in zip(self.live, fetched, strict=True):
            seen.update({name: batch[name] for name in wanted if name not in given and name in batch})
        return fetched

    def _names(self, node: ir.Node) -> set[str]:
        return {str(value.name) for value in values_read(node) if value.name}

    def _session(
        self,
        nodes: Sequence[ir.Node],
        names: Sequence[str],
        kept: Sequence[str],
        read: set[str],
        extra: Mapping[str, Array],
    ) -> "onnxruntime.InferenceSession":
        import onnxruntime

        proto = onnx.ModelProto()
        proto.CopyFrom(self._shell)
        for node in nodes:
            ir.serde.serialize_node_into(proto.graph.node.add(), node)
        for name in sorted(read - set(names)):
            tensor = proto.graph.initializer.add()
            if name in extra:
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(extra[name]), name))
                continue
            value = self.model.graph.initializers.get(name)
            if value is None or value.const_value is None:
                raise InputError(f"ONNX Runtime can't run the model: nothing gives '{name}'")
            ir.serde.serialize_tensor_into(tensor, value.const_value)
            tensor.name = name
        for name in names:
            kind = onnx.helper.np_dtype_to_tensor_dtype(self.live[0][name].dtype)
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
