"""Time of what a search does before its first candidate, but for its sensitivity profile, on networks of 1,000 nodes.

``python -m benchmarks.large_graphs.starts [KIND ...]`` from the repository's root writes ``starts.json``. Times are the
driver's processor time: of the analysis of the graph, of the meter's first look at it, of the starts of both stages
(widths that the profile suggests at the lowest price that meets half of the predicted latency on a Raspberry Pi 4), of
fitting the first of them to that budget, and of the first proposals that are asked for. The profile itself is made up.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.large_graphs.graphs import GRAPHS, write_graph
from n2n_edge.devices.registry import load_profile
from n2n_edge.graph.teacher import Teacher, build
from n2n_edge.latency.model import LatencyModel
from n2n_edge.measure.bench import WarmWorker
from n2n_edge.metrics.budget import Budget
from n2n_edge.search.costing import CostMeter
from n2n_edge.search.evaluator import Evaluator, Objective
from n2n_edge.search.precision import Depth
from n2n_edge.search.proposers.base import SearchContext
from n2n_edge.search.proposers.guided import GuidedProposer
from n2n_edge.search.space import RemovalStage, ShrinkageStage
from n2n_edge.search.store import Journal
from n2n_edge.search.surrogate import Sensitivity

HERE = Path(__file__).parent
NODES = 1_000
KINDS = ("residual", "inverted", "conv_norm", "dense")
Seconds = dict[str, float]


def made_up(teacher: Teacher) -> Sensitivity:
    """Return a profile as networks have: a few parts matter, most don't."""
    random = np.random.default_rng(0)
    layers = {layer.name: float(random.exponential(0.1)) for layer in teacher.layers if layer.removable}
    groups = {group.name: sorted(random.exponential(0.1, 2), reverse=True) for group in teacher.groups}
    return Sensitivity(layers, groups)


@contextmanager
def timed(found: Seconds, name: str) -> Iterator[None]:
    start = time.process_time()
    yield
    found[name] = round(time.process_time() - start, 2)


def row(path: Path) -> dict[str, object]:
    """Return the seconds of each part for one network."""
    found: Seconds = {}
    profile = load_profile("raspberry-pi-4")
    with timed(found, "graph"):
        teacher = Teacher.load(path)
        limit = 0.5 * LatencyModel(profile).estimate(teacher.model).figure.value
    budgets = [Budget("latency_ms", limit)]
    with (
        tempfile.TemporaryDirectory() as folder,
        WarmWorker() as worker,
        Journal.create(Path(folder) / "journal.sqlite", {}) as journal,
    ):
        with timed(found, "costs"):
            meter = CostMeter(teacher, profile, budgets, journal, worker, accept_expected=True, merging=True)
            base = meter.static(build(teacher, teacher.full))
            objective = Objective.choose("latency_ms", meter.of_teacher(timed=False), budgets)
            headroom = meter.headroom()
        evaluator = Evaluator(teacher, meter, None, 1.0, 0.0, 20.0, objective, journal, 0)  # type: ignore[arg-type]
        context = SearchContext(0, {"removal": 4, "shrinkage": 8}, evaluator, lambda: made_up(teacher))
        proposer = GuidedProposer(context)
        removes = any(layer.removable for layer in teacher.layers)
        with timed(found, "starts"):
            if removes:
                stage = RemovalStage(teacher, profile, headroom, meter.precision, meter.merges)
                proposer.start(stage)
                first = proposer.cuts(proposer.starts()[-1])
            else:
                proposer.start(ShrinkageStage(teacher, profile, headroom, frozenset(), meter.precision))
                first = proposer.cuts(proposer.starts()[1])
        with timed(found, "fit"):
            architecture = meter.fitted(first.base, first.ratios)
            costs = meter.evaluate(architecture)
        with timed(found, "ask"):
            proposer.ask(4)
        if removes:
            with timed(found, "second stage"):
                proposer.start(ShrinkageStage(teacher, profile, headroom, Depth().removed, meter.precision))
                proposer.starts()
                proposer.ask(4)
    return {
        "seconds": found,
        "layers": len(teacher.layers),
        "removable": sum(layer.removable for layer in teacher.layers),
        "groups": sum(group.shrinkable for group in teacher.groups),
        "params": base.params,
        "meets": not meter.excesses(costs),
    }


def main() -> None:
    """Measure the kinds that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(GRAPHS)}; by default {', '.join(KINDS)}")
    parser.add_argument("--nodes", type=int, default=NODES)
    parser.add_argument("--out", type=Path, default=HERE / "starts.json")
    given = parser.parse_args()
    rows = json.loads(given.out.read_text()) if given.out.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in given.kinds or KINDS:
            rows[kind] = row(write_graph(kind, given.nodes, Path(folder) / f"{kind}.onnx"))
            print(kind, rows[kind], flush=True)
            given.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
