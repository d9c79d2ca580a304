"""The metric of a run: its name, what documents hold in it, and what became of the teacher's score."""

from typing import cast

from n2n_edge.metrics.figures import FigureJson
from n2n_edge.metrics.scores import metric_label
from n2n_edge.report.document import CandidateJson, RunReport

__all__ = ["difference_words", "metric_of", "score_of", "score_words"]


def metric_of(document: RunReport) -> str:
    """Return the name of what models were evaluated by: that of the task, ``fidelity`` where there are no labels."""
    if "task" in document:
        return document["task"]["metric"]
    return "accuracy" if document["student"].get("accuracy") is not None else "fidelity"  # before 0.2 classes only


def score_of(row: CandidateJson) -> float | None:
    """Return a candidate's score in the run's metric, None where it was never trained."""
    return row["score"] if "score" in row else row.get("accuracy")


def difference_words(document: RunReport) -> str:
    """Return the student's score less the teacher's: ``-3.3 points [-5.1, -1.4]``; '' where there are no labels."""
    found = document.get("difference")
    if found is None:
        return ""
    points = f"{float(found['value']):+.1f} points"
    if "low" not in found or "high" not in found:
        return points
    return f"{points} [{float(found['low']):+.1f}, {float(found['high']):+.1f}]"


def score_words(document: RunReport) -> str:
    """Return in one line what became of the score: ``mAP 34.5% -> 31.2%, -3.3 points [-5.1, -1.4] (n = 64)``."""
    metric = metric_of(document)
    scores = [cast("FigureJson | None", document[role].get(metric)) for role in ("teacher", "student")]
    if scores[0] is None or scores[1] is None:
        return ""
    teacher, student = (f"{100 * float(score['value']):.1f}%" for score in scores if score is not None)
    images = f" (n = {int(scores[1]['n']):,})" if "n" in scores[1] else ""
    if metric == "fidelity":
        return f"{metric_label(metric)} to the teacher {student}{images}"
    change = difference_words(document)
    return f"{metric_label(metric)} {teacher} -> {student}{', ' if change else ''}{change}{images}"
