"""Whether convolutions by smaller kernels or of lower rank would pay as a further action of the search.

From the repository's root: ``python -m benchmarks.factored.run TEACHERS CIFAR WORK`` fills ``results.json`` and writes
``results.md``. TEACHERS holds ``resnet20_jpeg.onnx``, those of ``benchmarks/teachers`` go by their names; CIFAR is a
folder of images per class with train/ and test/, WORK gets the runs. ``--networks`` and ``--shares`` choose a part.

Every plain convolution is replaced alone: by one of 1x1, by 3x1 and 1x3, by one of fewer channels and a 1x1 behind it.
The rest is refitted to the teacher by least squares, as in a sensitivity profile, and the rise of the distillation loss
stands beside the latency saved. So do those of removed residual branches and narrowed groups. What is best of each, if
rises and savings of single changes added up, is an integer program, solved by HiGHS with and without the new changes.

``--students SEED ...`` then compresses the VGG type to shares of its latency as it is, and with its two last
convolutions, the cheapest of all to factor, at a quarter of their rank.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

import n2n_edge
from benchmarks.precision.joint import MEAN, STD, few
from n2n_edge.data.dataset import Data, load_data
from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.load import save_model
from n2n_edge.graph.teacher import Teacher, build, surviving
from n2n_edge.metrics.budget import Budget
from n2n_edge.runs.folder import RunFolder
from n2n_edge.search.branches import branches_of
from n2n_edge.search.rises import RATIOS
from n2n_edge.training.file_evaluation import evaluate_file
from n2n_edge.training.proxy_evaluation import ShortDistiller
from n2n_edge.training.reconstruct import reconstructed
from n2n_edge.training.settings import DistillSettings

HERE = Path(__file__).parent
RANKS = (0.25, 0.375, 0.5, 0.75)
"""Shares of a convolution's outputs that are left between its two parts."""
NEW = ("1x1", "3x1 and 1x3", "low rank")
LAST = ("20.weight", "23.weight")
"""The weights of the VGG type's two last convolutions."""
Change = tuple[str, str, ir.Model, Architecture]
"""What is changed, how, the graph, and the architecture whose channels it still has."""


def factored(teacher: Teacher) -> Iterator[Change]:
    """Give a graph for each plain convolution and way to make less of it."""
    for number, node in enumerate(teacher.model.graph):
        if node.op_type != "Conv" or node.attributes.get_int("group", 1) != 1:
            continue
        value = node.inputs[1]
        assert value is not None
        assert value.const_value is not None
        weight = value.const_value.numpy()
        outputs, inputs, *kernel = weight.shape
        if min(outputs, inputs) < 8:
            continue
        name = str(value.name)
        if kernel == [3, 3]:
            point = weight.sum(axis=(2, 3), keepdims=True)
            yield name, "1x1", replaced(teacher, number, [(point, "both")]), teacher.full
        for share in RANKS:
            rank = max(4, 4 * round(share * outputs / 4))
            if rank >= min(outputs, inputs):
                continue
            if kernel == [3, 3]:
                turned = weight.transpose(1, 2, 0, 3).reshape(inputs * 3, outputs * 3)
                left, right = halves(turned, rank)
                down = left.T.reshape(rank, inputs, 3, 1)
                across = right.reshape(rank, outputs, 1, 3).transpose(1, 0, 2, 3)
                yield name, "3x1 and 1x3", replaced(teacher, number, [(down, "down"), (across, "across")]), teacher.full
            yield name, "low rank", replaced(teacher, number, low_rank_parts(weight, rank)), teacher.full


