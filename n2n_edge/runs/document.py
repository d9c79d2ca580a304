"""Report document of a finished run: put together, written, read back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from n2n_edge.errors import InputError
from n2n_edge.foreign import printable
from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.merging import made_merges
from n2n_edge.graph.teacher import Teacher
from n2n_edge.measure.board import environment
from n2n_edge.metrics.budget import Budget
from n2n_edge.metrics.costs import Cost, cost_named
from n2n_edge.metrics.figures import SCHEMA_VERSION, Figure
from n2n_edge.metrics.notices import Notice, codes_of, texts_of
from n2n_edge.metrics.verdict import Verdict, verdicts_on
from n2n_edge.report.candidates import find_winner
from n2n_edge.report.comparison import figure_of
from n2n_edge.report.document import (
    ArchitectureJson,
    CandidateJson,
    ChosenJson,
    ConditionsJson,
    ConfidenceJson,
    DeviceJson,
    ExamplesJson,
    LayerJson,
    ModelJson,
    PrecisionRecallJson,
    RunReport,
    SearchSecondsJson,
    TaskJson,
)
from n2n_edge.report.reading import read_document
from n2n_edge.runs.settings import CompressSettings
from n2n_edge.tasks.metrics import Evaluation
from n2n_edge.writing import write_text

if TYPE_CHECKING:
    from n2n_edge.data.dataset import Data
    from n2n_edge.runs.final import Trained
    from n2n_edge.runs.parity import Parity
    from n2n_edge.search.clock import Spent
    from n2n_edge.search.evaluator import Confidence

__all__ = ["ModelFigures", "Origin", "precision_recall", "read_report", "run_report", "verdicts_of", "write_json"]

ModelFigures = Mapping[str, Figure]
"""Figures of one model: its score by the metric's name, params, size_mb, macs, memory_bound_mb, ``latency_ms:DEVICE``
per device, and ``detail:NAME`` per further figure of its evaluation."""


@dataclass(frozen=True)
class Origin:
    """Where a student comes from: the command that makes it again, and the candidates of the search.

    `place` is the student's among them, `objective` the cost that the search counted. `chosen` says of which run it is
    a candidate that a person chose; None for a run's winner. `confidence` is that of a winner among finalists, `spent`
    what the search of a run took.
    """

    command: str
    objective: str
    candidates: Sequence[CandidateJson]
    place: int | None
    chosen: ChosenJson | None = None
    confidence: "Confidence | None" = None
    spent: "Spent | None" = None


def run_report(
    *,
    version: str,
    settings: CompressSettings,
    origin: Origin,
    teacher: Teacher,
    teacher_path: Path,
    task: TaskJson,
    teacher_figures: ModelFigures,
    student_figures: ModelFigures,
    difference: Figure | None,
    verdicts: Sequence[Verdict],
    parity: "Parity",
    devices: Sequence[DeviceJson],
    trained: "Trained",
    data: "Data",
    warnings: Sequence[Notice],
    notes: Sequence[Notice],
    conditions: ConditionsJson | None,
    examples: ExamplesJson | None,
    precision_recall: PrecisionRecallJson | None,
    layers: Sequence[LayerJson],
    student_sha256: str,
) -> RunReport:
    """Return the document that the HTML report, the model card and other programs read."""
    document: RunReport = {
        "schema_version": SCHEMA_VERSION,
        "n2n_edge_version": version,
        "command": origin.command,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "task": task,
        "teacher": _model(str(teacher_path), teacher_figures),
        "student": _model("student.onnx", student_figures, student_sha256),
        "budgets": [verdict.to_json() for verdict in verdicts],
        "parity": {
            "max_relative_error": parity.max_relative_error,
            "top1_agreement": parity.top1_agreement,
            "n": parity.n,
        },
        "device": devices[0],
        "search": {
            "policy": settings.policy,
            "seed": settings.seed,
            "effort": settings.effort,
            "objective": origin.objective,
            "winner": origin.place,
            "candidates": list(origin.candidates),
        },
        "architecture": _architecture(teacher, trained.architecture),
        "training": {
            "epochs": [
                {"epoch": item.epoch, "loss": item.train_loss, "validation": item.validation}
                for item in trained.result.history
            ],
            "best_epoch": trained.result.best_epoch,
            "seconds": trained.seconds,
        },
        "data": {
            "spec": settings.data or "builtin:digits",
            "train": len(data.train),
            "validation": len(data.validation),
            "test": len(data.test),
            "classes": len(data.class_names),
            "labelled": data.labelled,
            "input_shape": list(data.input_shape),
            "task": "" if data.task is None else data.task.name,
            "mean": list(data.mean),
            "std": list(data.std),
            "preprocessing": data.preprocessing.to_json(),
        },
        "environment": dict(environment()),
        "warnings": list(texts_of(warnings)),
        "warning_codes": list(codes_of(warnings)),
        "notes": list(texts_of(notes)),
        "note_codes": list(codes_of(notes)),
    }
    if trained.precision is not None:
        document["precision"] = trained.precision.document
    if conditions is not None:
        document["conditions"] = conditions
    if difference is not None:
        document["difference"] = difference.to_json()
    if examples is not None:
        document["examples"] = examples
    if precision_recall is not None:
        document["precision_recall"] = precision_recall
    if len(devices) > 1:
        document["devices"] = list(devices)
    if origin.confidence is not None:
        document["search"]["confidence"] = cast("ConfidenceJson", asdict(origin.confidence))
    if origin.spent is not None:
        document["search"]["seconds"] = cast("SearchSecondsJson", asdict(origin.spent))
    if origin.chosen is not None:
        document["chosen"] = origin.chosen
    document["layers"] = list(layers)
    return document


def precision_recall(teacher: Evaluation | None, student: Evaluation) -> PrecisionRecallJson | None:
    """Return precision by recall of detectors; without labels there is no `teacher`, whose detections are the aim."""
    if not student.precision:
        return None
    curves: PrecisionRecallJson = {
        "against": "teacher" if teacher is None else "labels",
        "iou": 0.5,
        "provenance": "measured",
        "n": student.n,
        "recall": [step / 100 for step in range(len(student.precision))],
        "student": [round(each, 6) for each in student.precision],
    }
    if teacher is not None:
        curves["teacher"] = [round(each, 6) for each in teacher.precision]
    return curves


def verdicts_of(report: RunReport) -> tuple[Verdict, ...]:
    """Return the verdicts that a report holds."""
    accept = any(item.get("accept_expected", True) for item in report["budgets"])
    return tuple(
        verdict
        for item in report["budgets"]
        for verdict in verdicts_on(
            {cost_named(item["cost"]): figure_of(item["reached"])},
            [Budget(cast("Cost", item["cost"]), item["limit"])],
            accept_expected=accept,
            device=item.get("device"),
            metric=item.get("metric"),
        )
    )


def read_report(path: Path) -> RunReport:
    """Read a run's `report.json`; raises InputError where it isn't one, or is damaged."""
    document = read_document(path)
    parts = ("teacher", "student", "device", "search")
    if document.get("kind") == "bench" or not all(isinstance(document.get(part), dict) for part in parts):
        raise InputError(f"{path}: not the report of a run; restore it, or remove it and resume the run")
    report = cast("RunReport", document)
    if not isinstance(report["search"].get("candidates"), list) or not isinstance(report["budgets"], list):
        raise InputError(f"{path}: a damaged report; restore it, or remove it and resume the run")
    try:  # what every reader of a report asks it for
        find_winner(report, report["search"]["candidates"])
        verdicts_of(report)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise InputError(
            f"{path}: a damaged report ({type(error).__name__}: {printable(error)}); restore it, or remove it and "
            "resume the run"
        ) from error
    return report


def write_json(document: RunReport, path: Path) -> None:
    """Write the document in one step."""
    write_text(path, json.dumps(document, indent=2) + "\n")


def _model(path: str, figures: ModelFigures, sha256: str | None = None) -> ModelJson:
    document: dict[str, object] = {"path": path, "latency_ms": {}}
    latencies, details = cast("dict[str, object]", document["latency_ms"]), {}
    for name, figure in figures.items():
        if name.startswith("latency_ms:"):
            latencies[name.removeprefix("latency_ms:")] = figure.to_json()
        elif name.startswith("detail:"):
            details[name.removeprefix("detail:")] = figure.to_json()
        else:
            document[name] = figure.to_json()
    if details:
        document["details"] = details
    if sha256 is not None:
        document["sha256"] = sha256
    return cast("ModelJson", document)


def _architecture(teacher: Teacher, architecture: Architecture) -> ArchitectureJson:
    base = teacher.base_graph(architecture.removed, architecture.linear)
    layers = {group.name: list(group.layers) for group in base.groups}
    widths = {group.name: min(group.width, architecture.width(group.name)) for group in base.groups}
    return {
        "removed": [layer.name for layer in teacher.layers if layer.name in architecture.removed],
        "merged": [list(run) for run in made_merges(teacher.links, architecture.kept, architecture.linear)],
        "groups": [
            {
                "name": group.name,
                "before": group.width,
                "after": widths.get(base.aliases.get(group.name, ""), 0),
                "layers": layers.get(group.name, list(group.layers)),
            }
            for group in teacher.groups
            if group.shrinkable
        ],
    }
