"""Search space of the two stages: the decisions, the state of each step, and what the actions mean."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from n2n_edge.devices.profile import Profile
from n2n_edge.graph.groups import ChannelGroup
from n2n_edge.graph.teacher import Teacher
from n2n_edge.latency.model import LatencyModel
from n2n_edge.search.branches import free_branches
from n2n_edge.search.merging import PricedMerge
from n2n_edge.search.precision import Base, CandidatePrecision, Depth
from n2n_edge.search.trial import Actions, StageName

__all__ = ["FEATURES", "WIDTH_RATIOS", "Cuts", "DecisionProblem", "RemovalStage", "ShrinkageStage", "Stage"]

WIDTH_RATIOS = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
"""Width ratios among which stage 2 picks for every channel group."""


class Cuts(NamedTuple):
    """Layers to remove, width ratios by group before the budgets scale them, regions in int8, layers to merge."""

    removed: frozenset[str]
    ratios: Mapping[str, float]
    int8: frozenset[str] = frozenset()
    linear: frozenset[str] = frozenset()

    @property
    def base(self) -> Base:
        """All but the widths."""
        return Base(self.removed, self.int8, self.linear)


_IN_INT8 = len(WIDTH_RATIOS) - 2
"""The action of stage 2 that puts a region into int8; the one after it leaves it in float."""

_KEEP_LOG_ODDS = 1.4  # a fresh policy keeps four layers of five

_Vector = npt.NDArray[np.float32]


class _State(NamedTuple):
    """State of a step, normalised; its fields are the same for every network and both stages.

    Shares are square roots of shares of the teacher's, which spreads the many small ones. The last five say what share
    of the teacher's cost the budgets leave, one where there is no budget.
    """

    conv: float = 0.0
    depthwise: float = 0.0
    dense: float = 0.0
    transposed: float = 0.0
    kernel_height: float = 0.0
    kernel_width: float = 0.0
    stride: float = 0.0
    padding: float = 0.0
    groups: float = 0.0
    in_channels: float = 0.0
    width: float = 0.0
    skip_start: float = 0.0
    skip_end: float = 0.0
    params_share: float = 0.0
    macs_share: float = 0.0
    latency_share: float = 0.0
    position: float = 0.0
    layers: float = 0.0
    params_left: float = 0.0
    size_mb_left: float = 0.0
    macs_left: float = 0.0
    memory_bound_mb_left: float = 0.0
    latency_ms_left: float = 0.0

    def vector(self) -> _Vector:
        """Return the state as networks read it."""
        return np.array(self, np.float32)


FEATURES = len(_State._fields)
"""Length of a step's state."""


@dataclass(frozen=True, eq=False)
class DecisionProblem:
    """The decisions of one search stage over L steps with F features and at most A actions per step.

    Actions of a step are ordered by how much of the layer they keep (in either direction), so that neighbouring
    actions are neighbouring widths. F and A are the same for every network: that is what lets a policy trained on one
    network be continued on another.

    Raises ValueError where the parts contradict each other.
    """

    features: npt.NDArray[np.float32]
    """(L, F), normalised state of each step."""
    choices: tuple[int, ...]
    """Number of allowed actions of each step; equal to the row sums of `mask`."""
    actions: int
    """A, the size of the action set that all steps share."""
    mask: npt.NDArray[np.bool_]
    """(L, A), true where an action is allowed."""
    default: Actions
    """The action of each step that leaves the network as it is: keep, or full width."""
    kind: StageName
    bias: npt.NDArray[np.float32] | None = None
    """(L, A), optional log-prior on actions that a learning policy starts from."""

    def __post_init__(self) -> None:
        steps = len(self.default)
        if not steps:
            raise ValueError("a problem without steps has nothing to decide")
        if self.features.ndim != 2 or self.features.shape[0] != steps:
            raise ValueError(f"features have shape {self.features.shape}; expected ({steps}, F)")
        if not np.isfinite(self.features).all():
            raise ValueError("features hold values that are not finite")
        if self.mask.shape != (steps, self.actions):
            raise ValueError(f"mask has shape {self.mask.shape}; expected ({steps}, {self.actions})")
        if self.choices != tuple(int(n) for n in self.mask.sum(axis=1)):
            raise ValueError("choices differ from the number of allowed actions in mask")
        if self.bias is not None and self.bias.shape != self.mask.shape:
            raise ValueError(f"bias has shape {self.bias.shape}; expected {self.mask.shape}")
        if self.bias is not None and not np.isfinite(self.bias[self.mask]).all():
            raise ValueError("bias holds values that are not finite for allowed actions")
        for step, action in enumerate(self.default):
            if not (0 <= action < self.actions and self.mask[step, action]):
                raise ValueError(f"default action {action} of step {step} is not allowed")

    @property
    def steps(self) -> int:
        """L, the number of decisions of one candidate."""
        return len(self.default)

    def size(self) -> float:
        """Return the number of distinct candidates (a float: it overflows any machine integer quickly)."""
        return float(np.prod(np.asarray(self.choices, dtype=np.float64)))

    def by_change(self, step: int) -> tuple[int, ...]:
        """Return the allowed actions of `step`, from the one that changes nothing to the one that changes most."""
        allowed = np.flatnonzero(self.mask[step])
        return tuple(int(action) for action in sorted(allowed, key=lambda action: abs(action - self.default[step])))

    def check(self, actions: Actions) -> None:
        """Raise ValueError if `actions` has the wrong length or one that is not allowed."""
        if len(actions) != self.steps:
            raise ValueError(f"{len(actions)} actions were given to a problem of {self.steps} steps")
        for step, action in enumerate(actions):
            if not (0 <= action < self.actions and self.mask[step, action]):
                raise ValueError(f"action {action} is not allowed at step {step}")