def halves(matrix: NDArray[np.float32], rank: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return factors of the nearest matrix of a rank (Eckart and Young 1936), the singular values in equal parts."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    roots = np.sqrt(values[:rank])
    return left[:, :rank] * roots, roots[:, None] * right[:rank]


def low_rank_parts(weight: NDArray[np.float32], rank: int) -> list[tuple[NDArray[np.float32], str]]:
    """Return a convolution to so many channels, and the 1x1 behind it, for `replaced`."""
    outputs, *rest = weight.shape
    left, right = halves(weight.reshape(outputs, -1), rank)
    return [(right.reshape(rank, *rest), "both"), (left.reshape(outputs, rank, 1, 1), "none")]


def replaced(teacher: Teacher, number: int, parts: Sequence[tuple[NDArray[np.float32], str]]) -> ir.Model:
    """Return the teacher with a convolution made of parts, each with the axes along which it takes the stride."""
    model = teacher.model.clone()
    node = list(model.graph)[number]
    source, last = node.inputs[0], node.outputs[0]
    strides = node.attributes.get_ints("strides", (1, 1)) or (1, 1)
    made = []
    for place, (weight, along) in enumerate(parts):
        value = ir.Value(name=f"{node.inputs[1].name}.{place}", const_value=ir.tensor(weight.astype(np.float32)))  # type: ignore[union-attr]
        value.shape, value.dtype = ir.Shape(weight.shape), ir.DataType.FLOAT
        model.graph.register_initializer(value)
        size = weight.shape[2:]
        step = [s if along in ("both", axis) else 1 for s, axis in zip(strides, ("down", "across"), strict=True)]
        end = place == len(parts) - 1
        attributes = {"kernel_shape": list(size), "pads": [size[0] // 2, size[1] // 2] * 2, "strides": step}
        inputs = [source, value, *(node.inputs[2:] if end else ())]
        new = ir.node("Conv", inputs, attributes, num_outputs=1, name=f"{node.name}.{place}")
        made.append(new)
        source = new.outputs[0]
        source.name = f"{last.name}.{place}"
    assert source is not None
    source.shape, source.dtype = last.shape, last.dtype
    model.graph.insert_before(node, made)
    last.replace_all_uses_with(source)
    name = last.name
    model.graph.remove(node, safe=True)
    source.name = name
    return model


def with_low_rank(teacher: Teacher, names: Sequence[str], share: float, data: Data) -> ir.Model:
    """Return the teacher with some convolutions at a share of their outputs as rank, all refitted to it."""
    found = teacher
    for name in names:
        number, node = next(
            (number, node)
            for number, node in enumerate(found.model.graph)
            if node.op_type == "Conv" and node.inputs[1] is not None and node.inputs[1].name == name
        )
        weight = node.inputs[1].const_value.numpy()  # type: ignore[union-attr]
        parts = low_rank_parts(weight, round(share * len(weight)))
        found = Teacher(replaced(found, number, parts))
    kept = surviving(teacher, teacher.full)
    return reconstructed(found.model, teacher.model, data, DistillSettings(threads=1), kept)


def student(given: argparse.Namespace, share: float, seed: int, *, low_rank: bool) -> dict[str, float]:
    """Return a student's test accuracy and what part it has of the latency allowed, a share of the VGG type's."""
    own = HERE.parent / "teachers" / "vgg.onnx"
    source = few(given.cifar, given.work, given.images, seed)
    data = load_data(str(source), input_shape=(3, 32, 32), classes=10, mean=MEAN, std=STD)
    limit = share * n2n_edge.predict(own, given.device).figure.value
    teacher = own
    if low_rank:
        teacher = given.work / f"low-rank-{seed}.onnx"
        save_model(with_low_rank(Teacher.load(own), LAST, RANKS[0], data), teacher)
    folder = RunFolder(given.work / f"{share}-{seed}{'-low-rank' if low_rank else ''}")
    run = n2n_edge.compress(
        teacher, str(source), device=given.device, accept_expected=True, seed=seed, effort="quick", candidates=16,
        epochs=given.epochs, mean=MEAN, std=STD, out=folder.path, resume=folder.settings.exists(),
        budgets=[Budget("latency_ms", limit)], merging=False,
    )  # fmt: skip
    score = evaluate_file(run.student, data.test, data).score
    return {"score": score, "of_limit": n2n_edge.predict(run.student, given.device).figure.value / limit}


def cut(teacher: Teacher) -> Iterator[Change]:
    """Give a graph for each branch that is taken out alone, and for each group at each ratio."""
    for branch in branches_of(teacher):
        if teacher.repaired(frozenset(branch)):
            architecture = teacher.full.remove(*branch)
            yield "+".join(branch), "branch", build(teacher, architecture), architecture
    for group in teacher.groups:
        for ratio in RATIOS if group.shrinkable else ():
            width = max(4, 4 * round(ratio * group.width / 4))
            if width < group.width:
                architecture = teacher.full.resize(group.name, width)
                yield group.name, "channels", build(teacher, architecture), architecture


def measured(network: str, given: argparse.Namespace) -> dict[str, Any]:
    """Return the rise of the loss and the latency saved of every change of a network alone."""
    own = HERE.parent / "teachers" / f"{network}.onnx"
    teacher = Teacher.load(own if own.exists() else given.teachers / f"{network}_jpeg.onnx")
    data = load_data(str(given.cifar), input_shape=(3, 32, 32), classes=10, mean=MEAN, std=STD)
    distiller = ShortDistiller.refitting(teacher.model, data, DistillSettings(threads=1))
    latency: Callable[[ir.Model], float] = lambda model: n2n_edge.predict(model, given.device).figure.value  # noqa: E731
    whole, base = (
        latency(teacher.model),
        distiller.evaluate(build(teacher, teacher.full), surviving(teacher, teacher.full), seed=0).loss,
    )
    rows: list[dict[str, Any]] = []
    for name, how, model, architecture in (*factored(teacher), *cut(teacher)):
        saved = whole - latency(model)
        if saved <= 0 and how in NEW:
            rows.append({"what": name, "how": how, "saved_ms": saved, "rise": None})
            continue
        loss = distiller.evaluate(model, surviving(teacher, architecture), seed=0).loss
        rows.append({"what": name, "how": how, "saved_ms": saved, "rise": max(loss - base, 0.0)})
        print(network, rows[-1], flush=True)
    return {"latency_ms": whole, "constant_loss": distiller.constant_loss, "device": given.device, "changes": rows}


def least_rise(found: Mapping[str, Any], share: float, ways: Sequence[str]) -> tuple[float, list[str]] | None:
    """Return the least sum of rises at which changes, one of each thing and way, save all but a share of the latency.

    And how they are made; None where they can't. A layer is made less of in one way alone.
    """
    rows = [row for row in found["changes"] if row["how"] in ways and row["rise"] is not None and row["saved_ms"] > 0]
    things = sorted({(row["what"], row["how"] in NEW) for row in rows})
    choice = np.array([[float((row["what"], row["how"] in NEW) == thing) for row in rows] for thing in things])
    saved = np.array([[row["saved_ms"] for row in rows]])
    result = milp(
        [row["rise"] for row in rows],
        constraints=[
            LinearConstraint(choice, 0, 1),
            LinearConstraint(saved, (1 - share) * found["latency_ms"], np.inf),
        ],
        integrality=np.ones(len(rows)),
        bounds=Bounds(0, 1),
    )
    if not result.success:
        return None
    return float(result.fun), sorted(row["how"] for row, taken in zip(rows, result.x, strict=True) if taken > 0.5)


def write_table(results: Mapping[str, Any], shares: Sequence[float], path: Path) -> None:
    """Write what the best changes lose at each share of the latency, without and with each new kind."""
    known = ("branch", "channels")
    lines = ["| network | of the latency | without | " + " | ".join(f"with {each}" for each in NEW) + " | with all |"]
    lines.append("| --- " * (4 + len(NEW)) + "|")
    for network, found in results["changes"].items():
        for share in shares:
            cells = []
            for ways in (known, *((*known, each) for each in NEW), (*known, *NEW)):
                best = least_rise(found, share, ways)
                taken = [] if best is None else [how for how in best[1] if how in NEW]
                cells.append("" if best is None else f"{best[0]:.3f}" + (f" ({len(taken)} taken)" if taken else ""))
            lines.append(f"| {network} | {share} | {' | '.join(cells)} |")
    lines += ["", "| student | of the latency | seed | test accuracy, % |", "| --- | --- | --- | --- |"]
    lines += [f"| {key} | {100 * row['score']:.2f} |" for key, row in sorted(results["students"].items())]
    path.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Fill in what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teachers", type=Path)
    parser.add_argument("cifar", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--networks", nargs="*", default=["resnet20", "vgg", "mobilenet-v2"])
    parser.add_argument("--device", default="raspberry-pi-4")
    parser.add_argument("--shares", nargs="*", type=float, default=[0.8, 0.65, 0.5, 0.35])
    parser.add_argument("--students", nargs="*", type=int, default=[], help="seeds")
    parser.add_argument("--student-shares", nargs="*", type=float, default=[0.5, 0.35])
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.work.mkdir(parents=True, exist_ok=True)
    results = json.loads(given.out.read_text()) if given.out.exists() else {"changes": {}, "students": {}}

    def keep() -> None:
        given.out.write_text(json.dumps(results, indent=1) + "\n")
        write_table(results, given.shares, given.out.with_suffix(".md"))

    for network in given.networks:
        if network not in results["changes"]:
            results["changes"][network] = measured(network, given)
            keep()
    for seed in given.students:
        for share in given.student_shares:
            for low_rank in (False, True):
                key = f"{'two low-rank layers' if low_rank else 'as it is'} | {share} | {seed}"
                if key not in results["students"]:
                    results["students"][key] = student(given, share, seed, low_rank=low_rank)
                    keep()
    keep()


if __name__ == "__main__":
    main()
