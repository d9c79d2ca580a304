"""Choice of the task: as it is asked for, as a student's metadata record it, or from graph and labels."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from n2n_edge.data.annotations import kinds_in
from n2n_edge.data.dataset import NOT_LABELLED_CLASS, Data, Split
from n2n_edge.data.labels.values import Mask, Numbers, Objects, Points
from n2n_edge.errors import InputError
from n2n_edge.foreign import printable
from n2n_edge.importing import guarded, is_function_name, object_by_name
from n2n_edge.reading import parse_json
from n2n_edge.tasks.classification import Classification
from n2n_edge.tasks.detection_choice import choose_detection
from n2n_edge.tasks.map_choice import choose_by_form, labelled_for_form
from n2n_edge.tasks.metrics import MetricName
from n2n_edge.tasks.names import TASK_NAMES
from n2n_edge.tasks.outputs import OutputsName, choose_outputs, output_kind, output_size
from n2n_edge.tasks.task import Task
from n2n_edge.tasks.values import Values

__all__ = [
    "TASK_KEY",
    "TaskChoice",
    "choose_task",
    "metric_name",
    "outputs_name",
    "recorded_task",
    "task_of",
]

TASK_KEY = "n2n_edge.task"
"""Metadata of an ONNX file: what it does, as `Task.to_json` gives it."""

_OUTPUTS: Mapping[str, OutputsName] = {"classification": "classes", "regression": "values"}


@dataclass(frozen=True)
class TaskChoice:
    """What a model is taken to do, and why."""

    task: Task
    reason: str


def recorded_task(metadata: Mapping[str, str]) -> Mapping[str, object]:
    """Return what a file's metadata say of its task, nothing where they don't."""
    try:
        recorded = parse_json(metadata.get(TASK_KEY, "{}"))
    except ValueError:
        return {}
    return recorded if isinstance(recorded, dict) else {}


def outputs_name(wanted: str | None) -> OutputsName | None:
    """Return what outputs are taken as for a task, None where graph and labels decide that."""
    return None if wanted is None else _OUTPUTS.get(wanted, "values" if wanted in TASK_NAMES else None)


def choose_task(
    model: ir.Model,
    data: Data,
    wanted: str | None = None,
    *,
    decode: str | None = None,
    recorded: Mapping[str, object] | None = None,
) -> tuple[Data, TaskChoice]:
    """Decide what a model does on these data, and return the data with that task.

    `wanted` is the name of a task, or of an object of the user's; None, or ``auto``, goes by what is `recorded` (by
    default in the model's metadata), by graph and labels. `decode` is a user's function that reads a detector's
    outputs. Labels that are values stay where there is one for each number of a single output; class numbers are values
    where the output is one number an image.

    Raises:
        InputError: outputs or labels don't fit what is wanted.
    """
    recorded = recorded_task(model.metadata_props) if recorded is None else recorded
    asked = None if wanted == "auto" else wanted
    wanted = asked or (str(recorded["task"]) if "task" in recorded else None)
    if asked is None and wanted is not None and is_function_name(wanted):
        code = printable(wanted)
        raise InputError(f"the model's metadata name code for its task, {code}: give ‹task› {code} if it is to be run")
    if wanted is not None and is_function_name(wanted):
        task = object_by_name("task", wanted)
        if isinstance(task, type) and issubclass(task, Task):
            with guarded(f"‹task› {wanted}"):
                task = task()
        if not isinstance(task, Task):
            raise InputError(f"‹task› {wanted}: is a {type(task).__name__}; give an object of a subclass of Task")
        return replace(data, task=task), TaskChoice(task, "as asked")
    if decode is not None and wanted not in (None, "detection"):
        raise InputError(f"‹decode› {decode}: reads a detector's boxes, but ‹task› is {wanted}; leave one of them out")
    data, choice = _built_in(model, data, wanted, asked, decode, recorded)
    return data, _with_labels_that_count(choice, data, asked)


def _built_in(
    model: ir.Model,
    data: Data,
    wanted: str | None,
    asked: str | None,
    decode: str | None,
    recorded: Mapping[str, object],
) -> tuple[Data, TaskChoice]:
    if wanted is None and labelled_for_form(data):
        by_form = choose_by_form(model, data, None, recorded)
        if by_form is not None:
            return replace(data, task=by_form[0]), TaskChoice(*by_form)
    if wanted in (None, "detection"):
        found = choose_detection(model, data, asked=asked == "detection", decode=decode, recorded=recorded)
        if found is not None:
            return replace(data, task=found[0]), TaskChoice(*found)
    if wanted in (None, "segmentation", "keypoints", "multilabel"):
        by_form = choose_by_form(model, data, wanted, recorded)
        if by_form is not None:
            return replace(data, task=by_form[0]), TaskChoice(*by_form)
    return _by_outputs(model, data, outputs_name(wanted))


def _with_labels_that_count(choice: TaskChoice, data: Data, asked: str | None) -> TaskChoice:
    """Return the choice, with a word on labels that a task that was asked for doesn't take.

    Raises:
        InputError: nobody asked for a task that leaves boxes, masks or points aside.
    """
    labels = data.validation.annotations or ()
    kinds = kinds_in(labels)
    if not kinds or choice.task.labels(data.validation) is not None:
        return choice
    points = next((len(each.points) for each in labels if isinstance(each, Points)), 0)
    words = {Objects: "boxes", Mask: "masks", Points: f"{points} points an image", Numbers: "numbers"}
    given = ", ".join(sorted(words[kind] for kind in kinds))
    if asked is not None:
        return replace(choice, reason=f"{choice.reason}; its labels ({given}) don't count")
    reader = ", ‹decode› FUNCTION where nothing reads its boxes" if Objects in kinds else ""
    raise InputError(
        f"the labels are {given}, but the model is taken for {choice.task.name} ({choice.reason}): give labels that "
        f"fit, ‹task› where that is wrong{reader}, or ‹task› {choice.task.name} to leave the labels aside"
    )


def _by_outputs(model: ir.Model, data: Data, wanted: OutputsName | None) -> tuple[Data, TaskChoice]:
    labelled = data.labelled
    choice = choose_outputs(
        model,
        wanted,
        labels=len(data.class_names) if labelled else None,
        numeric_labels=data.train.targets is not None,
    )
    if choice.name == "classes":
        task: Task = Classification(output_kind(model, "classes"))
        return replace(data, task=task), TaskChoice(task, choice.reason)
    task, reason = Values(), choice.reason
    size = output_size(model)
    parts = [_with_targets(part, size) for part in (data.train, data.validation, data.test)]
    if any(part.targets is None for part in parts[1:]):  # what is learned from needs no labels
        parts = [replace(part, targets=None) for part in parts]
        if labelled or data.train.targets is not None:
            reason = f"{reason}; the labels don't count, fidelity to the teacher does"
    train, validation, test = parts
    return replace(data, train=train, validation=validation, test=test, task=task), TaskChoice(task, reason)


def _with_targets(part: Split, size: int | None) -> Split:
    targets = part.targets
    if targets is None and part.labels is not None and size == 1:
        labels = part.labels.astype("float32").reshape(-1, 1)
        targets = np.where(labels == NOT_LABELLED_CLASS, np.float32("nan"), labels)
    return replace(part, targets=targets if targets is not None and targets.shape[1] == size else None)


def task_of(model: ir.Model, data: Data) -> Task:
    """Return what a model does on these data: what was chosen for them, else what its graph alone says."""
    if data.task is not None:
        return data.task
    kind = output_kind(model)
    return Values() if kind == "other" else Classification(kind)


def metric_name(model: ir.Model, data: Data) -> MetricName:
    """Name what a model is scored by on these data: its task's metric where they are labelled, else fidelity."""
    task = task_of(model, data)
    labelled = all(task.labels(part) is not None for part in (data.validation, data.test))
    return task.metric if labelled else "fidelity"
