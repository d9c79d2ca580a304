"""Widths that a search starts with where nothing has been probed: loss after a short distillation.

    python benchmarks/importance/start.py TEACHER CIFAR [--params 0.3] [--latency 0.5] [--seeds 1]

Prints, for an even cut, for the widths of least summed rise and for those of least summed squares, the loss and the
accuracy on 2,000 validation images after 512 training images. Budgets are shares of the teacher's params and of its
expected latency on a Raspberry Pi 4; 1 is none.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import numpy as np
import torch

from n2n_edge.data.dataset import load_data
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.devices.registry import load_profile
from n2n_edge.graph.teacher import Teacher, build, surviving
from n2n_edge.measure.bench import WarmWorker
from n2n_edge.metrics.budget import Budget
from n2n_edge.metrics.costs import Cost
from n2n_edge.search.costing import CostMeter
from n2n_edge.search.precision import Base
from n2n_edge.search.proposers.suggested import balanced_ratios
from n2n_edge.search.rises import RATIOS, group_rises
from n2n_edge.search.store import Journal
from n2n_edge.search.surrogate import Sensitivity
from n2n_edge.tasks.choice import choose_task
from n2n_edge.training.proxy_evaluation import ShortDistiller
from n2n_edge.training.settings import DistillSettings
from n2n_edge.training.unit_importance import data_importance

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def unprobed(teacher: Teacher) -> Sensitivity:
    """Return what is known of a teacher's groups by its importance alone."""
    lost: dict[str, Mapping[float, float] | None] = {}
    for group in teacher.groups:
        if group.shrinkable:
            found = teacher.lost(group, [max(1, round(group.width * ratio)) for ratio in RATIOS])
            lost[group.name] = None if found is None else dict(zip(RATIOS, found, strict=True))
    return Sensitivity({}, group_rises({}, lost, 1.0), RATIOS)


def main() -> None:
    """Print a row for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("cifar")
    parser.add_argument("--params", type=float, default=0.3)
    parser.add_argument("--latency", type=float, default=0.5)
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings = DistillSettings(threads=1)
    teacher = Teacher.load(given.teacher)
    data = load_data(given.cifar, preprocessing=Preprocessing((32, 32), mean=MEAN, std=STD), classes=10, seed=0)
    data, _ = choose_task(teacher.model, data)
    teacher = teacher.ranked(data_importance(teacher, data, settings))
    distiller = ShortDistiller(teacher.model, data, 512, settings.for_images(512), validation_images=2000)
    profile, device = unprobed(teacher), load_profile("raspberry-pi-4")
    names = [group.name for group in teacher.groups]
    ways: dict[str, Callable[[str, float], float] | None] = {
        "even": None,
        "sums": profile.of_group,
        "squares": lambda name, ratio: profile.compounded({name: ratio}),
    }
    with TemporaryDirectory() as folder, WarmWorker() as worker, Journal.create(Path(folder) / "journal") as journal:

        def meter(*budgets: Budget) -> CostMeter:
            return CostMeter(teacher, device, budgets, journal, worker, accept_expected=True)

        whole = meter().predicted(Base(), np.array([[group.width for group in teacher.groups]]))
        shares: dict[Cost, float] = {"params": given.params, "latency_ms": given.latency}
        wanted = meter(*(Budget(cost, share * float(whole[cost][0])) for cost, share in shares.items() if share < 1))
        for way, rise in ways.items():
            ratios: dict[str, float] = {}
            if rise is not None:
                row = balanced_ratios(wanted, Base(), lambda group, ratio, rise=rise: rise(group.name, ratio))[0]  # type: ignore[misc]
                ratios = dict(zip(names, row.tolist(), strict=True))
            architecture = wanted.fitted(Base(), ratios)
            model, kept = build(teacher, architecture), surviving(teacher, architecture)
            found = [distiller.evaluate(model, kept, seed=seed) for seed in range(given.seeds)]
            loss, accuracy = mean(one.loss for one in found), mean(one.accuracy for one in found)
            print(f"{way}: loss {loss:.3f}, accuracy {accuracy:.1%}, {dict(architecture.widths)}", flush=True)


if __name__ == "__main__":
    main()
