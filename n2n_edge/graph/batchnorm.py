"""Restoring of folded BatchNorms where training needs them, and folding for shipping; neither changes results."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from n2n_edge.graph.load import drop_unused_initializers
from n2n_edge.graph.op import op_of
from n2n_edge.graph.shape_run import Array, run_graph_each
from n2n_edge.graph.shapes import is_constant

__all__ = ["fold_batchnorm", "restore_batchnorm"]

_EPSILON = 1e-5


def restore_batchnorm(model: ir.Model, batches: Iterable[Mapping[str, Array]]) -> tuple[ir.Model, tuple[str, ...]]:
    """Return a copy of `model` with a BatchNormalization after every convolution that lost its own, and the names.

    `batches` are inputs by name, ``(N, C, H, W)`` each. A norm takes as statistics the mean and variance per channel
    that it would have seen on them, and as shift and scale what undoes them, so the function stays as it was.
    A folded norm leaves a bias behind: convolutions without one are left alone, as are those that share weight or bias
    with others or give a graph output, so that folding again gives no parameters that `model` doesn't have.

    Raises:
        ValueError: there is something to put back, but no batch.
        InputError: ONNX Runtime can't run the model on a batch.
    """
    model = model.clone()
    bare = [node for node in model.graph if _lacks_norm(node)]
    if not bare:
        return model, ()
    statistics = _channel_statistics(model, batches, {str(node.outputs[0].name) for node in bare})
    return model, tuple(_insert_norm(model, node, *statistics[str(node.outputs[0].name)]) for node in bare)


def fold_batchnorm(model: ir.Model, names: Collection[str] | None = None) -> ir.Model:
    """Return a copy of `model` whose BatchNormalizations are part of the convolutions before them.

    `names` limits this to the norms of these node names; a norm that doesn't directly follow a convolution with
    constant weights, or shares that convolution's output with others, stays.
    """
    model = model.clone()
    for node in list(model.graph):
        if node.op_type == "BatchNormalization" and (names is None or node.name in names) and _can_fold(node):
            _fold(model, node)
    drop_unused_initializers(model)
    return model


def _lacks_norm(node: ir.Node) -> bool:
    if not op_of(node).convolves or node.outputs[0].is_graph_output() or len(node.inputs) < 3:
        return False
    if not all(value is not None and is_constant(value) and len(value.uses()) == 1 for value in node.inputs[1:3]):
        return False
    return all(use.node.op_type != "BatchNormalization" for use in node.outputs[0].uses())


def _channel_statistics(
    model: ir.Model, batches: Iterable[Mapping[str, Array]], names: set[str]
) -> dict[str, tuple[Array, Array]]:
    """Return mean and variance along axis 1 of each named value over all batches, in double precision."""
    count = dict.fromkeys(names, 0)
    total: dict[str, Array] = {}
    squares: dict[str, Array] = {}
    for seen in run_graph_each(model, batches, names):
        for name, array in seen.items():
            channels = np.moveaxis(array, 1, 0).reshape(array.shape[1], -1).astype(np.float64)
            count[name] += channels.shape[1]
            total[name] = total.get(name, 0) + channels.sum(axis=1)
            squares[name] = squares.get(name, 0) + np.square(channels).sum(axis=1)
    if not total:
        raise ValueError("BatchNorms can't be put back without a batch of calibration data")
    means = {name: total[name] / count[name] for name in names}
    return {name: (means[name], np.maximum(squares[name] / count[name] - means[name] ** 2, 0)) for name in names}


def _insert_norm(model: ir.Model, node: ir.Node, mean: Array, variance: Array) -> str:
    output = node.outputs[0]
    dtype = output.dtype.numpy() if output.dtype is not None else np.dtype(np.float32)
    vectors = {"scale": np.sqrt(variance + _EPSILON), "shift": mean, "mean": mean, "var": variance}
    constants = [_constant(model, f"{output.name}.norm.{key}", item.astype(dtype)) for key, item in vectors.items()]
    readers = [(use.node, use.idx) for use in output.uses()]
    norm = ir.Node(
        "",
        "BatchNormalization",
        [output, *constants],
        [ir.AttrFloat32("epsilon", _EPSILON)],
        name=f"{node.name}.norm",
    )
    normed = norm.outputs[0]
    normed.name, normed.type = f"{output.name}.normed", output.type
    normed.shape = output.shape.copy() if output.shape is not None else None
    for reader, index in readers:
        reader.replace_input_with(index, normed)
    model.graph.insert_after(node, norm)
    return str(norm.name)


def _can_fold(norm: ir.Node) -> bool:
    source = norm.inputs[0]
    convolution = source.producer() if source is not None else None
    if source is None or convolution is None or not op_of(convolution).convolves:
        return False
    constants = [*norm.inputs[1:], *convolution.inputs[1:]]
    alone = len(source.uses()) == 1 and not source.is_graph_output()
    inference = len(norm.outputs) == 1 and not norm.attributes.get_int("training_mode", 0)
    return alone and inference and all(value is None or is_constant(value) for value in constants)


def _fold(model: ir.Model, norm: ir.Node) -> None:
    source, *parameters = norm.inputs
    assert source is not None
    node = source.producer()
    assert node is not None
    scale, shift, mean, variance = (_numbers(value) for value in parameters)
    epsilon = norm.attributes.get_float("epsilon", _EPSILON)
    factor = scale / np.sqrt(variance + (_EPSILON if epsilon is None else epsilon))
    weight = _numbers(node.inputs[1])
    bias = _numbers(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else np.zeros_like(mean)
    dtype = _dtype(node.inputs[1])
    folded = [_scaled(node, weight, factor).astype(dtype), ((bias - mean) * factor + shift).astype(dtype)]
    node.resize_inputs(3)
    for index, (stem, array) in enumerate(zip(_names(node), folded, strict=True), start=1):
        node.replace_input_with(index, _constant(model, stem, array))
    output = norm.outputs[0]
    if output.is_graph_output():
        source.name = output.name
    ir.convenience.replace_all_uses_with(output, source, replace_graph_outputs=True)
    model.graph.remove(norm, safe=True)


def _scaled(node: ir.Node, weight: Array, factor: Array) -> Array:
    """Scale the output channels: axis 0 of a Conv; axis 1 of each convolution group of a ConvTranspose."""
    row = op_of(node).weight
    if row is None or not row.out_per_group:
        return weight * factor.reshape(-1, *(1,) * (weight.ndim - 1))
    groups = node.attributes.get_int("group", 1)
    apart = weight.reshape(groups, -1, *weight.shape[1:])
    return (apart * factor.reshape(groups, 1, weight.shape[1], *(1,) * (weight.ndim - 2))).reshape(weight.shape)


def _names(node: ir.Node) -> Sequence[str]:
    """Return names for the folded weight and bias: the weight's own where no other node reads it."""
    weight, bias = node.inputs[1], node.inputs[2]
    assert weight is not None
    stem = str(weight.name) if len(weight.uses()) == 1 else f"{node.outputs[0].name}.weight"
    return stem, str(bias.name) if bias is not None and len(bias.uses()) == 1 else f"{node.outputs[0].name}.bias"


def _constant(model: ir.Model, name: str, array: Array) -> ir.Value:
    value = model.graph.initializers.get(name) or ir.Value(name=name)
    value.const_value = ir.Tensor(np.ascontiguousarray(array), name=name)
    value.shape, value.dtype = value.const_value.shape, value.const_value.dtype
    if name not in model.graph.initializers:
        model.graph.register_initializer(value)
    return value


def _numbers(value: ir.Value | None) -> Array:
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy().astype(np.float64)


def _dtype(value: ir.Value | None) -> np.dtype[np.generic]:
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy().dtype
