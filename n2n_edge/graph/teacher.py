"""The teacher: a normalised graph, its layers and channel groups, and `build()`, which makes candidates of it."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.foreign import foreign_file
from n2n_edge.graph.architecture import Architecture, Vocabulary
from n2n_edge.graph.branches import Branch, find_branches
from n2n_edge.graph.costs import counted, node_costs
from n2n_edge.graph.groups import (
    ChannelGroup,
    Touchable,
    find_groups,
    find_touchable,
    importance_order,
    unit_importance,
)
from n2n_edge.graph.input_shape import recorded_shape
from n2n_edge.graph.labels import Labels
from n2n_edge.graph.layers import Layer, find_layers
from n2n_edge.graph.load import load_model
from n2n_edge.graph.merging import Link, find_links, merge_layers
from n2n_edge.graph.normalise import normalise
from n2n_edge.graph.propagate import propagate
from n2n_edge.graph.regions import Region, find_regions
from n2n_edge.graph.remove import RemovalConflictError, remove_layers
from n2n_edge.graph.shape_run import analysing
from n2n_edge.graph.slicing import drop_channels, survivors
from n2n_edge.graph.torch_export import export_module

__all__ = ["BaseGraph", "Teacher", "Touchable", "build", "surviving"]

_BASE_GRAPHS_KEPT = 64


@dataclass(frozen=True)
class BaseGraph:
    """The teacher at full width, some layers gone or merged: what all widths of one stage-1 choice are cut from.

    `groups` are the channel groups that are left, named after the first teacher group in each; `aliases` maps every
    teacher group that lives on to the one it has become part of.
    """

    model: ir.Model
    labels: Labels
    groups: tuple[ChannelGroup, ...]
    aliases: Mapping[str, str]
    importance: NDArray[np.float64]


class Teacher:
    """A trained network to be made smaller.

    >>> teacher = n2n_edge.Teacher.load(example_teacher)
    >>> len(teacher.layers), len(teacher.groups), teacher.layers[0].name
    (16, 10, 'conv1')
    """

    def __init__(self, model: ir.Model, input_shape: tuple[int, ...] | None = None) -> None:
        """Analyse `model`; `input_shape` (without batch) fills free axes of the first input, else what it records.

        Raises:
            InputError: the model is quantized, or ONNX Runtime can't run it.
        """
        self.source = model
        self.model = normalise(model, recorded_shape(model) if input_shape is None else input_shape)
        found = counted(self.model)
        self.amounts = found.amounts
        self.layers: tuple[Layer, ...] = find_layers(self.model, node_costs(found))
        self.labels = propagate(self.model)
        self.groups: tuple[ChannelGroup, ...] = find_groups(self.labels, self.model, self.layers)
        self._scores: Mapping[str, NDArray[np.floating[Any]]] = {}
        self._importance: NDArray[np.float64] | None = None
        self._base_graphs: OrderedDict[tuple[frozenset[str], frozenset[str]], BaseGraph] = OrderedDict()

    @classmethod
    def load(cls, path: Path | str, input_shape: tuple[int, ...] | None = None) -> "Teacher":
        """Load and analyse an ONNX file; raises InputError as `load_model` does."""
        model = load_model(path)
        with foreign_file(path), analysing(model):
            teacher = cls(model, input_shape)
            _ = teacher.full  # what can be merged, and which regions there are, is found with the rest
            return teacher

    @classmethod
    def from_torch(cls, module: object, example_input: object) -> "Teacher":
        """Export and analyse a `torch.nn.Module`; `example_input` is a tensor ``(N, C, H, W)``, its batch left open.

        Raises:
            InputError: torch can't export the module.
            UnsuitableEnvironmentError: torch isn't installed.
        """
        return cls(export_module(module, example_input))

    @cached_property
    def full(self) -> Architecture:
        """Everything kept, every width as it is."""
        return Architecture(
            names=Vocabulary(
                layers=tuple((layer.name, layer.reason) for layer in self.layers),
                groups=tuple((group.name, group.width, group.reason) for group in self.groups),
                regions=tuple(region.name for region in self.regions),
                mergeable=tuple(link.layer for link in self.links),
                branches=tuple(branch.layers for branch in self.branches),
            )
        )

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """The runs of layers whose precision can be chosen, in execution order."""
        return find_regions(self.model, self.layers)

    @cached_property
    def branches(self) -> tuple[Branch, ...]:
        """The residual branches that can be removed as a whole, though not each of their layers alone."""
        return find_branches(self.model, self.layers)

    @cached_property
    def removable(self) -> frozenset[str]:
        """The layers that can be removed, alone or with all others of their residual branch."""
        return self.full.names.removable_of(frozenset(layer.name for layer in self.layers))

    @cached_property
    def links(self) -> tuple[Link, ...]:
        """The layers that can be merged with the one that reads them, in execution order."""
        return find_links(self.model, self.layers)

    @cached_property
    def touchable(self) -> Touchable:
        """What can go and, for the rest, why not."""
        return find_touchable(self.labels, self.layers, self.groups, self.removable)

    def base_graph(self, removed: frozenset[str], linear: frozenset[str] = frozenset()) -> BaseGraph:
        """Return the full-width graph without the layers called `removed`, and with those of `linear` merged.

        It is kept in a small cache.

        Raises:
            ValueError: the removals leave an op with inputs of different widths.
            InputError: the graph can't be analysed, since ONNX Runtime can't run it.
        """
        key = (removed, linear)
        known = self._base_graphs.get(key)
        if known is None:
            made: BaseGraph | RemovalConflictError
            with analysing(self.source):
                try:
                    made = self._make_base_graph(removed, linear)
                except RemovalConflictError as conflict:  # no fault of the model
                    made = conflict
            if isinstance(made, RemovalConflictError):
                raise made
            known = self._base_graphs[key] = made
            while len(self._base_graphs) > _BASE_GRAPHS_KEPT:
                self._base_graphs.popitem(last=False)
        self._base_graphs.move_to_end(key)
        return known

    def scored(self, scores: Mapping[str, NDArray[np.floating[Any]]]) -> "Teacher":
        """Return a teacher that keeps the units with the largest `scores` of weights (see `unit_importance`)."""
        other = copy(self)
        other._scores, other._base_graphs = dict(scores), OrderedDict()
        return other

    def ranked(self, importance: NDArray[np.float64]) -> "Teacher":
        """Return a teacher that keeps the units of most `importance`, by label; where that is NaN, by their weights."""
        other = copy(self)
        other._importance, other._base_graphs = importance, OrderedDict()
        return other

    def lost(self, group: ChannelGroup, widths: Iterable[int]) -> list[float] | None:
        """Return the summed importance of the units that go at each of `widths`; None if a unit has none.

        Of an importance by data (see `ranked`) that is what the layers that read them lose: a rise of the loss.
        """
        if self._importance is None:
            return None
        found = np.sort(self._importance[np.array(group.units)])
        return None if np.isnan(found).any() else [float(found[: group.width - width].sum()) for width in widths]

    def repaired(self, removed: frozenset[str]) -> frozenset[str]:
        """Return `removed` less the layers that can't be removed together with the others, or only with others."""
        while True:
            removed = self.full.names.removable_of(removed)
            try:
                self.base_graph(removed)
                return removed
            except RemovalConflictError as conflict:
                removed = removed - {conflict.layer}

    def architecture(
        self,
        removed: Sequence[str],
        widths: Mapping[str, int],
        int8: Sequence[str] = (),
        linear: Sequence[str] = (),
    ) -> Architecture:
        """Return the architecture of a journal row; raises ValueError for names that this teacher doesn't have."""
        architecture = self.full.remove(*removed).in_int8(*int8).linearise(*linear)
        for group, width in widths.items():
            architecture = architecture.resize(group, width)
        return architecture

    def _make_base_graph(self, removed: frozenset[str], linear: frozenset[str]) -> BaseGraph:
        if not removed and not linear:
            aliases = {group.name: group.name for group in self.groups}
            return BaseGraph(
                self.model, self.labels, self.groups, aliases, self._importance_in(self.model, self.labels)
            )
        model = remove_layers(self.model, self.layers, removed, self.branches) if removed else self.model
        merged: frozenset[str] = frozenset()
        if linear:
            model, merged = merge_layers(model, self.layers, linear)
        labels = propagate(model, seed=self.labels.dims, size=self.labels.count)
        kept = [layer for layer in self.layers if layer.name not in removed]
        groups, aliases = self._named_after_teacher(find_groups(labels, model, kept), labels)
        return BaseGraph(model, labels, groups, aliases, self._importance_in(model, labels, merged))

    def _importance_in(
        self, model: ir.Model, labels: Labels, merged: frozenset[str] = frozenset()
    ) -> NDArray[np.float64]:
        """Return the importance of a graph's units; one that has become of several counts as they do together.

        The weights called `merged` read other channels than the teacher's did.
        """
        by_weights = unit_importance(labels, model, self._scores)
        if self._importance is None:
            return by_weights
        pairs = np.unique(
            np.concatenate(
                [
                    np.stack([row.ravel(), self.labels.dims[key].ravel()])
                    for key, row in labels.dims.items()
                    if key in self.labels.dims and self.labels.dims[key].shape == row.shape
                    if key[0] not in merged or key[1] == 0
                ],
                axis=1,
            ),
            axis=1,
        )
        own, whole = pairs[:, (pairs >= 0).all(axis=0) & ~np.isnan(self._importance[pairs[1]])]
        total = np.bincount(own, weights=self._importance[whole], minlength=labels.count)
        return np.where(np.bincount(own, minlength=labels.count) > 0, total, by_weights)

    def _named_after_teacher(
        self, groups: Sequence[ChannelGroup], labels: Labels
    ) -> tuple[tuple[ChannelGroup, ...], dict[str, str]]:
        home = {unit: index for index, group in enumerate(groups) for unit in group.units}
        names: dict[int, str] = {}
        homes: dict[str, list[int]] = {}
        for group in self.groups:
            roots = labels.find(np.array(group.units)).tolist()
            homes[group.name] = list(dict.fromkeys(home[root] for root in roots if root in home))
            for index in homes[group.name]:
                if index not in names and group.name not in names.values():
                    names[index] = group.name
        own = {name: index for index, name in names.items()}
        aliases = {
            name: names[own.get(name, indices[0])]
            for name, indices in homes.items()
            if indices and own.get(name, indices[0]) in names
        }
        return tuple(replace(groups[index], name=names[index]) for index in sorted(names)), aliases


