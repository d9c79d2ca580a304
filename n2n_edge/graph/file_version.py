"""Conversion of what ships to another opset and IR version, for runtimes older than the teacher's exporter."""

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
from onnx import version_converter

from n2n_edge.errors import InputError
from n2n_edge.foreign import printable
from n2n_edge.graph.load import drop_unused_initializers, to_proto
from n2n_edge.graph.op import STANDARD_DOMAINS
from n2n_edge.graph.shape_run import example_inputs, session_for

__all__ = ["OLDEST_IR_VERSION", "OLDEST_OPSET", "check_versions", "in_version"]

OLDEST_OPSET, OLDEST_IR_VERSION = 7, 3
_INITIALIZERS_APART = 4
"""The first IR version in which an initializer needn't be among the inputs."""

_FIRST_IR_VERSION: Mapping[int, int] = {int(row[2]): int(row[1]) for row in reversed(onnx.helper.VERSION_TABLE)}
"""The IR version that came with each opset: readers of older ones don't have its operators."""


def check_versions(opset: int | None, ir_version: int | None) -> None:
    """Raise InputError for an opset or IR version that ONNX, as installed here, doesn't write."""
    newest = onnx.defs.onnx_opset_version()
    if opset is not None and not OLDEST_OPSET <= opset <= newest:
        raise InputError(f"‹opset› {opset}: give one from {OLDEST_OPSET} to {newest}")
    if ir_version is not None and not OLDEST_IR_VERSION <= ir_version <= onnx.IR_VERSION:
        raise InputError(f"‹ir_version› {ir_version}: give one from {OLDEST_IR_VERSION} to {onnx.IR_VERSION}")


def in_version(model: ir.Model, opset: int | None, ir_version: int | None) -> ir.Model:
    """Return `model` with the operators of `opset` and as a file of `ir_version`; None leaves it as it is.

    Newer operators come from onnx's converter. Older ones are the same with their attributes of then. Either way the
    result has to give what `model` gives.

    Raises:
        InputError: an operator has no form in that opset, or ONNX Runtime refuses the result.
    """
    own = _opset(model)
    if opset in (None, own) and ir_version in (None, model.ir_version):
        return model
    proto = to_proto(model)
    if opset is not None and opset > own:
        proto = _raised(proto, opset)
    elif opset is not None and opset < own:
        proto = _lowered(model, opset)
    if ir_version is not None:
        proto.ir_version = ir_version
    if proto.ir_version < _INITIALIZERS_APART:
        present = {value.name for value in proto.graph.input}
        proto.graph.input.extend(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            for tensor in proto.graph.initializer
            if tensor.name not in present
        )
    converted = ir.from_proto(proto)
    asked = _asked(opset, ir_version)
    try:
        if not _same(model, converted):
            raise InputError(f"{asked}: converted so, the network gives something else; leave it out, or give another")
    except InputError as error:
        if error.text.startswith(asked):
            raise
        raise InputError(f"{asked}: {error.text}; leave it out, or give another") from error
    return converted


def _same(model: ir.Model, converted: ir.Model) -> bool:
    inputs = {name: array for name, array in example_inputs(model, 1).items() if not model.graph.initializers.get(name)}
    try:
        given = [session_for(to_proto(each)).run(None, inputs) for each in (model, converted)]
    except InputError:
        raise
    except Exception as error:  # onnxruntime's exceptions share no public base class
        raise InputError(f"ONNX Runtime can't run it ({' '.join(str(error).split())[:160]})") from error
    return all(
        a.shape == b.shape and np.allclose(a, b, rtol=1e-4, atol=1e-5 * float(np.abs(a).max(initial=0)))
        for a, b in zip(*given, strict=True)
    )


def _asked(opset: int | None, ir_version: int | None) -> str:
    given = [f"‹opset› {opset}"] if opset is not None else []
    return ", ".join([*given, *([f"‹ir_version› {ir_version}"] if ir_version is not None else [])])


def _opset(model: ir.Model) -> int:
    return model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))


