"""Functions of a model that can be put in the place of their calls, and how large the graph gets then."""

from pathlib import Path

import onnx

from n2n_edge.errors import InputError
from n2n_edge.graph.model_file import holders

__all__ = ["check_function_calls", "give_one_version"]

_MOST_NODES = 100_000


def check_function_calls(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse functions that call themselves, are called with too much, or so often that no graph could hold them.

    Raises:
        InputError: such a function.
    """
    if not proto.functions:
        return
    functions = {(item.domain, item.name): item for item in proto.functions}
    sizes: dict[tuple[str, str], int] = {}
    open_calls: set[tuple[str, str]] = set()

    def size_of(key: tuple[str, str]) -> int:
        if key in open_calls:
            raise InputError(f"{path}: function '{key[1]}' calls itself; export the model without functions")
        if key not in sizes:
            open_calls.add(key)
            sizes[key] = nodes_of(list(functions[key].node))
            open_calls.discard(key)
        return sizes[key]

    def nodes_of(nodes: list[onnx.NodeProto]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            if key in functions:
                _check_call(node, functions[key], path)
            total += size_of(key) if key in functions else 1
            for attribute in node.attribute:
                for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                    total += nodes_of(list(body.node))
            if total > _MOST_NODES:
                raise InputError(
                    f"{path}: its functions stand for over {_MOST_NODES:,} nodes; export the model without functions"
                )
        return total

    nodes_of(list(proto.graph.node))


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
            for node in _nodes_of(function):
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


def _nodes_of(function: onnx.FunctionProto) -> list[onnx.NodeProto]:
    alone = onnx.ModelProto(functions=[function])
    return [node for holder in holders(alone) for node in holder.node]


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
