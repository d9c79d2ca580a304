"""A run's document as a real run writes it, made from a seed, for the tests of the report."""

import random

from n2n_edge.metrics.figures import Figure, Provenance
from n2n_edge.metrics.verdict import VerdictJson
from n2n_edge.report.document import CandidateJson, LayerJson, LayerLatencyJson, ModelJson, RunReport

__all__ = ["detector", "old_document", "sample_document"]


def _model(path: str, accuracy: float, params: int, macs: int, host_ms: float, device_ms: float) -> ModelJson:
    return {
        "path": path,
        "accuracy": Figure(accuracy, "fraction", "measured", n=360).to_json(),
        "params": Figure(params, "params", "computed").to_json(),
        "size_mb": Figure(4 * params / 1e6 + 0.006, "MB", "computed").to_json(),
        "macs": Figure(macs, "MACs", "computed").to_json(),
        "memory_bound_mb": Figure(4 * params / 1e6 + 0.05, "MB", "computed").to_json(),
        "latency_ms": {
            "cpu": Figure(host_ms, "ms", "measured", low=0.98 * host_ms, high=1.03 * host_ms, n=412).to_json(),
            "raspberry-pi-4": Figure(device_ms, "ms", "analytic", low=0.5 * device_ms, high=2 * device_ms).to_json(),
        },
    }


def _candidates(count: int) -> list[CandidateJson]:
    source = random.Random(7)
    rows: list[CandidateJson] = []
    for index in range(count):
        stage = 1 if index < count // 3 else 2
        skill = index / count
        share = max(0.03, source.gauss(0.75 - 0.4 * skill if stage == 1 else 0.3 - 0.25 * skill, 0.1))
        params = int(308_210 * share)
        feasible = 4 * params / 1e6 + 0.006 <= 0.12
        trained = feasible or stage == 1
        score = min(0.99, 0.9 + 0.08 * skill + source.gauss(0, 0.012)) if trained else None
        gain = 1 - share
        rows.append(
            {
                "stage": stage,
                "index": index,
                "reward": gain * (2 - gain) * (score or 0.9) if feasible else -share,
                "score": score,
                "feasible": feasible,
                "params": params,
                "size_mb": 4 * params / 1e6 + 0.006,
                "macs": int(11e6 * share),
                "latency_ms": 2.4 * share + 0.2 if feasible else None,
                "trained": trained,
                "memory_bound_mb": 4 * params / 1e6 + 0.05,
                "entropy": max(0.0, 1 - skill + source.gauss(0, 0.03)) if index else None,
            }
        )
    return rows


def _layers() -> list[LayerJson]:
    plan = [
        ("conv1", 24, 8),
        ("layers.0.0.conv1", 24, 16),
        ("layers.1.1.conv1", 48, None),
        ("layers.1.1.conv2", 48, None),
    ]
    plan.append(("layers.2.0.conv1", 80, 32))
    rows: list[LayerJson] = [
        {
            "name": name,
            "op_type": "Conv",
            "removed": after is None,
            "channels": {"before": before, "after": after},
            "latency_ms": _latency(before / 1000, None if after is None else after / 1000),
        }
        for name, before, after in plan
    ]
    return [*rows, {"name": "other", "op_type": "", "removed": False, "latency_ms": _latency(0.02, 0.01)}]


def _latency(teacher: float, student: float | None) -> dict[str, LayerLatencyJson]:
    kinds: dict[str, Provenance] = {"cpu": "measured", "raspberry-pi-4": "analytic"}
    return {
        device: {
            "teacher": Figure(teacher, "ms", provenance).to_json(),
            "student": None if student is None else Figure(student, "ms", provenance).to_json(),
        }
        for device, provenance in kinds.items()
    }


def old_document() -> RunReport:
    """Return a document as it was before layers, memory, entropy and the task were noted."""
    document = sample_document()
    del document["layers"], document["task"], document["difference"]
    for row in document["search"]["candidates"]:
        row["accuracy"] = row["score"]
        del row["memory_bound_mb"], row["entropy"], row["score"]
    return document