def _raised(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    typed = onnx.shape_inference.infer_shapes(proto)  # some adapters ask for ranks
    try:
        converted = version_converter.convert_version(typed, opset)
    except (RuntimeError, ValueError, IndexError, KeyError) as error:
        first = " ".join(str(error).split())[:160]
        raise InputError(
            f"‹opset› {opset}: onnx's converter can't write the network in it ({first}); leave it out, or give one "
            "nearer to the teacher's"
        ) from error
    _spell_out_resizing(converted, max((item.version for item in proto.opset_import if not item.domain), default=1))
    del converted.graph.value_info[:]
    converted.ir_version = max(proto.ir_version, _FIRST_IR_VERSION.get(opset, proto.ir_version))
    del converted.metadata_props[:]
    converted.metadata_props.extend(proto.metadata_props)
    converted.producer_name, converted.producer_version = proto.producer_name, proto.producer_version
    converted.doc_string = proto.doc_string
    return converted


def _spell_out_resizing(converted: onnx.ModelProto, before: int) -> None:
    """Say in every Resize how Upsample, and Resize before opset 11, found their places, which isn't today's default."""
    for node in converted.graph.node if before < 11 else ():
        if node.op_type == "Resize" and all(item.name != "coordinate_transformation_mode" for item in node.attribute):
            node.attribute.append(onnx.helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
            node.attribute.append(onnx.helper.make_attribute("nearest_mode", "floor"))


_ATTRIBUTES: Mapping[str, tuple[int, tuple[str, ...]]] = {
    **dict.fromkeys(
        (
            *(
                f"Reduce{what}"
                for what in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
            ),
        ),
        (18, ("axes",)),
    ),
    **dict.fromkeys(("ReduceSum", "Squeeze", "Unsqueeze"), (13, ("axes",))),
    "Split": (13, ("split",)),
    "Clip": (11, ("min", "max")),
    "Pad": (11, ("pads", "value")),
    "Slice": (10, ("starts", "ends", "axes")),
    "TopK": (10, ("k",)),
}
"""The opset since which an operator reads inputs, behind the first, that were attributes of these names before."""

_SCALARS = ("min", "max", "value", "k")


def _lowered(model: ir.Model, opset: int) -> onnx.ModelProto:
    """Return `model` with the operators of an older `opset`: their attributes, and what was an attribute then."""
    lowered = model.clone()
    for node in list(lowered.graph):
        if node.domain in STANDARD_DOMAINS:
            _lower(node, opset, _opset(model))
    drop_unused_initializers(lowered)
    lowered.opset_imports[""] = opset
    lowered.opset_imports.pop("ai.onnx", None)
    proto = to_proto(lowered)
    proto.ir_version = min(proto.ir_version, _FIRST_IR_VERSION.get(opset, proto.ir_version))
    return proto


def _lower(node: ir.Node, opset: int, own: int) -> None:
    def refused(why: str) -> InputError:
        return InputError(
            f"‹opset› {opset}: {node.op_type} '{printable(node.name)}' {why}; leave it out, or give one nearer to the "
            f"teacher's, {own}"
        )

    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "")
        newer = onnx.defs.get_schema(node.op_type, own, "")
    except onnx.defs.SchemaError as error:
        raise refused("isn't in it") from error
    since, names = _ATTRIBUTES.get(node.op_type, (0, ()))
    if opset < since <= own:
        if node.op_type == "Slice" and len(node.inputs) > 4 and node.inputs[4] is not None:
            steps = node.inputs[4].const_value
            if steps is None or set(steps.numpy().ravel().tolist()) != {1}:
                raise refused("has steps")
        for index, name in enumerate(names, start=1):
            value = node.inputs[index] if index < len(node.inputs) else None
            if value is None:
                continue
            if value.const_value is None:
                raise refused(f"calculates its {name}")
            node.attributes[name] = _attribute(name, value.const_value.numpy())
        node.resize_inputs(1)
    if node.op_type in ("Softmax", "LogSoftmax") and opset < 13 <= own:
        rank = len(node.inputs[0].shape or ()) if node.inputs[0] is not None else 0
        axis = node.attributes.get_int("axis", -1) or 0
        if not rank or axis % rank != rank - 1:
            raise refused("is over another axis than the last")
        node.attributes["axis"] = ir.AttrInt64("axis", rank - 1)
    for name in [name for name in node.attributes if name not in schema.attributes]:
        default = newer.attributes[name].default_value if name in newer.attributes else None
        same = default is not None and default.name and onnx.helper.get_attribute_value(default)
        value = node.attributes[name].value
        if (value.encode() if isinstance(value, str) else value) != same and (node.op_type, name) != (
            "Split",
            "num_outputs",
        ):
            raise refused(f"has no '{name}' in it")
        node.attributes.pop(name)
    if len(node.inputs) > schema.max_input:
        raise refused("reads more inputs than it did")


def _attribute(name: str, array: np.ndarray) -> ir.Attr:
    if name in _SCALARS:
        number = array.reshape(-1)[0]
        return (
            ir.AttrFloat32(name, float(number))
            if np.issubdtype(array.dtype, np.floating)
            else ir.AttrInt64(name, int(number))
        )
    return ir.AttrInt64s(name, array.reshape(-1).tolist())
