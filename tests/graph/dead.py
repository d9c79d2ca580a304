"""Channels that carry zeros: shrinking exactly those away must change nothing."""

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from n2n_edge.graph.teacher import Teacher

__all__ = ["with_dead_channels"]

_PRODUCING_AXIS = {"Conv": 0, "ConvTranspose": 1, "MatMul": 1}


def with_dead_channels(teacher: Teacher, dead: Collection[int], *, ignored: bool = False) -> ir.Model:
    """The teacher's model with whatever produces the channels labelled `dead` set to zero; readers stay as they are.

    With `ignored`, the weights that read them are set to zero too: for channels that an activation such as Sigmoid
    lifts from zero.
    """
    model = teacher.model.clone()
    labels = teacher.base_graph(frozenset()).labels
    gone = np.array(sorted(dead), np.int64)
    for node in model.graph:
        for index, value in enumerate(node.inputs):
            if value is None or value.const_value is None or value.dtype != ir.DataType.FLOAT:
                continue
            array = value.const_value.numpy().copy()
            axes = range(array.ndim)
            if not ignored and array.ndim > 1 and node.op_type in (*_PRODUCING_AXIS, "Gemm"):
                transposed = 0 if node.attributes.get_int("transB", 0) else 1
                side = 0 if index == 0 else _PRODUCING_AXIS.get(node.op_type, transposed)
                axes = [side]
            for axis in axes:
                row = labels.dims.get((str(value.name), axis))
                if row is None:
                    continue
                rows = row if row.ndim > 1 else row[None]  # a grouped convolution reads other channels in every block
                for block, members in zip(np.split(array, len(rows)), rows, strict=True):
                    np.moveaxis(block, axis, 0)[np.isin(members, gone)] = 0
            value.const_value = ir.tensor(array, name=value.name)
    return model
