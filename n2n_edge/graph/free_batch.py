"""Open the batch axis of a model that was exported for one image: training and evaluation feed many at once."""

import numpy as np
import onnx_ir as ir

from n2n_edge.errors import InputError
from n2n_edge.graph.constant_channels import pad_instead_of_concat
from n2n_edge.graph.fold import fold_static
from n2n_edge.graph.operands import constant_ints
from n2n_edge.graph.shapes import batch_dim
from n2n_edge.graph.trace import constant_names, trace_model
from n2n_edge.graph.witness import witness, witness_inputs

__all__ = ["free_batch"]


def free_batch(model: ir.Model, input_shape: tuple[int, ...] | None = None) -> ir.Model:
    """Return `model` with a free batch axis, or as it is where its batch is free already or can't be freed.

    Every Reshape that spells a batch of one out is made to leave it open. The result is taken only if it gives for two
    equal images the outputs of one, twice. `input_shape` as for `witness_inputs`.
    """
    inputs = model.graph.inputs
    if not inputs or any(value.shape is None or len(value.shape) < 2 or value.shape[0] != 1 for value in inputs):
        return model
    one = witness_inputs(model, 1, input_shape)
    freed = model.clone()
    constants = constant_names(freed)
    if constants or any(node.op_type == "Concat" for node in freed.graph):
        try:
            known = trace_model(freed, one)
        except InputError:  # what fails here fails again, with its message, where it is needed
            return model
        pad_instead_of_concat(freed, known, known)
        fold_static(freed, known, known, constants)
    for value in freed.graph.inputs:
        assert value.shape is not None
        value.shape = ir.Shape([batch_dim(1), *list(value.shape)[1:]])
    for node in freed.graph:
        _open_reshape(freed, node)
        for value in node.outputs:
            value.shape = None
    names = {str(value.name) for value in model.graph.outputs}
    try:
        once = witness(model, one, names)
        twice = witness(freed, {name: np.concatenate([item, item]) for name, item in one.items()}, names)
    except InputError:
        return model
    for name, array in once.items():
        expected = np.concatenate([array, array]) if array.ndim else array
        if expected.shape != twice[name].shape or not np.allclose(expected, twice[name], rtol=1e-4, atol=1e-5):
            return model
    return freed


def _open_reshape(model: ir.Model, node: ir.Node) -> None:
    target = constant_ints(node, 1) if node.op_type == "Reshape" else None
    if not target or target[0] != 1:
        return
    # 0 copies the batch from the input; -1 is free to be used where nothing else is inferred
    opened = np.array([0 if -1 in target else -1, *target[1:]], np.int64)
    constant = ir.Value(name=f"{node.outputs[0].name}.open", const_value=ir.tensor(opened))
    model.graph.register_initializer(constant)
    node.replace_input_with(1, constant)
    node.attributes.pop("allowzero", None)