def build(teacher: Teacher, architecture: Architecture, keep: Mapping[str, Sequence[int]] | None = None) -> ir.Model:
    """Return the candidate that `architecture` describes, with the teacher's weights.

    Each group keeps its most important units (see `unit_importance`) unless `keep` names the unit indices that survive,
    which must be as many as the architecture's width where that is given.

    Raises:
        ValueError: a bad group name or index in `keep`, or removals that don't go together.

    >>> teacher = n2n_edge.Teacher.load(example_teacher)
    >>> smaller = n2n_edge.build(teacher, teacher.full.resize("g3", 24))
    >>> n2n_edge.costs(smaller).params < n2n_edge.costs(teacher.model).params
    True
    """
    base = teacher.base_graph(architecture.removed, architecture.linear)
    return drop_channels(base.model, base.labels, _dropped(base, architecture, keep or {}))


def surviving(teacher: Teacher, architecture: Architecture) -> dict[str, NDArray[np.intp]]:
    """Return, for every value of `build(teacher, architecture)`, which of the base graph's channels (axis 1) it holds.

    A value whose channels are all there is left out.

    Raises:
        ValueError: removals that don't go together.
    """
    base = teacher.base_graph(architecture.removed, architecture.linear)
    alive = np.ones(base.labels.count, bool)
    alive[_dropped(base, architecture, {})] = False
    kept = {}
    for name, array in base.labels.values.items():
        standing = survivors(array, alive).get(1)
        if standing is not None and not standing.all():
            kept[name] = np.flatnonzero(standing)
    return kept