class RemovalStage:
    """Stage 1: keep or remove each removable layer; make or leave each merge; then int8 or not for each open region.

    A residual branch that can go as a whole alone is kept or removed by the step of one of its layers.
    """

    name: StageName = "removal"
    depth = Depth()
    removed: frozenset[str] = frozenset()

    def __init__(
        self,
        teacher: Teacher,
        profile: Profile,
        headroom: Mapping[str, float],
        precision: CandidatePrecision | None = None,
        merges: Sequence[PricedMerge] = (),
    ) -> None:
        """`headroom` gives, by cost, what share of the teacher's the budgets leave; `merges` share no layer."""
        self.teacher = teacher
        self.merges = tuple(merges)
        self.regions = _Regions(teacher, precision)
        states = _layer_states(teacher, profile, headroom)
        self._layers = tuple(layer.name for layer in teacher.layers)
        layers = len(self._layers)
        self.merge_steps = tuple(range(layers, layers + len(self.merges)))
        """The steps that make or leave a merge, in the order of `merges`."""
        steps = layers + len(self.merges) + len(self.regions.names)
        mask = np.ones((steps, 2), bool)
        self._whole = _steps_of_branches(teacher)
        mask[:layers, 0] = [layer.removable or step in self._whole for step, layer in enumerate(teacher.layers)]
        bias = np.zeros((steps, 2), np.float32)
        bias[: layers + len(self.merges), 1] = _KEEP_LOG_ODDS
        merging = [_merge_state([states[name] for name in each.merge.layers], each.saved) for each in self.merges]
        self.problem = DecisionProblem(
            features=np.stack(
                [*(states[name].vector() for name in self._layers), *merging, *self.regions.states(states)]
            ),
            choices=tuple(int(n) for n in mask.sum(axis=1)),
            actions=2,
            mask=mask,
            default=(1,) * steps,
            kind="removal",
            bias=bias,
        )

    @cached_property
    def branches(self) -> tuple[tuple[int, ...], ...]:
        """The steps of removable layers, those together that lie on one residual branch; others alone.

        Of a branch that can go as a whole alone it is the one step that takes it out.
        """
        steps = {name: step for step, name in enumerate(self._layers)}
        free = (tuple(steps[name] for name in branch) for branch in free_branches(self.teacher))
        return (*free, *((step,) for step in self._whole))

    def layers_of(self, steps: Iterable[int]) -> tuple[str, ...]:
        """Return the layers that the cut of `steps` takes out."""
        names = (self._whole.get(step, (self._layers[step],)) for step in steps)
        return tuple(dict.fromkeys(chain.from_iterable(names)))

    def without(self, steps: Iterable[int], int8: Collection[str] = ()) -> Actions:
        """Return the actions that take the cut of `steps` (layers, merges) alone, the open ones of `int8` in that."""
        actions = list(self.problem.default)
        for step in steps:
            actions[step] = 0
        return self.regions.with_int8(actions, int8, 0)

    def cuts(self, actions: Actions) -> Cuts:
        """Return the layers that `actions` take out, less those that can't go together; all groups shrink alike.

        A merge is made where all its layers stay.
        """
        chosen = [step for step, action in enumerate(actions[: len(self._layers)]) if action == 0]
        removed = self.teacher.repaired(frozenset(self.layers_of(chosen)))
        made = [
            priced.merge
            for step, priced in zip(self.merge_steps, self.merges, strict=True)
            if actions[step] == 0 and removed.isdisjoint(priced.merge.layers)
        ]
        linear = frozenset(name for merge in made for name in merge.linear)
        return Cuts(removed, {}, self.regions.int8(actions, 0), linear)


