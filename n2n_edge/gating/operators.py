"""Whether a model keeps to a list of operators, such as those that a board's compiler takes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from n2n_edge.errors import InputError
from n2n_edge.graph.op import op_key
from n2n_edge.metrics.outcome import Outcome
from n2n_edge.reading import read_text

__all__ = ["Operators", "check_operators", "operator_counts", "parse_operators"]

_SHOWN = 5


@dataclass(frozen=True)
class Operators:
    """The operators that were allowed, and those of the model that are not among them, with how often they occur."""

    allowed: tuple[str, ...]
    others: tuple[tuple[str, int], ...]
    cost: str = "allowed_ops"
    asked: str = "--allowed-ops"

    @property
    def outcome(self) -> Outcome:
        """Pass if there are no others."""
        return "fail" if self.others else "pass"

    @property
    def reason(self) -> str:
        """One line that names the operators that aren't allowed, or says that there are none."""
        if not self.others:
            return f"all operators are among the {len(self.allowed)} allowed"
        named = ", ".join(f"{name} ({count})" for name, count in self.others[:_SHOWN])
        more = f" and {len(self.others) - _SHOWN} more kinds" if len(self.others) > _SHOWN else ""
        return f"not allowed: {named}{more}"


def check_operators(model: ir.Model, allowed: Sequence[str]) -> Operators:
    """Hold every operator of a model, in subgraphs and functions too, against the names that are allowed."""
    known = set(allowed)
    counts = operator_counts(model)
    return Operators(tuple(allowed), tuple((name, count) for name, count in counts.items() if name not in known))


def operator_counts(model: ir.Model) -> dict[str, int]:
    """Return how often each operator occurs, by name; those of other domains as ``domain:Name``."""
    functions = {(function.domain, function.name) for function in model.functions.values()}
    counts: dict[str, int] = {}
    for node in _nodes(model):
        if (node.domain, node.op_type) in functions:
            continue  # its body counts
        name = op_key(node.domain, node.op_type)
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))


def parse_operators(given: Sequence[str], option: str = "‹allowed_ops›") -> tuple[str, ...]:
    """Return operator names from words such as ``Conv,Relu`` or ``@file``, one name or more a line, ``#`` remarks.

    Raises:
        InputError: no name at all, a file that can't be read, or a word that can't be an operator's name.
    """
    names: dict[str, None] = {}
    for word in given:
        text = _read(word, option) if word.startswith("@") else word
        for name in text.replace(",", " ").split():
            plain = name.removeprefix("ai.onnx:")
            if not all(part.isidentifier() for part in plain.replace(":", ".").split(".")):
                raise InputError(
                    f"{option} {name}: not an operator's name; give such as Conv,Relu or com.microsoft:Gelu"
                )
            names[plain] = None
    if not names:
        raise InputError(
            f"{option} {','.join(given)}: names no operator; give such as Conv,Relu, or @FILE with one a line"
        )
    return tuple(names)


def _read(word: str, option: str) -> str:
    try:
        lines = read_text(Path(word[1:]), "@FILE with an operator a line").splitlines()
    except InputError as error:
        raise InputError(f"{option} @{error.text}") from error
    return "\n".join(line.partition("#")[0] for line in lines)


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    yield from ir.traversal.RecursiveGraphIterator(model.graph)
    for function in model.functions.values():
        yield from ir.traversal.RecursiveGraphIterator(function)