def _dropped(base: BaseGraph, architecture: Architecture, keep: Mapping[str, Sequence[int]]) -> list[int]:
    """Return the units that `architecture` leaves out."""
    widths = _widths(base, architecture)
    chosen = _chosen(base, architecture, keep)
    dropped: list[int] = []
    for group in base.groups:
        if group.name in chosen:
            standing = {group.units[index] for index in chosen[group.name]}
        elif not group.reason and widths.get(group.name, group.width) < group.width:
            order = importance_order(group, base.importance)[: widths[group.name]]
            standing = set(np.array(group.units)[order].tolist())
        else:
            continue
        dropped += [unit for unit in group.units if unit not in standing]
    return dropped


def _widths(base: BaseGraph, architecture: Architecture) -> dict[str, int]:
    """Return the width of each group of the base graph; of groups that have become one, the narrowest counts."""
    widths: dict[str, int] = {}
    for name, width in architecture.widths:
        target = base.aliases.get(name)
        if target is not None:
            widths[target] = min(width, widths.get(target, width))
    return widths


def _chosen(
    base: BaseGraph, architecture: Architecture, keep: Mapping[str, Sequence[int]]
) -> dict[str, tuple[int, ...]]:
    groups = {group.name: group for group in base.groups}
    chosen = {}
    for name, indices in keep.items():
        group = groups.get(base.aliases.get(name, name))
        if group is None:
            raise ValueError(f"no channel group is called {name!r}; groups: {', '.join(groups)}")
        if group.reason and len(set(indices)) != group.width:
            raise ValueError(f"group {name!r} can't be resized: {group.reason}")
        bad = [index for index in indices if not 0 <= index < group.width]
        if bad or not indices or len(set(indices)) != len(indices):
            raise ValueError(
                f"keep[{name!r}] must name distinct units within 0..{group.width - 1}, got {list(indices)}"
            )
        wanted = dict(architecture.widths).get(name)
        if wanted is not None and wanted != len(indices):
            raise ValueError(f"keep[{name!r}] names {len(indices)} units, but the architecture's width is {wanted}")
        chosen[group.name] = tuple(indices)
    return chosen
