"""Float16 form of a network, with float32 inputs and outputs, by onnxruntime.transformers' converter."""

from collections.abc import Collection

import onnx_ir as ir

from n2n_edge.errors import InputError
from n2n_edge.graph.load import to_proto

__all__ = ["in_half"]


def in_half(model: ir.Model, float_nodes: Collection[str] = ()) -> ir.Model:
    """Return `model`, normalised, with weights and arithmetic in float16; `float_nodes` (node names) stay float32.

    Operators for which runtimes have no float16 kernel stay float32, too, between casts.

    Raises:
        InputError: the converter can't write the network.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    proto = to_proto(model)
    for written, node in zip(proto.graph.node, model.graph, strict=True):
        written.name = str(node.name)
    try:
        converted = convert_float_to_float16(proto, keep_io_types=True, node_block_list=list(float_nodes))
    except (RuntimeError, ValueError, KeyError, AssertionError) as error:
        first = " ".join(str(error).split())[:160]
        raise InputError(f"‹precision› fp16: the network can't be written in float16 ({first}); give int8") from error
    del converted.graph.value_info[:]
    result: ir.Model = ir.from_proto(converted)
    result.graph.sort()
    return result
