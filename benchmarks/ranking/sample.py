"""The architectures that the ranking is judged on: random ones of ResNet-20 with 30 to 70% of its params."""

import numpy as np

from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.costs import costs
from n2n_edge.graph.teacher import Teacher, build

COUNT = 32
LEAST_SHARE, LARGEST_SHARE = 0.3, 0.7


def architectures(teacher: Teacher, count: int = COUNT, seed: int = 0) -> list[Architecture]:
    """Draw layers to remove at a rate of up to one half, and a width for every group that is left."""
    random = np.random.default_rng(seed)
    removable = [layer.name for layer in teacher.layers if layer.removable]
    total = costs(build(teacher, teacher.full)).params
    found: dict[str, Architecture] = {}
    while len(found) < count:
        rate, centre = random.uniform(0, 0.5), random.uniform(0.4, 1.0)
        removed = teacher.repaired(frozenset(name for name in removable if random.random() < rate))
        architecture = teacher.full.remove(*sorted(removed))
        for group in teacher.base_graph(removed).groups:
            if group.shrinkable:
                ratio = float(np.clip(random.normal(centre, 0.2), 0.25, 1.0))
                architecture = architecture.resize(group.name, max(1, round(ratio * group.width)))
        if LEAST_SHARE <= costs(build(teacher, architecture)).params / total <= LARGEST_SHARE:
            found.setdefault(architecture.key, architecture)
    return list(found.values())
