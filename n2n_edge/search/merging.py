"""Merges that pay on a device: what each saves of its predicted latency, and the disjoint ones that save most."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from n2n_edge.devices.profile import Profile
from n2n_edge.graph.merging import Merge, merges_of, outline_merged
from n2n_edge.graph.teacher import Teacher
from n2n_edge.latency.model import LatencyModel

__all__ = ["PricedMerge", "chosen_merges", "offered_merges", "priced_merges"]

_LEAST_SAVING = 1e-3
"""Share of the teacher's latency that a merge has to save to be offered."""


@dataclass(frozen=True)
class PricedMerge:
    """A merge, and what the teacher's predicted latency falls by when it is made alone, in ms and as a share of it."""

    merge: Merge
    saved_ms: float
    saved: float


def offered_merges(teacher: Teacher, profile: Profile, others: Sequence[Profile] = ()) -> tuple[PricedMerge, ...]:
    """Return the merges that a search decides on, in execution order: disjoint ones that each save on every device.

    Of several devices the first one's savings count.
    """
    saving = [one for one in priced_merges(teacher, profile) if one.saved > _LEAST_SAVING]
    for other in others if saving else ():
        elsewhere = {one.merge: one.saved for one in priced_merges(teacher, other)}
        saving = [one for one in saving if elsewhere[one.merge] > _LEAST_SAVING]
    return chosen_merges(saving)


def priced_merges(teacher: Teacher, profile: Profile) -> tuple[PricedMerge, ...]:
    """Return every possible merge of a teacher's layers with what it saves on a device, below nought where it costs.

    Several are priced in one graph, as long as they share no layer.
    """
    latency = LatencyModel(profile)
    nodes = {layer.name: layer.nodes for layer in teacher.layers}
    found: dict[Merge, float] = {}
    before: dict[str, float] = {}
    for disjoint in _rounds(merges_of(teacher.links)):
        before = before or latency.node_ms(teacher.model)
        linear = {name for merge in disjoint for name in merge.linear}
        after = latency.node_ms(outline_merged(teacher.model, teacher.layers, linear))
        for merge in disjoint:
            members = [node for layer in merge.layers for node in nodes[layer]]
            found[merge] = sum(before.get(node, 0.0) - after.get(node, 0.0) for node in members)
    total = sum(before.values()) or 1.0
    return tuple(PricedMerge(merge, saved, saved / total) for merge, saved in found.items())


def chosen_merges(priced: Iterable[PricedMerge]) -> tuple[PricedMerge, ...]:
    """Return the merges, no two of one layer, that save most in sum.

    Runs of layers are intervals of chains, so the best choice up to a layer is the better of that up to the layer
    before, and of a merge that ends there with that up to its first layer.
    """
    worth = [one for one in priced if one.saved_ms > 0]
    ending: dict[str, list[PricedMerge]] = {}
    following: dict[str, str] = {}
    for one in worth:
        ending.setdefault(one.merge.layers[-1], []).append(one)
        following.update(zip(one.merge.layers, one.merge.layers[1:], strict=False))
    chosen: list[PricedMerge] = []
    for start in [name for name in following if name not in following.values()]:
        chain = [start]
        while chain[-1] in following:
            chain.append(following[chain[-1]])
        best: list[tuple[float, tuple[PricedMerge, ...]]] = [(0.0, ())]  # up to so many layers of the chain
        for place, layer in enumerate(chain, start=1):
            options = [best[-1]]
            for one in ending.get(layer, ()):
                saved, others = best[place - len(one.merge.layers)]
                options.append((saved + one.saved_ms, (*others, one)))
            best.append(max(options, key=lambda option: option[0]))
        chosen += best[-1][1]
    return tuple(chosen)


def _rounds(merges: Iterator[Merge]) -> Sequence[Sequence[Merge]]:
    """Return the merges in as few parts as come easily, those of one part without a layer in common."""
    rounds: list[tuple[list[Merge], set[str]]] = []
    for merge in merges:
        for members, taken in rounds:
            if taken.isdisjoint(merge.layers):
                members.append(merge)
                taken.update(merge.layers)
                break
        else:
            rounds.append(([merge], set(merge.layers)))
    return [members for members, _ in rounds]
