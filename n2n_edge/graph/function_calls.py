"""How large a graph gets when the functions of its model are put in the place of their calls."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx

from n2n_edge.errors import InputError

__all__ = ["check_function_calls"]

_MOST_NODES = 100_000

_MOST_LEVELS = 200
"""How deeply functions may call each other: the ONNX checker and ONNX Runtime go into them level by level."""

_Operator = tuple[str, str]
"""Domain and type of an operator, or of a function."""

_GRAPH: _Operator = ("", "")


def check_function_calls(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse functions that call themselves, or that call others so often that no graph could hold them.

    Raises:
        InputError: such a function.
    """
    if not proto.functions:
        return
    functions = {(item.domain, item.name): item for item in proto.functions}
    called = {key: Counter(_operators(item.node)) for key, item in functions.items()}
    called[_GRAPH] = Counter(_operators(proto.graph.node))
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


def _operators(nodes: Iterable[onnx.NodeProto]) -> Iterator[_Operator]:
    """Yield what the nodes call, those in bodies of control flow included."""
    for node in nodes:
        yield (node.domain, node.op_type)
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _operators(body.node)
