"""What the test images say of a student and its teacher, and of what anybody gets there without looking."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from n2n_edge.data.dataset import Data
from n2n_edge.graph.shape_run import Array
from n2n_edge.metrics.figures import Figure
from n2n_edge.metrics.notices import Notice
from n2n_edge.metrics.scores import detail_words, drop, metric_label
from n2n_edge.report.document import PrecisionRecallJson
from n2n_edge.runs.document import precision_recall
from n2n_edge.runs.prepare import Prepared
from n2n_edge.tasks.choice import metric_name, task_of
from n2n_edge.tasks.classification import Classification
from n2n_edge.tasks.metrics import Evaluation
from n2n_edge.tasks.paired import paired_difference
from n2n_edge.tasks.task import Meter, Task
from n2n_edge.training.file_evaluation import MeanOutputs, constant_meter, file_meters

__all__ = ["Quality", "quality_of"]

_POOR = 0.5
"""Part of the teacher's score below which a student has lost most."""

_BEYOND_DOUBT = 0.5
"""Part of the way from a constant answer to a perfect one, from which on nobody asks whether it is chance."""

_RESAMPLES = 200


@dataclass(frozen=True)
class Quality:
    """What the test images say of both files: figures by the metric's name, and by those of the details.

    `difference` is the student's score less the teacher's, None without labels. `constant` is what the same answer for
    every image gets, the better one of the averages of teacher's and student's outputs, where outputs have an average;
    `at_chance` says of teacher and student whether they can be told from that.
    """

    task: str
    metric: str
    teacher: Mapping[str, Figure]
    student: Mapping[str, Figure]
    difference: Figure | None
    precision_recall: PrecisionRecallJson | None = None
    constant: float | None = None
    at_chance: tuple[bool, bool] = (False, False)

    @property
    def notices(self) -> tuple[Notice, ...]:
        """A warning of a student that has lost most of what its teacher can, or that has learned nothing."""
        teacher, student = (each[self.metric].value for each in (self.teacher, self.student))
        label, remedy = metric_label(self.metric), "give more images, epochs or minutes, or allow more"
        same = "can't be told from that of the same answer for every image"
        if self.constant is not None and all(self.at_chance):
            text = (
                f"on the test images the {label} of student ({student:.1%}) and teacher ({teacher:.1%}) {same} "
                f"({self.constant:.1%}): there was nothing to learn"
            )
            remedy = "check preprocessing, and that labels mean what the outputs do, or give more test images"
            return (Notice("student-at-chance", text, remedy),)
        lost = f"the teacher's is {teacher:.1%}: it was cut too far, or has learned too little"
        if self.constant is not None and self.at_chance[1]:
            text = f"on the test images the student's {label} of {student:.1%} {same} ({self.constant:.1%}), {lost}"
            return (Notice("student-at-chance", text, remedy),)
        if student >= _POOR * teacher:
            return ()
        return (Notice("poor-student", f"the student's {label} is {student:.1%}, {lost}", remedy),)

    @property
    def costs(self) -> dict[str, Figure]:
        """The student's figures by the names that budgets use."""
        reached = self.student[self.metric]
        return {"score": reached, "drop": drop(reached, self.teacher[self.metric])}


def quality_of(prepared: Prepared, student: Path) -> Quality:
    """Evaluate the teacher's file and the student's, each once; without labels both by fidelity to the teacher."""
    data, model, images = prepared.teacher_data, prepared.teacher.model, prepared.student_images
    metric = metric_name(model, data)
    path, task = prepared.teacher_path, task_of(model, data)
    unlabelled = metric == "fidelity"
    averages = MeanOutputs(), MeanOutputs()

    def watch(*outputs: tuple[Array, ...]) -> None:
        for average, each in zip(averages, outputs, strict=True):
            average.add(each)

    # of few labels agreement says more than the score does; that of classes follows from it nearly
    compared = unlabelled or not isinstance(task, Classification)
    theirs, own = file_meters(path, student, data.test, data, fidelity=(unlabelled, compared), watch=watch, own=images)
    difference = None if unlabelled else paired_difference(theirs, own)
    first, second = theirs.evaluation(), own.evaluation()
    comparable = averages if images is None else averages[:1]  # the student's outputs may be of other shapes
    constants = [_constant(each, task, data, path if unlabelled else None) for each in comparable]
    constant = max((each for each in constants if each is not None), key=_value, default=None)
    return Quality(
        task.name,
        metric,
        _figures(metric, first),
        _figures(metric, second),
        difference,
        precision_recall(None if unlabelled else first, second),
        None if constant is None else _value(constant),
        (_no_better(theirs, constant), _no_better(own, constant)),
    )


def _constant(average: MeanOutputs, task: Task, data: Data, teacher: Path | None) -> Meter | None:
    """Return what the average of outputs, given for every image, would get."""
    answer = average.answer
    try:
        return None if answer is None else constant_meter(answer, task, data, teacher=teacher)
    except Exception:  # a decoder of the user's may not read an average, of class numbers for one: nothing is told then
        return None


def _value(meter: Meter) -> float:
    return meter.evaluation().metric


def _no_better(own: Meter, constant: Meter | None) -> bool:
    """Tell whether a file can't be told from a constant answer, by paired resamples of the images."""
    if constant is None:
        return False
    reached, given = _value(own), _value(constant)
    if reached <= given or reached - given > _BEYOND_DOUBT * (1 - given):
        return reached <= given
    found = paired_difference(constant, own, _RESAMPLES)
    return found is not None and found.low is not None and found.low <= 0


def _figures(metric: str, found: Evaluation) -> dict[str, Figure]:
    more = {} if found.score is None or found.fidelity is None else {"agreement": found.fidelity}
    details = {f"detail:{name}": (value, detail_words(name)[1]) for name, value in {**more, **found.details}.items()}
    scores = {metric: (found.metric, "fraction"), **details}
    return {name: Figure(value, unit, "measured", n=found.n) for name, (value, unit) in scores.items()}
