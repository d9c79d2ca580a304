"""Why the analysis of a graph failed: most graphs that surprise it are ones that no runtime runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import onnx_ir as ir

from n2n_edge.errors import InputError, LimitExceededError
from n2n_edge.foreign import UnforeseenError, foreign_file
from n2n_edge.graph.child import run_in_child
from n2n_edge.graph.load import serialize
from n2n_edge.graph.witness import types_by_running, witness_inputs

__all__ = ["analysing", "analysing_unrun"]


@contextmanager
def analysing(model: ir.Model) -> Iterator[None]:
    """Turn whatever `model` causes while it is analysed into an error of one line.

    Where no check says why, one run in a child process tells whether ONNX Runtime refuses the model, too.

    Raises:
        InputError: the model can't be analysed; an `UnforeseenError` only if ONNX Runtime runs it.
    """
    with _explained(lambda: types_by_running(model, witness_inputs(model, 1), ())):
        yield


@contextmanager
def analysing_unrun(model: ir.Model) -> Iterator[None]:
    """Do what `analysing` does without running the model: a child process opens it at most."""
    with _explained(lambda: run_in_child(serialize(model), (), (), ())):
        yield


@contextmanager
def _explained(ask: Callable[[], object]) -> Iterator[None]:
    try:
        with foreign_file("the model"):
            yield
    except UnforeseenError as error:
        try:
            with foreign_file("the model"):
                ask()
        except UnforeseenError:
            raise error from error.__cause__
        except (InputError, LimitExceededError) as refusal:
            raise refusal from error.__cause__
        raise
