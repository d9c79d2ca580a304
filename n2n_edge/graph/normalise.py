"""Normal form of a teacher, the one that the rest of the program takes.

Afterwards: functions are inlined, constants are initializers, shape arithmetic that doesn't depend on the batch is
folded, Identity and Dropout are gone, nodes have names, layers share no vector by chance, and every value carries its
shape, ``N`` being the batch. What computes as in training, because it was exported before `eval()` was called, is
refused.
"""

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from n2n_edge.errors import IncompressibleError, InputError
from n2n_edge.foreign import printable
from n2n_edge.graph.constant_channels import pad_instead_of_concat
from n2n_edge.graph.fold import fold_static, put_constant
from n2n_edge.graph.free_batch import free_batch
from n2n_edge.graph.load import GENERATED_NAME, as_array, drop_unused_initializers
from n2n_edge.graph.op import counted_op, op_of
from n2n_edge.graph.operands import nodes_within
from n2n_edge.graph.runtime_shapes import drop_ignored_padding
from n2n_edge.graph.shape_run import Array, example_inputs, run_graph
from n2n_edge.graph.shapes import Trace, batch_dim, trace_model
from n2n_edge.graph.shared_vectors import separate_vectors
from n2n_edge.graph.sizes import free_sizes
from n2n_edge.graph.subgraphs import inline_settled_branches

__all__ = ["is_in_training_mode", "normalise"]


def normalise(model: ir.Model, input_shape: tuple[int, ...] | None = None) -> ir.Model:
    """Return a normalised copy of `model`; `input_shape` as for `example_inputs`.

    Raises:
        InputError: the model is quantized or in training mode, or ONNX Runtime can't run it.
    """
    model = _without_boilerplate(model)
    quantized = sorted({node.op_type for node in model.graph if counted_op(node.op_type, node.domain).quantized})
    if quantized:
        raise IncompressibleError(
            f"the model is quantized ({', '.join(quantized)}); give the float model that it was made from, or what "
            "`n2n-edge quantize --undo` (in Python n2n_edge.dequantize) makes of it: compress that and quantize the "
            "student"
        )
    model = free_batch(model, input_shape)
    one, two = _trace_two_batches(model, input_shape)
    one, two = pad_instead_of_concat(model, one, two)
    fold_static(model, one, two)
    while _settle_casts(model, one) or inline_settled_branches(model):
        one, two = _trace_two_batches(model, input_shape)
        one, two = pad_instead_of_concat(model, one, two)
        fold_static(model, one, two)
    _check_values(model, one)
    _broadcast_fills(model, one, two, input_shape)
    drop_ignored_padding(model, one.shapes)
    free_sizes(model, one, two)
    common.RemoveUnusedNodesPass()(model)
    _drop_dropout(model)
    _drop_identities(model)
    common.RemoveUnusedNodesPass()(model)
    drop_unused_initializers(model)
    separate_vectors(model)
    _note_shapes(model, one, two)
    _note_kernels(model, one)
    _name_nodes(model)
    return model


def _without_boilerplate(model: ir.Model) -> ir.Model:
    model = model.clone()
    if model.functions:
        common.InlinePass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    _refuse_training_mode(model)  # what follows would drop the mode, with the outputs that nothing reads
    common.RemoveInitializersFromInputsPass()(model)
    common.RemoveUnusedNodesPass()(model)
    return model


