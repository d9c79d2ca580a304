"""Why the analysis of a graph failed: most graphs that surprise it are ones that no runtime runs."""

from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir

from n2n_edge.errors import InputError, LimitExceededError
from n2n_edge.foreign import UnforeseenError, foreign_file
from n2n_edge.graph.shape_run import example_inputs, types_by_running

__all__ = ["analysing"]


@contextmanager
def analysing(model: ir.Model) -> Iterator[None]:
    """Turn whatever `model` causes while it is analysed into an error of one line.

    Where no check says why, one run in a child process tells whether ONNX Runtime refuses the model, too.

    Raises:
        InputError: the model can't be analysed; an `UnforeseenError` only if ONNX Runtime runs it.
    """
    try:
        with foreign_file("the model"):
            yield
    except UnforeseenError as error:
        try:
            with foreign_file("the model"):
                types_by_running(model, example_inputs(model, 1), ())
        except UnforeseenError:
            raise error from error.__cause__
        except (InputError, LimitExceededError) as refusal:
            raise refusal from error.__cause__
        raise
