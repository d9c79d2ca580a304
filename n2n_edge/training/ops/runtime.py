"""Operators that torch has no function for, run by ONNX Runtime: nothing is learned through them."""

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
import torch
from torch import Tensor

from n2n_edge.errors import InputError
from n2n_edge.graph.op import MICROSOFT, STANDARD_DOMAINS
from n2n_edge.graph.shape_run import session_for
from n2n_edge.graph.subgraphs import holds_graph
from n2n_edge.training.ops.registry import Kernel

__all__ = ["runs_alone", "runtime_kernel"]

_IR_VERSION = 8
_UNTOLD = (onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8, onnx.TensorProto.INT8)


def runs_alone(node: ir.Node) -> bool:
    """Tell whether ONNX Runtime may have the node's operator, and all it reads are its inputs."""
    return node.domain in (*STANDARD_DOMAINS, MICROSOFT) and not holds_graph(node)


def runtime_kernel(node: ir.Node, imports: Mapping[str, int]) -> Kernel:
    """Return a function that runs a node in a session of its own, opened when types are told by what it is given.

    Raises, when called:
        InputError: ONNX Runtime doesn't run it either.
    """
    proto = ir.to_proto(node)
    read = [name for name in dict.fromkeys(proto.input) if name]
    given = [name for name in proto.output if name]
    sessions: dict[tuple[object, ...], object] = {}

    def run(*arguments: Tensor | None) -> Tensor | tuple[Tensor, ...]:
        values = {
            name: np.asarray(value.detach().cpu().numpy(), order="C")  # which leaves a scalar one
            for name, value in zip(proto.input, arguments, strict=False)
            if name and value is not None
        }
        types = tuple(value.dtype.str for value in values.values())
        if types not in sessions:
            sessions[types] = _session(proto, values, imports)
        results = sessions[types].run(given, {name: values[name] for name in read})  # type: ignore[attr-defined]
        found = dict(zip(given, results, strict=True))
        device = next((value.device for value in arguments if value is not None), None)
        outputs = tuple(
            torch.from_numpy(np.array(found[name])).to(device) if name else torch.empty(0) for name in proto.output
        )
        return outputs[0] if len(outputs) == 1 else outputs

    return run


def _session(node: onnx.NodeProto, values: Mapping[str, np.ndarray], imports: Mapping[str, int]) -> object:
    """Open a session for a node; where nothing tells what it gives, it is floats, or the integers of a quantized op."""
    *others, last = _UNTOLD
    for kind in others:
        try:
            return session_for(_model(node, values, imports, kind))
        except InputError:
            continue
    return session_for(_model(node, values, imports, last))


def _model(
    node: onnx.NodeProto, values: Mapping[str, np.ndarray], imports: Mapping[str, int], untold: int
) -> onnx.ModelProto:
    inputs = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), [None] * value.ndim)
        for name, value in values.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = onnx.helper.make_graph([node], "node", inputs, outputs)
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in imports.items()]
    if node.domain not in imports:
        opsets.append(onnx.helper.make_opsetid(node.domain, 1))
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
    inferred = onnx.shape_inference.infer_shapes(model)
    for value in model.graph.output:
        told = next((item for item in inferred.graph.output if item.name == value.name), None)
        kind = told.type.tensor_type.elem_type if told is not None else 0
        value.type.tensor_type.elem_type = kind or untold
    return model