class ShrinkageStage:
    """Stage 2: a width ratio for each channel group that the chosen layers leave; then regions as in stage 1."""

    name: StageName = "shrinkage"

    def __init__(
        self,
        teacher: Teacher,
        profile: Profile,
        headroom: Mapping[str, float],
        removed: frozenset[str],
        precision: CandidatePrecision | None = None,
        linear: frozenset[str] = frozenset(),
    ) -> None:
        """Decide on the groups that are left without the layers `removed`, those of `linear` merged.

        `headroom` as in `RemovalStage`. Raises ValueError where no group is left that could shrink.
        """
        self.depth = Depth(removed, linear)
        self.removed = removed
        self.groups = tuple(group for group in teacher.base_graph(*self.depth).groups if group.shrinkable)
        if not self.groups:
            raise ValueError("no channel group is left that could shrink")
        self.regions = _Regions(teacher, precision)
        states = _layer_states(teacher, profile, headroom)
        actions = len(WIDTH_RATIOS)
        groups = len(self.groups)
        steps = groups + len(self.regions.names)
        features = [_group_state(group, states, index / max(1, groups - 1)) for index, group in enumerate(self.groups)]
        mask = np.ones((steps, actions), bool)
        mask[groups:, :_IN_INT8] = False
        self.problem = DecisionProblem(
            features=np.stack([*features, *self.regions.states(states)]),
            choices=tuple(int(n) for n in mask.sum(axis=1)),
            actions=actions,
            mask=mask,
            default=(actions - 1,) * steps,
            kind="shrinkage",
        )

    def cuts(self, actions: Actions) -> Cuts:
        """Return the width ratio that `actions` pick for each group."""
        ratios = {group.name: WIDTH_RATIOS[action] for group, action in zip(self.groups, actions, strict=False)}
        return Cuts(self.depth.removed, ratios, self.regions.int8(actions, _IN_INT8), self.depth.linear)

    def nearest(self, ratios: Mapping[str, float], int8: Collection[str] = ()) -> Actions:
        """Return the actions whose ratios are nearest to those given (by group), in proportion to the largest."""
        wanted = np.array([ratios.get(group.name, 1.0) for group in self.groups])
        wanted = np.maximum(wanted / wanted.max(), WIDTH_RATIOS[0])
        distances = np.abs(np.log(wanted)[:, None] - np.log(WIDTH_RATIOS))
        chosen = [int(action) for action in distances.argmin(axis=1)]
        return self.regions.with_int8([*chosen, *self.problem.default[len(chosen) :]], int8, _IN_INT8)


class _Regions:
    """The last steps of a stage: whether each region whose precision is open is in int8."""

    def __init__(self, teacher: Teacher, precision: CandidatePrecision | None) -> None:
        self.names: tuple[str, ...] = () if precision is None else precision.open
        self._always: frozenset[str] = frozenset() if precision is None else precision.always
        self._layers = {region.name: region.layers for region in teacher.regions}

    def states(self, states: Mapping[str, _State]) -> list[_Vector]:
        """Return the state of each region's step."""
        last = max(1, len(self.names) - 1)
        members = [[states[layer] for layer in self._layers[name]] for name in self.names]
        return [_region_state(each, index / last) for index, each in enumerate(members)]

    def int8(self, actions: Actions, in_int8: int) -> frozenset[str]:
        """Return the regions that `actions` put into int8, by the action `in_int8`, and those that always are."""
        own = actions[len(actions) - len(self.names) :]
        return self._always.union(name for name, action in zip(self.names, own, strict=True) if action == in_int8)

    def with_int8(self, actions: Sequence[int], int8: Collection[str], in_int8: int) -> Actions:
        """Return `actions` with the action `in_int8` for those regions of `int8` that are open."""
        start = len(actions) - len(self.names)
        own = [in_int8 if name in int8 else actions[start + i] for i, name in enumerate(self.names)]
        return (*actions[:start], *own)


