"""Recurrent ops: LSTM, GRU and RNN with their default activations, in torch's own kernels."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from n2n_edge.training.ops.registry import Kernel, NodeView, register

__all__: list[str] = []

_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
"""Places of torch's gates among ONNX's: i o f c became i f g o, z r h became r z n."""

_ACTIVATIONS = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}


@register("LSTM", "GRU", "RNN")
def _recurrent(view: NodeView) -> Kernel:
    kind = view.node.op_type
    order = _GATES[kind]
    direction = view.get_string("direction", "forward")
    directions = 2 if direction == "bidirectional" else 1
    given = view.node.attributes.get("activations")
    names = tuple(name.lower() for name in given.as_strings()) if given is not None else _ACTIVATIONS[kind] * directions
    plain = "clip" not in view.node.attributes and not view.get_int("input_forget", 0)
    if names != _ACTIVATIONS[kind] * directions or not plain or any(view.has(index) for index in (4, 7)):
        raise view.unsupported("with its own activations, clip, peepholes, input_forget or lengths of sequences")
    if kind == "GRU" and not view.get_int("linear_before_reset", 0):
        raise view.unsupported("with linear_before_reset=0")
    batch_first = bool(view.get_int("layout", 0))
    reverse = direction == "reverse"
    function = cast(
        "Callable[..., tuple[Tensor, ...]]", {"LSTM": torch.lstm, "GRU": torch.gru, "RNN": torch.rnn_tanh}[kind]
    )

    def torch_order(weight: Tensor) -> Tensor:
        return torch.cat([weight.chunk(len(order))[place] for place in order])

    def run(
        x: Tensor,
        w: Tensor,
        r: Tensor,
        b: Tensor | None = None,
        _: Tensor | None = None,
        first: Tensor | None = None,
        cell: Tensor | None = None,
        *__: Tensor | None,
    ) -> tuple[Tensor, ...]:
        x = x.transpose(0, 1) if batch_first else x
        x = x.flip(0) if reverse else x
        hidden = r.shape[2]
        weights: list[Tensor] = []
        for index in range(directions):
            weights += [torch_order(w[index]), torch_order(r[index])]
            if b is not None:
                weights += [torch_order(part) for part in b[index].chunk(2)]
        states = [
            x.new_zeros(directions, x.shape[1], hidden)
            if state is None
            else (state.transpose(0, 1) if batch_first else state).contiguous()
            for state in ((first, cell) if kind == "LSTM" else (first,))
        ]
        found = function(
            x, states if kind == "LSTM" else states[0], weights, b is not None, 1, 0.0, False, directions == 2, False
        )
        steps, last = found[0], found[1:]
        steps = steps.flip(0) if reverse else steps
        steps = steps.reshape(*steps.shape[:2], directions, hidden)  # (time, batch, direction, hidden)
        if batch_first:
            return (steps.transpose(0, 1), *(state.transpose(0, 1) for state in last))
        return (steps.transpose(1, 2), *last)

    return run
