"""The two stages as decision problems: what a policy sees of each step, and what its actions mean."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from n2n_edge.devices.profile import Profile
from n2n_edge.graph.groups import ChannelGroup
from n2n_edge.graph.layers import Layer
from n2n_edge.graph.teacher import Teacher
from n2n_edge.latency.prediction import predict_node_latencies
from n2n_edge.search.problem import DecisionProblem, Proposal

__all__ = ["FEATURES", "HEADROOM", "WIDTH_RATIOS", "Design", "RemovalStage", "ShrinkageStage"]

HEADROOM = ("params", "size_mb", "macs", "memory_bound_mb", "latency_ms")
"""Costs of which the state says what share of the teacher's the budgets leave, one where there is no budget."""

WIDTH_RATIOS = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
"""Width ratios among which stage 2 picks for every channel group."""

FEATURES = 18 + len(HEADROOM)
"""Length of a step's state; equal for every network and both stages, so that policies transfer."""

_KEEP_LOG_ODDS = 1.4  # a fresh policy keeps four layers of five

_Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Design:
    """What a proposal asks for: layers to remove, and width ratios by group before the budgets scale them."""

    removed: frozenset[str]
    ratios: Mapping[str, float]


class RemovalStage:
    """Stage 1: keep or remove each removable layer."""

    name = "removal"

    def __init__(self, teacher: Teacher, profile: Profile, headroom: Mapping[str, float]) -> None:
        """`headroom` gives, by cost, what share of the teacher's the budgets leave (see `HEADROOM`)."""
        self.teacher = teacher
        states = _layer_states(teacher, profile, headroom)
        self._layers = tuple(layer.name for layer in teacher.layers)
        steps = len(self._layers)
        mask = np.ones((steps, 2), bool)
        mask[:, 0] = [layer.removable for layer in teacher.layers]
        bias = np.zeros((steps, 2), np.float32)
        bias[:, 1] = _KEEP_LOG_ODDS
        self.problem = DecisionProblem(
            features=np.stack([states[name] for name in self._layers]),
            choices=tuple(int(n) for n in mask.sum(axis=1)),
            actions=2,
            mask=mask,
            default=(1,) * steps,
            kind="removal",
            bias=bias,
        )

    @cached_property
    def branches(self) -> tuple[tuple[int, ...], ...]:
        """The steps of removable layers, those together that lie on one residual branch; others alone."""
        found: list[tuple[int, ...]] = []
        run: list[int] = []
        for step, layer in enumerate(self.teacher.layers):
            if layer.skip_start or not layer.removable:
                found += [(one,) for one in run]
                run = []
            if layer.removable and (layer.skip_start or run):
                run.append(step)
                if layer.skip_end:
                    found.append(tuple(run))
                    run = []
            elif layer.removable:
                found.append((step,))
        return (*found, *((one,) for one in run))

    def without(self, steps: Iterable[int]) -> Proposal:
        """Return the proposal that removes the layers of `steps` and no other."""
        actions = list(self.problem.default)
        for step in steps:
            actions[step] = 0
        return tuple(actions)

    def removed(self, proposal: Proposal) -> frozenset[str]:
        """Return the layers that `proposal` takes out, less those that can't go together."""
        chosen = frozenset(name for name, action in zip(self._layers, proposal, strict=True) if action == 0)
        return self.teacher.repaired(chosen)

    def design(self, proposal: Proposal) -> Design:
        """Return what `proposal` asks for, all groups shrunk alike."""
        return Design(self.removed(proposal), {})


