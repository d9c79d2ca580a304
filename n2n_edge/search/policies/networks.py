"""The two policy networks: a bidirectional LSTM for removal, an autoregressive one for shrinkage."""

import math
from typing import Protocol

import torch
from torch import Tensor, nn

__all__ = ["PolicyNetwork", "RemovalNetwork", "ShrinkageNetwork"]

_FREQUENCIES = (1, 2, 4, 8, 16)
_POSITION_FEATURES = 1 + 2 * len(_FREQUENCIES)


class PolicyNetwork(Protocol):
    """A distribution over proposals; `offset` (L, A) is added to its logits, -inf where an action isn't allowed."""

    def logits(self, features: Tensor, offset: Tensor, actions: Tensor) -> Tensor:
        """Return (N, L, A) logits of every step, given the actions (N, L) of the steps before it."""
        ...

    def sample(self, features: Tensor, offset: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Return (N, L) sampled actions for `count` = N candidates."""
        ...


class RemovalNetwork(nn.Module):
    """Reads the whole layer sequence in both directions, then decides on all layers independently.

    The head starts at zero, so the first distribution is the one that `offset` describes.
    """

    def __init__(self, features: int, actions: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features + _POSITION_FEATURES, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.head = _zero_linear(2 * hidden, actions)

    def logits(self, features: Tensor, offset: Tensor, actions: Tensor) -> Tensor:
        """Return (N, L, A) logits; the same for every candidate, since no decision depends on another."""
        hidden, _ = self.lstm(_with_position(features)[None])
        logits: Tensor = self.head(hidden) + offset
        return logits.expand(actions.shape[0], -1, -1)

    def sample(self, features: Tensor, offset: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Return (N, L) sampled actions."""
        hidden, _ = self.lstm(_with_position(features)[None])
        probabilities = torch.softmax(self.head(hidden)[0] + offset, dim=-1)
        return torch.multinomial(probabilities, count, replacement=True, generator=generator).T


class ShrinkageNetwork(nn.Module):
    """Goes over the channel groups in order, each chosen action being an input of the next step."""

    def __init__(self, features: int, actions: int, hidden: int, embedding: int = 8) -> None:
        super().__init__()
        self.start = actions
        self.embed = nn.Embedding(actions + 1, embedding)
        self.lstm = nn.LSTM(features + _POSITION_FEATURES + embedding, hidden, num_layers=2, batch_first=True)
        self.head = _zero_linear(hidden, actions)

    def logits(self, features: Tensor, offset: Tensor, actions: Tensor) -> Tensor:
        """Return (N, L, A) logits of every step, given the actions (N, L) of the steps before it."""
        count = actions.shape[0]
        start = torch.full((count, 1), self.start)
        before = self.embed(torch.cat([start, actions[:, :-1]], dim=1))
        state = _with_position(features).expand(count, -1, -1)
        hidden, _ = self.lstm(torch.cat([state, before], dim=-1))
        logits: Tensor = self.head(hidden) + offset
        return logits

    def sample(self, features: Tensor, offset: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Return (N, L) actions, sampled step by step."""
        state = _with_position(features).expand(count, -1, -1)
        action = torch.full((count,), self.start)
        memory: tuple[Tensor, Tensor] | None = None
        chosen = []
        for step in range(state.shape[1]):
            inputs = torch.cat([state[:, step], self.embed(action)], dim=-1)[:, None]
            hidden, memory = self.lstm(inputs, memory)
            probabilities = torch.softmax(self.head(hidden[:, 0]) + offset[step], dim=-1)
            action = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
            chosen.append(action)
        return torch.stack(chosen, dim=1)


def _with_position(features: Tensor) -> Tensor:
    """Append where in the sequence a step stands, as (L, 1 + 2 K) values that don't depend on the length L."""
    steps = features.shape[0]
    place = torch.arange(steps, dtype=torch.float32)[:, None] / max(steps - 1, 1)
    waves = [f(math.pi * k * place) for k in _FREQUENCIES for f in (torch.sin, torch.cos)]
    return torch.cat([features, place, *waves], dim=1)


def _zero_linear(inputs: int, outputs: int) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
