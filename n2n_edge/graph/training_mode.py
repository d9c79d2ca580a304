"""Nodes that compute as in training: what is exported before `eval()` was called."""

import onnx_ir as ir

from n2n_edge.errors import InputError
from n2n_edge.foreign import printable
from n2n_edge.graph.operands import nodes_within

__all__ = ["is_in_training_mode", "refuse_training_mode"]

_MODE_IS_AN_ATTRIBUTE = 14
"""The opset since which BatchNormalization says so; before, it was told by the outputs for new statistics."""


def refuse_training_mode(model: ir.Model) -> None:
    """Raise InputError if a node of `model` computes as in training.

    Readers and optimisers drop such a mode without a word: then it is another function.
    """
    opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))
    for node in (inner for outer in model.graph for inner in (outer, *nodes_within(outer))):
        if is_in_training_mode(node, opset):
            raise InputError(
                f"{node.op_type} '{printable(node.name or node.outputs[0].name)}' was exported in training mode; call "
                "eval() on the network and export it again"
            )


def is_in_training_mode(node: ir.Node, opset: int) -> bool:
    """Tell whether a BatchNormalization follows its batch, or a Dropout drops."""
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type == "BatchNormalization":
        if opset >= _MODE_IS_AN_ATTRIBUTE:
            return node.attributes.get_int("training_mode", 0) != 0
        return any(value.name for value in node.outputs[1:])
    if node.op_type == "Dropout" and len(node.inputs) > 2 and node.inputs[2] is not None:
        mode = node.inputs[2].const_value
        return mode is not None and bool(mode.numpy().any()) and not _drops_nothing(node)
    return False


def _drops_nothing(node: ir.Node) -> bool:
    ratio = node.inputs[1].const_value if node.inputs[1] is not None else None
    return ratio is not None and not ratio.numpy().any()
