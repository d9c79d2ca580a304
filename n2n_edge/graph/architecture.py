"""Architecture of a candidate, a value: which layers stay or merge, how wide channel groups are, what is in int8."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

__all__ = ["Architecture"]


@dataclass(frozen=True)
class Architecture:
    """Which of a teacher's layers are kept and the width of its channel groups; every change gives a new value.

    `removed`, `widths`, `int8` (the regions that are calculated in 8-bit integers) and `linear` (the layers whose
    activation becomes the identity, so that they merge with the layer that reads them) hold only what differs from the
    teacher, so equal architectures compare equal. `names` is
    the teacher's vocabulary and takes no part in comparison: it is what lets a wrong name be refused at once.

    >>> teacher = n2n_edge.Teacher.load(example_teacher)
    >>> sorted(teacher.full.remove("layers.0.1.conv1").removed)
    ['layers.0.1.conv1']
    """

    removed: frozenset[str] = frozenset()
    widths: tuple[tuple[str, int], ...] = ()
    names: "Vocabulary" = field(default_factory=lambda: Vocabulary(), compare=False, repr=False)
    int8: frozenset[str] = frozenset()
    linear: frozenset[str] = frozenset()

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the layers that stay, in order."""
        return tuple(name for name, _ in self.names.layers if name not in self.removed)

    def width(self, group: str) -> int:
        """Return the width of `group`."""
        full = self.names.full_width(group)
        return dict(self.widths).get(group, full)

    def remove(self, *layers: str) -> "Architecture":
        """Return the architecture without `layers`.

        Raises:
            ValueError: a name that the teacher doesn't have, or a layer that can't be removed (with the reason), some
                but with all others of their residual branch.
        """
        reasons = dict(self.names.layers)
        removed = self.removed | set(layers)
        free = self.names.removable_of(removed)
        for layer in layers:
            if layer not in reasons:
                raise ValueError(f"no layer is called {layer!r}; layers: {_some(reasons)}")
            if layer not in free:
                branch = next((each for each in self.names.branches if layer in each), ())
                together = f"; it goes with all of its branch ({_some(branch)})" if branch else ""
                raise ValueError(f"layer {layer!r} can't be removed: it {reasons[layer]}{together}")
        return replace(self, removed=removed)

    def resize(self, group: str, width: int | np.integer[Any]) -> "Architecture":
        """Return the architecture with `width` units in `group`.

        Raises:
            ValueError: a name that the teacher doesn't have, a group that can't shrink, or a width outside 1..full.
        """
        full = self.names.full_width(group)
        if not isinstance(width, int | np.integer) or isinstance(width, bool) or not 1 <= width <= full:
            raise ValueError(f"width {width!r} of group {group!r} is not within 1..{full}")
        reason = {name: why for name, _, why in self.names.groups}[group]
        if reason and width != full:
            raise ValueError(f"group {group!r} can't be resized: {reason}")
        widths = {**dict(self.widths), group: int(width)}
        if width == full:
            del widths[group]
        order = {name: index for index, (name, _, _) in enumerate(self.names.groups)}
        return replace(self, widths=tuple(sorted(widths.items(), key=lambda item: order[item[0]])))

    def in_int8(self, *regions: str) -> "Architecture":
        """Return the architecture with `regions` (and no others) in 8-bit integers.

        Raises:
            ValueError: a region that the teacher doesn't have.
        """
        for region in regions:
            if region not in self.names.regions:
                raise ValueError(f"no region is called {region!r}; regions: {_some(self.names.regions)}")
        return replace(self, int8=frozenset(regions))

    def linearise(self, *layers: str) -> "Architecture":
        """Return the architecture in which the activation of `layers` (and no others) is the identity.

        Each then is one convolution with the layer that reads it; one whose reader is removed stays as it was.

        Raises:
            ValueError: a layer that the teacher doesn't have, or that can't be merged with what reads it.
        """
        for layer in layers:
            if layer not in self.names.mergeable:
                known = any(name == layer for name, _ in self.names.layers)
                said = "can't be merged with what reads it" if known else "isn't in the network"
                raise ValueError(f"layer {layer!r} {said}; those that can be merged: {_some(self.names.mergeable)}")
        return replace(self, linear=frozenset(layers))

    @property
    def key(self) -> str:
        """Short stable identity: journal rows and caches are keyed by it."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, object]:
        """Return ``{"removed": [...], "widths": {...}}``, with ``int8`` and ``linear`` where there are any."""
        places = {name: index for index, (name, _) in enumerate(self.names.layers)}

        def place(name: str) -> tuple[int, str]:
            return places.get(name, len(places)), name  # one that isn't known still has its place: sets have no order

        removed = sorted(self.removed, key=place)
        described: dict[str, object] = {"removed": removed, "widths": dict(self.widths)}
        if self.int8:
            described["int8"] = [name for name in self.names.regions if name in self.int8]
        if self.linear:
            described["linear"] = sorted(self.linear, key=place)
        return described


@dataclass(frozen=True)
class Vocabulary:
    """The names that an architecture of one teacher may use: (layer, why not removable), (group, width, why fixed).

    `regions` are those whose precision can be chosen, `mergeable` the layers that can be merged with what reads them,
    `branches` those that can be removed together, though some of them not alone.
    """

    layers: tuple[tuple[str, str], ...] = ()
    groups: tuple[tuple[str, int, str], ...] = ()
    regions: tuple[str, ...] = ()
    mergeable: tuple[str, ...] = ()
    branches: tuple[tuple[str, ...], ...] = ()

    def removable_of(self, removed: frozenset[str]) -> frozenset[str]:
        """Return which of the layers `removed` can go: those that can alone, and branches of which all are there."""
        alone = (name for name, reason in self.layers if not reason)
        whole = (branch for branch in self.branches if removed.issuperset(branch))
        return removed.intersection({*alone}.union(*whole))

    def full_width(self, group: str) -> int:
        """Return the teacher's width of `group`, refusing unknown names with ValueError."""
        for name, width, _ in self.groups:
            if name == group:
                return width
        raise ValueError(f"no channel group is called {group!r}; groups: {_some(n for n, _, _ in self.groups)}")


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:8]) + (f", ... ({len(listed)} in all)" if len(listed) > 8 else "")
