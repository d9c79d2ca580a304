"""Functions of a model that can be put in the place of their calls, and how large the graph gets then."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import onnx

from n2n_edge.errors import InputError
from n2n_edge.graph.model_file import holders, holders_within, nodes_with_bodies

__all__ = ["check_function_calls", "give_one_version"]

_MOST_NODES = 100_000

_MOST_LEVELS = 200
"""How deeply functions may call each other: the ONNX checker and ONNX Runtime go into them level by level."""

_Operator = tuple[str, str]
"""Domain and type of an operator, or of a function."""

_GRAPH: _Operator = ("", "")


def check_function_calls(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse functions that call themselves, are called with too much, or so often that no graph could hold them.

    Raises:
        InputError: such a function.
    """
    if not proto.functions:
        return
    functions = {(item.domain, item.name): item for item in proto.functions}
    for node in (node for holder in holders(proto) for node in holder.node):
        if (node.domain, node.op_type) in functions:
            _check_call(node, functions[node.domain, node.op_type], path)
    called = {key: _operators(item.node) for key, item in functions.items()}
    called[_GRAPH] = _operators(proto.graph.node)
    sizes: dict[_Operator, int] = {}
    levels: dict[_Operator, int] = {}
    open_calls = {_GRAPH: None}
    while open_calls:  # a stack: the last one is what is being counted
        key = next(reversed(open_calls))
        missing = next((inner for inner in called[key] if inner in functions and inner not in sizes), None)
        if missing is not None:
            if missing in open_calls:
                raise InputError(f"{path}: function '{missing[1]}' calls itself; export the model without functions")
            open_calls[missing] = None
            continue
        del open_calls[key]
        sizes[key] = sum(sizes.get(inner, 1) * times for inner, times in called[key].items())
        levels[key] = 1 + max((levels.get(inner, 0) for inner in called[key]), default=0)
        if sizes[key] > _MOST_NODES:
            raise InputError(
                f"{path}: its functions stand for over {_MOST_NODES:,} nodes; export the model without functions"
            )
    if levels[_GRAPH] > _MOST_LEVELS:
        raise InputError(
            f"{path}: its functions call each other over {_MOST_LEVELS} levels deep; export the model without functions"
        )


def _operators(nodes: Iterable[onnx.NodeProto]) -> Counter[_Operator]:
    """Count what the nodes call, those in bodies of control flow included."""
    return Counter((node.domain, node.op_type) for node in nodes_with_bodies(nodes))


def _check_call(node: onnx.NodeProto, function: onnx.FunctionProto, path: Path) -> None:
    for kind, given, declared in (("inputs", node.input, function.input), ("outputs", node.output, function.output)):
        if len(given) > len(declared):
            raise InputError(
                f"{path}: calls function '{function.name}' with {len(given)} {kind}, but it declares {len(declared)}; "
                "export the model again"
            )


def give_one_version(proto: onnx.ModelProto, path: Path) -> None:
    """Let functions, in place, use the versions of the operators that the model uses, if these are the same operators.

    Raises:
        InputError: a function uses an operator that is another one in the model's version.
    """
    versions = {item.domain: item.version for item in proto.opset_import}
    for function in proto.functions:
        for item in function.opset_import:
            wanted = versions.setdefault(item.domain, item.version)
            if item.version == wanted:
                continue
            for node in (node for holder in holders_within([function]) for node in holder.node):
                if node.domain == item.domain and not _is_same(node, item.version, wanted):
                    raise InputError(
                        f"{path}: function '{function.name}' uses {node.op_type} of version {item.version} of the "
                        f"operators, the model those of version {wanted}; export the model without functions"
                    )
            item.version = wanted
    declared = {item.domain for item in proto.opset_import}
    for domain, version in versions.items():
        if domain not in declared:
            proto.opset_import.append(onnx.helper.make_opsetid(domain, version))


def _is_same(node: onnx.NodeProto, one: int, other: int) -> bool:
    """Tell whether an operator is called alike in two versions, which may differ in the types that it takes."""
    return _signature(node, one) == _signature(node, other)


def _signature(node: onnx.NodeProto, version: int) -> object:
    try:
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError:  # of another domain
        return None
    attributes = {name: (item.type, item.default_value.SerializeToString()) for name, item in schema.attributes.items()}
    return attributes, [(item.name, item.option) for item in (*schema.inputs, *schema.outputs)]
