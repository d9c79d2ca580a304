"""Residual branches: removable layers that go together, what they have of limited costs, and their rises."""

from collections.abc import Iterable, Mapping, Sequence

from n2n_edge.graph.teacher import Teacher

__all__ = ["branch_name", "branches_of", "free_branches", "limited_shares", "spread_rises"]

Branch = tuple[str, ...]


def branches_of(teacher: Teacher) -> tuple[Branch, ...]:
    """Return the `free_branches`, and behind them, as a whole, the branches that hold layers which can't go alone.

    Those of their layers that can stand among the free ones, too.
    """
    return (*free_branches(teacher), *(branch.layers for branch in teacher.branches))


def free_branches(teacher: Teacher) -> tuple[Branch, ...]:
    """Return the layers that can go alone, those together that lie on one residual branch; others by themselves."""
    branches: list[Branch] = []
    run: list[str] = []
    for layer in teacher.layers:
        if layer.skip_start or not layer.removable:
            branches += [(one,) for one in run]
            run = []
        if layer.removable and (layer.skip_start or run):
            run.append(layer.name)
            if layer.skip_end:
                branches.append(tuple(run))
                run = []
        elif layer.removable:
            branches.append((layer.name,))
    return (*branches, *((one,) for one in run))


def branch_name(branch: Branch) -> str:
    """Return the name of a branch in the sensitivity profile."""
    return "+".join(branch)


def limited_shares(
    teacher: Teacher, headroom: Mapping[str, float], latencies: Sequence[Mapping[str, float]]
) -> Mapping[str, float]:
    """Return what each layer has of the costs that budgets limit, summed over these: its share over the share left.

    `headroom` is by cost what share of the teacher's the budgets leave; only costs of which less than all is left
    count. `latencies` are those of the graph's nodes, by device, in ms; their shares are averaged. Params and MACs
    count where no budget asks for less.
    """
    params = {layer.name: float(layer.params) for layer in teacher.layers}
    macs = {layer.name: float(layer.macs) for layer in teacher.layers}
    spent = [
        {layer.name: sum(ms.get(node, 0.0) for node in layer.nodes) for layer in teacher.layers} for ms in latencies
    ]
    parts = {"params": [params], "size_mb": [params], "macs": [macs], "latency_ms": spent}
    limited = {cost: left for cost, left in headroom.items() if left < 1 and cost in parts}
    shares = dict.fromkeys(params, 0.0)
    for cost, left in (limited or {"params": 1.0, "macs": 1.0}).items():
        for part in parts[cost]:
            total = sum(part.values()) or 1.0
            for name, value in part.items():
                shares[name] += value / total / left / len(parts[cost])
    return shares


def spread_rises(rises: Mapping[str, float], branches: Iterable[Branch]) -> Mapping[str, float]:
    """Return the rise of every layer of `branches` that has one in `rises`, where branches go by their names.

    A branch's rise, less what is known of some of its layers from branches before, is divided evenly among the others.
    """
    spread: dict[str, float] = {}
    for branch in branches:
        others = [layer for layer in branch if layer not in spread]
        if branch_name(branch) in rises and others:
            left = rises[branch_name(branch)] - sum(spread.get(layer, 0.0) for layer in branch)
            spread |= dict.fromkeys(others, max(left, 0.0) / len(others))
    return spread
