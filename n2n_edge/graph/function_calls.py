"""How large a graph gets when the functions of its model are put in the place of their calls."""

from pathlib import Path

import onnx

from n2n_edge.errors import InputError

__all__ = ["check_function_calls"]

_MOST_NODES = 100_000


def check_function_calls(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse functions that call themselves, or that call others so often that no graph could hold them.

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