def sample_document(candidates: int = 120) -> RunReport:
    """Return the document of a run on the built-in example that met its budgets."""
    rows = _candidates(candidates)
    winner = max((row for row in rows if row["feasible"]), key=lambda row: row["reward"])
    return {
        "schema_version": 1,
        "n2n_edge_version": "0.1.0",
        "command": "n2n-edge compress --device raspberry-pi-4 --max-mb 0.12 --max-latency-ms 1.5 --effort quick "
        "--seed 0 --out demo-run",
        "created": "2026-01-31 12:00 UTC",
        "task": {"name": "classification", "metric": "accuracy", "reason": "one output of scores"},
        "difference": Figure(100 * (0.9889 - 0.9944), "points", "measured", low=-1.4, high=0.3, n=360).to_json(),
        "teacher": _model("digits_teacher.onnx", 0.9944, 308_210, 11_020_480, 0.62, 2.4),
        "student": _model("student.onnx", 0.9889, winner["params"], winner["macs"], 0.18, 0.41),
        "budgets": [
            {
                "cost": "size_mb",
                "option": "--max-mb",
                "limit": 0.12,
                "reached": Figure(winner["size_mb"], "MB", "computed").to_json(),
                "met": True,
            },
            {
                "cost": "latency_ms",
                "option": "--max-latency-ms",
                "limit": 1.5,
                "reached": Figure(0.41, "ms", "analytic", low=0.2, high=0.82).to_json(),
                "met": True,
            },
        ],
        "parity": {"max_relative_error": 2.1e-6, "top1_agreement": 1.0, "n": 256},
        "device": {"name": "raspberry-pi-4", "description": "Raspberry Pi 4 Model B, 4x Cortex-A72 at 1.8 GHz"},
        "search": {"policy": "reinforce", "seed": 0, "effort": "quick", "candidates": rows},
        "architecture": {
            "removed": ["/layers.1/1/conv1", "/layers.1/1/conv2"],
            "groups": [
                {
                    "name": "g1",
                    "before": 24,
                    "after": 8,
                    "layers": ["/conv1", "/layers.0/0/conv2", "/layers.0/1/conv2"],
                },
                {"name": "g2", "before": 24, "after": 16, "layers": ["/layers.0/0/conv1"]},
                {"name": "g3", "before": 48, "after": 16, "layers": ["/layers.1/0/conv2", "/layers.1/0/shortcut/0"]},
                {"name": "g4", "before": 48, "after": 48, "layers": ["/layers.1/0/conv1"]},
                {"name": "g5", "before": 80, "after": 24, "layers": ["/layers.2/0/conv2", "/layers.2/0/shortcut/0"]},
                {"name": "g6", "before": 80, "after": 32, "layers": ["/layers.2/0/conv1"]},
            ],
        },
        "layers": _layers(),
        "training": {
            "epochs": [
                {
                    "epoch": epoch,
                    "loss": 1.4 / epoch + 0.1,
                    "validation": 0.985 - 0.3 / epoch**1.5 + 0.004 * (epoch % 3),
                }
                for epoch in range(1, 25)
            ],
            "best_epoch": 23,
            "seconds": 48.2,
        },
        "data": {"source": "builtin:digits", "train": 1149, "validation": 288, "test": 360, "classes": list(range(10))},
        "environment": {"python": "3.11.7", "onnxruntime": "1.31.1", "torch": "2.13.0", "host": {"cores": 2}},
        "warnings": ["latency on raspberry-pi-4 is predicted from data-sheet figures; measure it on the board"],
    }


def detector(document: RunReport) -> RunReport:
    """Return a document as the run of a detector with labels writes it."""

    def model(role: ModelJson, score: float) -> ModelJson:
        kept = {key: value for key, value in role.items() if key != "accuracy"}
        values = {"ap50": score + 0.2, "ap:person": score, "ap:bicycle": 3 * score - 0.6}
        details = {name: Figure(value, "fraction", "measured", n=64).to_json() for name, value in values.items()}
        figure = Figure(score, "fraction", "measured", n=64).to_json()
        return {**kept, "map": figure, "details": details}  # type: ignore[typeddict-item]

    drop: VerdictJson = {
        "cost": "drop",
        "option": "--max-drop",
        "limit": 4.0,
        "reached": Figure(3.3, "points", "measured", n=64).to_json(),
        "met": True,
        "metric": "map",
    }
    return {
        **document,
        "task": {"name": "detection", "metric": "map", "reason": "as asked"},
        "teacher": model(document["teacher"], 0.345),
        "student": model(document["student"], 0.312),
        "difference": Figure(-3.3, "points", "measured", low=-5.1, high=-1.4, n=64).to_json(),
        "budgets": [*document["budgets"], drop],
        "precision_recall": {
            "against": "labels",
            "iou": 0.5,
            "provenance": "measured",
            "n": 64,
            "recall": [step / 100 for step in range(101)],
            "teacher": [max(0.0, 1 - (step / 78) ** 3) for step in range(101)],
            "student": [max(0.0, 0.97 - (step / 72) ** 2.5) for step in range(101)],
        },
    }
