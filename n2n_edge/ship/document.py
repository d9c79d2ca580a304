"""Put a finished run's `report.json` together."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from n2n_edge.devices import Profile
from n2n_edge.distill import Data, DistillResult
from n2n_edge.errors import InputError
from n2n_edge.figures import SCHEMA_VERSION, Figure
from n2n_edge.gate import Budget, Cost, Verdict, judge
from n2n_edge.graph import Teacher
from n2n_edge.measure import environment
from n2n_edge.report import ArchitectureJson, CandidateJson, ConditionsJson, ModelJson, RunReport, figure_of
from n2n_edge.search import Candidate, Judged
from n2n_edge.ship.parity import Parity
from n2n_edge.ship.settings import CompressSettings
from n2n_edge.writing import write_text

__all__ = ["ModelFigures", "read_report", "run_report", "verdicts_of", "write_json"]

_STAGES = {"removal": 1, "shrinkage": 2}

ModelFigures = Mapping[str, Figure]
"""Figures of one model: metric name, params, size_mb, macs, memory_bound_mb, and ``latency_ms:DEVICE`` per device."""


def run_report(
    *,
    version: str,
    settings: CompressSettings,
    out: Path,
    teacher: Teacher,
    teacher_path: Path,
    teacher_figures: ModelFigures,
    student_figures: ModelFigures,
    verdicts: Sequence[Verdict],
    parity: Parity,
    profile: Profile,
    evidence: dict[str, object] | None,
    candidates: Sequence[Candidate],
    winner: Judged,
    objective: str,
    training: DistillResult,
    training_seconds: float,
    data: Data,
    warnings: Sequence[str],
    conditions: ConditionsJson | None,
) -> RunReport:
    """Return the document that the HTML report, the model card and other programs read."""
    ordered = sorted(candidates, key=lambda row: (_STAGES[row.stage], row.position))
    rows = [_candidate(row) for row in ordered]
    keys = [row.key for row in ordered]
    document: RunReport = {
        "schema_version": SCHEMA_VERSION,
        "n2n_edge_version": version,
        "command": settings.command(out),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "teacher": _model(str(teacher_path), teacher_figures),
        "student": _model("student.onnx", student_figures),
        "budgets": [
            {
                "cost": verdict.budget.cost,
                "option": verdict.budget.option,
                "limit": verdict.budget.limit,
                "reached": verdict.reached.to_json(),
                "met": verdict.met,
                "accept_expected": verdict.accept_expected,
            }
            for verdict in verdicts
        ],
        "parity": {
            "max_relative_error": parity.max_relative_error,
            "top1_agreement": parity.top1_agreement,
            "n": parity.n,
        },
        "device": {
            "name": profile.name,
            "description": profile.description,
            **({} if evidence is None else {"evidence": evidence}),  # type: ignore[typeddict-item]
        },
        "search": {
            "policy": settings.policy,
            "seed": settings.seed,
            "effort": settings.effort,
            "objective": objective,
            "winner": keys.index(winner.architecture.key) if winner.architecture.key in keys else None,
            "candidates": rows,
        },
        "architecture": _architecture(teacher, winner),
        "training": {
            "epochs": [
                {"epoch": item.epoch, "loss": item.train_loss, "validation": item.validation}
                for item in training.history
            ],
            "best_epoch": training.best_epoch,
            "seconds": training_seconds,
        },
        "data": {
            "spec": settings.data or "builtin:digits",
            "train": len(data.train),
            "validation": len(data.validation),
            "test": len(data.test),
            "classes": len(data.class_names),
            "labelled": data.labelled,
            "mean": list(data.mean),
            "std": list(data.std),
        },
        "environment": dict(environment()),
        "warnings": list(warnings),
    }
    if conditions is not None:
        document["conditions"] = conditions
    return document


def verdicts_of(report: RunReport) -> tuple[Verdict, ...]:
    """Return the verdicts that a report holds."""
    budgets = [Budget(cast("Cost", item["cost"]), item["limit"]) for item in report["budgets"]]
    figures = {item["cost"]: figure_of(item["reached"]) for item in report["budgets"]}
    accept = any(item.get("accept_expected", True) for item in report["budgets"])
    return judge(figures, budgets, accept_expected=accept)


def read_report(path: Path) -> RunReport:
    """Read a `report.json`; raises InputError where it isn't one."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema_version"] != SCHEMA_VERSION:
            raise InputError(f"{path}: schema {document['schema_version']}, this n2n-edge knows {SCHEMA_VERSION}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not the report of a run ({error}); start a new run with another --out") from error
    return cast("RunReport", document)


def write_json(document: RunReport, path: Path) -> None:
    """Write the document in one step."""
    write_text(path, json.dumps(document, indent=2) + "\n")


def _model(path: str, figures: ModelFigures) -> ModelJson:
    document: dict[str, object] = {"path": path, "latency_ms": {}}
    latencies = cast("dict[str, object]", document["latency_ms"])
    for name, figure in figures.items():
        if name.startswith("latency_ms:"):
            latencies[name.removeprefix("latency_ms:")] = figure.to_json()
        else:
            document[name] = figure.to_json()
    return cast("ModelJson", document)


def _candidate(row: Candidate) -> CandidateJson:
    costs = row.costs
    return {
        "stage": _STAGES[row.stage],
        "index": row.position,
        "reward": row.reward,
        "accuracy": row.accuracy,
        "feasible": row.feasible,
        "params": int(costs["params"]),
        "size_mb": float(costs["size_mb"]),
        "macs": int(costs["macs"]),
        "latency_ms": float(costs["latency_ms"]) if "latency_ms" in costs else None,
        "trained": row.accuracy is not None,
    }


def _architecture(teacher: Teacher, winner: Judged) -> ArchitectureJson:
    architecture = winner.architecture
    trunk = teacher.trunk(architecture.removed)
    layers = {group.name: list(group.layers) for group in trunk.groups}
    widths = {group.name: min(group.width, architecture.width(group.name)) for group in trunk.groups}
    return {
        "removed": [layer.name for layer in teacher.layers if layer.name in architecture.removed],
        "groups": [
            {
                "name": group.name,
                "before": group.width,
                "after": widths.get(trunk.aliases.get(group.name, ""), 0),
                "layers": layers.get(group.name, list(group.layers)),
            }
            for group in teacher.groups
            if group.shrinkable
        ],
    }