def _steps_of_branches(teacher: Teacher) -> Mapping[int, tuple[str, ...]]:
    """Return which step of stage 1 takes out which branch as a whole: that of a layer that can't go alone."""
    found: dict[int, tuple[str, ...]] = {}
    for branch in teacher.branches:
        own = [step for step, layer in enumerate(teacher.layers) if layer.name in branch.layers and layer.reason]
        free = next((step for step in own if step not in found), None)
        if free is not None:
            found[free] = branch.layers
    return found


Stage = RemovalStage | ShrinkageStage


def _layer_states(teacher: Teacher, profile: Profile, headroom: Mapping[str, float]) -> dict[str, _State]:
    """Return the state of every layer."""
    latencies = LatencyModel(profile).node_ms(teacher.model)
    spent = [sum(latencies.get(node, 0.0) for node in layer.nodes) for layer in teacher.layers]
    params = sum(layer.params for layer in teacher.layers) or 1
    macs = sum(layer.macs for layer in teacher.layers) or 1
    latency = sum(spent) or 1.0
    last = max(1, len(teacher.layers) - 1)
    states = {}
    for index, (layer, time) in enumerate(zip(teacher.layers, spent, strict=True)):
        depthwise = layer.groups > 1 and layer.groups == layer.in_channels
        states[layer.name] = _State(
            conv=layer.op_type == "Conv" and not depthwise,
            depthwise=depthwise,
            dense=layer.op_type in ("Gemm", "MatMul"),
            transposed=layer.op_type == "ConvTranspose",
            kernel_height=layer.kernel[0] / 7,
            kernel_width=layer.kernel[1] / 7,
            stride=layer.stride[0] - 1,
            padding=layer.padding[0] / 3,
            groups=np.log2(layer.groups) / 10,
            in_channels=np.log2(layer.in_channels) / 10,
            width=np.log2(layer.out_channels) / 10,
            skip_start=layer.skip_start,
            skip_end=layer.skip_end,
            params_share=np.sqrt(layer.params / params),
            macs_share=np.sqrt(layer.macs / macs),
            latency_share=np.sqrt(time / latency),
            position=index / last,
            layers=1.0,
            params_left=min(headroom.get("params", 1.0), 1.0),
            size_mb_left=min(headroom.get("size_mb", 1.0), 1.0),
            macs_left=min(headroom.get("macs", 1.0), 1.0),
            memory_bound_mb_left=min(headroom.get("memory_bound_mb", 1.0), 1.0),
            latency_ms_left=min(headroom.get("latency_ms", 1.0), 1.0),
        )
    return states


def _group_state(group: ChannelGroup, states: Mapping[str, _State], position: float) -> _Vector:
    """Return a group's state: the mean of its layers' states, their shares summed, and its own width and position."""
    rows = np.array([states[name].vector() for name in group.layers if name in states], np.float32)
    mean, total = _State(), _State()
    if len(rows):
        mean, total = _State(*rows.mean(axis=0)), _State(*np.sqrt(np.square(rows).sum(axis=0)))
    return mean._replace(
        width=np.log2(group.width) / 10,
        params_share=total.params_share,
        macs_share=total.macs_share,
        latency_share=total.latency_share,
        position=position,
        layers=len(group.layers) / 10,
    ).vector()


def _merge_state(layers: Sequence[_State], saved: float) -> _Vector:
    """Return the state of a merge: the mean of its layers', what it saves of the latency, their number negative."""
    rows = np.array([state.vector() for state in layers], np.float32)
    mean, total = _State(*rows.mean(axis=0)), _State(*np.sqrt(np.square(rows).sum(axis=0)))
    return mean._replace(
        params_share=total.params_share,
        macs_share=total.macs_share,
        latency_share=np.sqrt(saved),
        layers=-len(layers) / 10,
    ).vector()


def _region_state(layers: Sequence[_State], position: float) -> _Vector:
    """Return a region's state: that of a group of its layers, its kinds of layers negative, which tells it from one."""
    rows = np.array([state.vector() for state in layers], np.float32)
    mean, total = _State(*rows.mean(axis=0)), _State(*np.sqrt(np.square(rows).sum(axis=0)))
    return mean._replace(
        conv=-mean.conv,
        depthwise=-mean.depthwise,
        dense=-mean.dense,
        transposed=-mean.transposed,
        params_share=total.params_share,
        macs_share=total.macs_share,
        latency_share=total.latency_share,
        position=position,
        layers=len(layers) / 10,
    ).vector()
