"""One flat graph: functions in the place of their calls, and the branch that is always taken in the place of its If."""

import onnx_ir as ir
from onnx_ir.passes import common

from n2n_edge.graph.bodies import holds_graph
from n2n_edge.graph.shapes import is_constant

__all__ = ["flattened", "inline_settled_branches"]


def flattened(model: ir.Model) -> ir.Model:
    """Return a flat copy of `model`, or itself where there is nothing to flatten."""
    if not model.functions and not any(_is_settled(node) for node in model.graph):
        return model
    flat = model.clone()
    if flat.functions:
        common.InlinePass()(flat)
        common.LiftConstantsToInitializersPass(lift_all_constants=True)(flat)
    while inline_settled_branches(flat):
        pass
    return flat


def inline_settled_branches(model: ir.Model) -> bool:
    """Put the branch that is always taken in the place of an If whose condition is constant; tell whether any was."""
    settled = [node for node in model.graph if _is_settled(node)]
    for node in settled:
        condition = node.inputs[0]
        assert condition is not None
        assert condition.const_value is not None
        taken = "then_branch" if bool(condition.const_value.numpy().ravel()[0]) else "else_branch"
        body = node.attributes[taken].as_graph()
        given = list(body.outputs)
        body.outputs.clear()
        for name, value in list(body.initializers.items()):
            del body.initializers[name]
            model.graph.register_initializer(value)
        inner = list(body)
        body.remove(inner)
        model.graph.insert_before(node, inner)
        for output, value in zip(node.outputs, given, strict=True):
            ir.convenience.replace_all_uses_with(output, value, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
    return bool(settled)


def _is_settled(node: ir.Node) -> bool:
    """Tell whether `node` is an If whose condition is constant."""
    if node.op_type != "If" or not holds_graph(node):
        return False
    return bool(node.inputs) and node.inputs[0] is not None and is_constant(node.inputs[0])