def _settle_casts(model: ir.Model, traced: Trace) -> bool:
    """Make a Cast of every CastLike, whose second input counts by its type alone; tell whether there was any."""
    found = [node for node in model.graph if node.op_type == "CastLike"]
    for node in found:
        source, output = node.inputs[0], node.outputs[0]
        kind = ir.DataType.from_numpy(traced.dtypes[str(output.name)])
        cast = ir.Node("", "Cast", [source], [ir.AttrInt64("to", int(kind))], name=node.name)
        model.graph.insert_before(node, cast)
        ir.convenience.replace_all_uses_with(output, cast.outputs[0], replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
        cast.outputs[0].name = output.name
    return bool(found)


def _trace_two_batches(model: ir.Model, input_shape: tuple[int, ...] | None) -> tuple[Trace, Trace]:
    one_in, two_in = (example_inputs(model, batch, input_shape) for batch in (1, 2))
    one = trace_model(model, one_in)
    if all(one_in[name].shape == two_in[name].shape for name in one_in):
        return one, one
    try:
        return one, trace_model(model, two_in, runnable=True)
    except InputError:  # the batch axis is free in name only: some constant inside fixes it to one
        for value in model.graph.inputs:
            value.shape = ir.Shape(one_in[str(value.name)].shape)
        return one, one


def _broadcast_fills(model: ir.Model, one: Trace, two: Trace, input_shape: tuple[int, ...] | None) -> None:
    """Turn a float constant repeated for every image (the zero state of a recurrent gate) into one for all of them.

    Done where the rest of the graph broadcasts it: the outputs for two images have to stay as they were.
    """
    fills = [
        (node.outputs[0].name, name)
        for node in model.graph
        for name, value in ((str(value.name), value) for value in node.outputs)
        if name in one.values
        and any(str(use.node.outputs[0].name) not in one.values for use in value.uses())
        and _repeats(one.values[name], two.values[name])
    ]
    if not fills:
        return
    outputs = {str(value.name) for value in model.graph.outputs}
    inputs = {name: np.concatenate([array, array]) for name, array in example_inputs(model, 1, input_shape).items()}
    expected = run_graph(model, inputs, outputs)
    for first, name in fills:
        trial = model.clone()
        put_constant(trial, _value_of(trial, first, name), one.values[name], one, two)
        try:
            seen = run_graph(trial, inputs, outputs)
        except InputError:
            continue
        if all(np.array_equal(seen[output], expected[output], equal_nan=True) for output in outputs):
            put_constant(model, _value_of(model, first, name), one.values[name], one, two)


def _value_of(model: ir.Model, first: str | None, name: str) -> ir.Value:
    node = next(node for node in model.graph if node.outputs[0].name == first)
    return next(value for value in node.outputs if value.name == name)


def _repeats(first: Array, second: Array) -> bool:
    """Tell whether `second`, a float array for two images, is `first` twice."""
    return (
        np.issubdtype(first.dtype, np.floating)
        and second.shape == (2, *first.shape[1:])
        and first.shape[:1] == (1,)
        and np.array_equal(second, np.concatenate([first, first]))
    )


def _drop_identities(model: ir.Model) -> None:
    if not any(nodes_within(node) for node in model.graph):
        common.IdentityEliminationPass()(model)
        return
    # a body of control flow may not give a value of the graph around it, so what is within bodies stays
    for node in list(model.graph):
        source = node.inputs[0] if node.op_type == "Identity" else None
        if source is not None and not node.outputs[0].is_graph_output():
            ir.convenience.replace_all_uses_with(node.outputs[0], source)
            model.graph.remove(node, safe=True)


def _drop_dropout(model: ir.Model) -> None:
    for node in list(model.graph):
        source = node.inputs[0] if node.op_type == "Dropout" else None
        if source is None or node.outputs[0].is_graph_output():
            continue
        if len(node.outputs) > 1 and any(output.uses() for output in node.outputs[1:]):
            continue
        ir.convenience.replace_all_uses_with(node.outputs[0], source)
        model.graph.remove(node, safe=True)


def _check_values(model: ir.Model, traced: Trace) -> None:
    for node in model.graph:
        for value in node.outputs:
            if value.name and str(value.name) not in traced.dtypes:
                raise IncompressibleError(
                    f"{node.op_type} gives '{value.name}', which is no tensor of numbers: it can't be compressed"
                )


def _note_shapes(model: ir.Model, one: Trace, two: Trace) -> None:
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    for value in values:
        name = str(value.name)
        if name not in one.shapes:  # sequences and strings
            continue
        first, second = one.shapes[name], two.shapes[name]
        value.shape = ir.Shape([a if a == b else batch_dim(a) for a, b in zip(first, second, strict=True)])
        value.dtype = ir.DataType.from_numpy(one.dtypes[name])
    for value in model.graph.initializers.values():
        assert value.const_value is not None
        value.const_value = as_array(value.const_value)
        value.shape, value.dtype = ir.Shape(value.const_value.shape.numpy()), value.const_value.dtype


def _note_kernels(model: ir.Model, one: Trace) -> None:
    """Note the kernel of every convolution whose weight is worked out when the network runs."""
    for node in model.graph:
        weight = node.inputs[1] if op_of(node).convolves else None
        if weight is not None and weight.const_value is None and "kernel_shape" not in node.attributes:
            shape = one.shapes.get(str(weight.name), ())
            if len(shape) > 2:
                node.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", shape[2:])


def _name_nodes(model: ir.Model) -> None:
    seen: set[str] = set()
    for index, node in enumerate(model.graph):
        if not node.name:
            node.meta[GENERATED_NAME] = True
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{index}"
        seen.add(node.name)


_MODE_IS_AN_ATTRIBUTE = 14
"""The opset since which BatchNormalization says so; before, it was told by the outputs for new statistics."""


def _refuse_training_mode(model: ir.Model) -> None:
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