class ShrinkageStage:
    """Stage 2: a width ratio for each channel group that the chosen layers leave."""

    name = "shrinkage"

    def __init__(
        self, teacher: Teacher, profile: Profile, headroom: Mapping[str, float], removed: frozenset[str]
    ) -> None:
        """Decide on the groups that are left without the layers `removed`; `headroom` as in `RemovalStage`.

        Raises ValueError where no group is left that could shrink.
        """
        self.removed = removed
        self.groups = tuple(group for group in teacher.base_graph(removed).groups if group.shrinkable)
        if not self.groups:
            raise ValueError("no channel group is left that could shrink")
        states = _layer_states(teacher, profile, headroom)
        actions = len(WIDTH_RATIOS)
        steps = len(self.groups)
        features = [_group_state(group, states, index / max(1, steps - 1)) for index, group in enumerate(self.groups)]
        self.problem = DecisionProblem(
            features=np.stack(features),
            choices=(actions,) * steps,
            actions=actions,
            mask=np.ones((steps, actions), bool),
            default=(actions - 1,) * steps,
            kind="shrinkage",
        )

    def ratios(self, proposal: Proposal) -> Mapping[str, float]:
        """Return the width ratio of each group that `proposal` picks."""
        return {group.name: WIDTH_RATIOS[action] for group, action in zip(self.groups, proposal, strict=True)}

    def design(self, proposal: Proposal) -> Design:
        """Return what `proposal` asks for."""
        return Design(self.removed, self.ratios(proposal))

    def nearest(self, ratios: Mapping[str, float]) -> Proposal:
        """Return the proposal whose ratios are nearest to those given (by group), in proportion to the largest."""
        wanted = np.array([ratios.get(group.name, 1.0) for group in self.groups])
        wanted = np.maximum(wanted / wanted.max(), WIDTH_RATIOS[0])
        distances = np.abs(np.log(wanted)[:, None] - np.log(WIDTH_RATIOS))
        return tuple(int(action) for action in distances.argmin(axis=1))


def _layer_states(teacher: Teacher, profile: Profile, headroom: Mapping[str, float]) -> dict[str, _Vector]:
    """Return the state of every layer: type and form, skips, shares of the teacher's costs, place; and the headroom."""
    latencies = {item.name: item.latency_ms for item in predict_node_latencies(teacher.model, profile)}
    spent = [sum(latencies.get(node, 0.0) for node in layer.nodes) for layer in teacher.layers]
    total = {
        "params": sum(layer.params for layer in teacher.layers) or 1,
        "macs": sum(layer.macs for layer in teacher.layers) or 1,
        "latency": sum(spent) or 1.0,
    }
    last = max(1, len(teacher.layers) - 1)
    return {
        layer.name: np.array(
            [
                *_kind(layer),
                layer.kernel[0] / 7,
                layer.kernel[1] / 7,
                layer.stride[0] - 1,
                layer.padding[0] / 3,
                np.log2(layer.groups) / 10,
                np.log2(layer.in_channels) / 10,
                np.log2(layer.out_channels) / 10,
                layer.skip_start,
                layer.skip_end,
                # square roots spread the many small shares
                np.sqrt(layer.params / total["params"]),
                np.sqrt(layer.macs / total["macs"]),
                np.sqrt(time / total["latency"]),
                index / last,
                1.0,
                *(min(headroom.get(cost, 1.0), 1.0) for cost in HEADROOM),
            ],
            np.float32,
        )
        for index, (layer, time) in enumerate(zip(teacher.layers, spent, strict=True))
    }


def _kind(layer: Layer) -> tuple[float, float, float, float]:
    depthwise = layer.groups > 1 and layer.groups == layer.in_channels
    return (
        float(layer.op_type == "Conv" and not depthwise),
        float(depthwise),
        float(layer.op_type in ("Gemm", "MatMul")),
        float(layer.op_type == "ConvTranspose"),
    )


def _group_state(group: ChannelGroup, states: Mapping[str, _Vector], place: float) -> _Vector:
    """Return a group's state: the mean of its layers' states, their shares summed, and its own width and place."""
    rows = [states[name] for name in group.layers if name in states]
    state = np.mean(rows, axis=0) if rows else np.zeros(FEATURES, np.float32)
    if rows:
        state[13:16] = np.sqrt(np.sum(np.square(np.stack(rows)[:, 13:16]), axis=0))
    state[10] = np.log2(group.width) / 10
    state[16] = place
    state[17] = len(group.layers) / 10
    result: _Vector = state.astype(np.float32)
    return result
