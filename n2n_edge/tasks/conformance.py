"""Conformance suite of tasks: what every `Task` must fulfil, one of the user's own as well."""

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from n2n_edge.tasks.metrics import Evaluation
from n2n_edge.tasks.task import Labels, Meter, Task

__all__ = ["check_task"]

_EXACT = 1e-6


@dataclass(frozen=True)
class _Settings:
    temperature: float = 4.0
    kd_weight: float = 0.9
    label_smoothing: float = 0.0


def check_task(
    task: Task,
    teacher: Sequence[NDArray[Any]],
    *,
    labels: Labels | None = None,
    reference: Callable[[Sequence[NDArray[Any]], Labels], float] | None = None,
    worse: Sequence[NDArray[Any]] | None = None,
    right: Sequence[NDArray[Any]] | None = None,
    agreement: bool = True,
) -> None:
    """Check that a task does what a run relies on.

    `teacher` are a network's outputs for at least four images, ``(N, ...)`` each, as the task reads them; `labels` are
    those of the same images, and `reference` calculates the score from both in another way. `worse` are outputs of a
    network that is further from the teacher; by default the teacher's of other images. `right` are outputs that say
    what the labels do. `agreement` False is for a fidelity that is no agreement with decisions.

    Checked are: the loss is finite, falls as outputs approach the teacher's, and has a gradient; with labels too, where
    `taught` gives them: then images without a label add nothing but what the teacher says, and the loss by labels alone
    falls as outputs approach those that are `right`; the teacher agrees
    with itself entirely, and nothing more; scores are those of `reference` to 1e-6, whatever the batches; arrays and
    tensors give the same; samples of all images give what all give; no image at all, and one, are no error; a task
    survives being sent to another process, and `to_json` can be written. Needs torch.

    >>> from n2n_edge.tasks.classification import Classification
    >>> import numpy as np
    >>> scores = np.random.default_rng(0).normal(size=(8, 5))
    >>> n2n_edge.check_task(Classification(), [scores], labels=scores.argmax(axis=1))

    Raises:
        AssertionError: something of this isn't so, and what.
        ValueError: there are fewer than four images.
    """
    outputs = [np.asarray(each, np.float32) for each in teacher]
    count = len(outputs[0])
    if count < 4:
        raise ValueError(f"check_task wants outputs for at least four images, and got {count}")
    other = [np.roll(each, 1, axis=0) for each in outputs] if worse is None else list(worse)
    measured = _check_loss(task, outputs, other)
    if labels is not None:
        _check_labels(measured, outputs, right, labels)
    _check_meter(task, outputs, other, labels, agreement)
    if labels is not None and reference is not None:
        score, aim = _evaluated(task, outputs, None, labels).score, reference(outputs, labels)
        _that(score is not None and abs(score - aim) <= _EXACT, f"the score is {score}, and the reference says {aim}")
    copy = pickle.loads(pickle.dumps(task))
    _same(
        _evaluated(copy, outputs, other, labels), _evaluated(task, outputs, other, labels), "after being sent elsewhere"
    )
    _that(dict(task.to_json()).get("task") == task.name or ":" in str(task.to_json()["task"]), "to_json lacks the name")
    _written(task)


def _check_loss(task: Task, outputs: Sequence[NDArray[Any]], other: Sequence[NDArray[Any]]) -> Task:
    """Check the loss without labels, and return the task with what it measured of the teacher."""
    import torch

    theirs = tuple(torch.from_numpy(each) for each in outputs)
    measured = task.measured(lambda: [theirs])
    losses = []
    for share in (1.0, 0.5, 0.1, 0.0):
        mixed = [share * far + (1 - share) * near for far, near in zip(other, outputs, strict=True)]
        own = tuple(torch.from_numpy(each.astype(np.float32)).requires_grad_() for each in mixed)
        loss = measured.loss(own, theirs, None, _Settings())
        _that(loss.dim() == 0 and bool(torch.isfinite(loss)), f"the loss must be one finite number, not {loss}")
        if share == 1.0:
            loss.backward()  # type: ignore[no-untyped-call]
            slopes = [each.grad for each in own if each.grad is not None]
            _that(bool(slopes) and any(bool(slope.any()) for slope in slopes), "the loss has no gradient")
            _that(
                all(bool(torch.isfinite(slope).all()) for slope in slopes), "the loss has a gradient that isn't finite"
            )
        losses.append(float(loss.detach()))
    _that(
        all(near < far for far, near in pairwise(losses)),
        f"the loss must fall as outputs approach the teacher's, and was {losses}",
    )
    constant = tuple(each.mean(dim=0, keepdim=True).expand_as(each) for each in theirs)
    unknowing = float(measured.loss(constant, theirs, None, _Settings()))
    _that(
        losses[-1] < unknowing < float("inf"),
        f"the loss of the teacher's mean output for every image must be finite and above the teacher's own, and was "
        f"{unknowing} beside {losses[-1]}",
    )
    return measured


def _check_labels(
    task: Task, outputs: Sequence[NDArray[Any]], right: Sequence[NDArray[Any]] | None, labels: Labels
) -> None:
    """Check the loss by labels where the task takes them, and that of a batch of which only some images have one."""
    import torch

    alone, cpu, count = _Settings(kd_weight=0.0), torch.device("cpu"), len(outputs[0])
    if task.taught(labels, cpu) is None:
        return
    theirs = tuple(torch.from_numpy(each) for each in outputs)

    def loss_of(own: Sequence[Any], told: Labels, settings: _Settings = alone, chosen: Any = slice(None)) -> Any:
        taught = task.taught(told, cpu)
        _that(taught is not None and len(taught) == len(told), "labels must be taught by a tensor, a row for each")
        student, teacher = (tuple(each[chosen] for each in outputs) for outputs in (own, theirs))
        value = task.loss(student, teacher, None if taught is None else taught[chosen], settings)
        _that(value.dim() == 0 and bool(torch.isfinite(value)), f"the loss with labels must be finite, and was {value}")
        return value

    losses, labelled = [], _labelled(task, labels)
    for share in (1.0, 0.7, 0.4, 0.1):
        mixed = [share * far + (1 - share) * near for far, near in zip(outputs, right or outputs, strict=True)]
        own = [torch.from_numpy(each.astype(np.float32)) for each in mixed]
        losses.append(float(loss_of(own, labels, chosen=labelled)))
    _that(
        right is None or all(near < far for far, near in pairwise(losses)),
        f"the loss by labels must fall as outputs approach those that are right, and was {losses}",
    )
    half = np.arange(count) < count // 2
    own = [each.clone().requires_grad_() for each in theirs]
    loss_of(own, _unlabelled(labels, half)).backward()
    slopes = [each.grad.abs().flatten(1).amax(1) for each in own if each.grad is not None]
    steepest = torch.stack(slopes).amax(0) if slopes else torch.zeros(count)
    _that(bool(steepest[count // 2 :].any()), "the loss by labels has no gradient")
    _that(
        bool((steepest[: count // 2] <= 1e-3 * steepest.max()).all()),
        "images without a label have a gradient where they are what the teacher says",
    )
    far = tuple(torch.from_numpy(each) for each in [np.roll(each, 1, axis=0) for each in outputs])
    nothing = float(loss_of(far, _unlabelled(labels, np.ones(count, np.bool_)), _Settings()))
    aim = float(task.loss(far, theirs, None, _Settings()))
    _that(abs(nothing - aim) <= _EXACT * max(1.0, abs(aim)), f"without any label the loss is {nothing}, not {aim}")


def _labelled(task: Task, labels: Labels) -> Any:
    """Return which images have a label as the loss takes it: not the same as one that has none."""
    import torch

    last = np.arange(len(labels) + 1) == len(labels)
    more = np.concatenate([labels, labels[-1:]]) if isinstance(labels, np.ndarray) else [*labels, None]
    taught = task.taught(_unlabelled(more, last), torch.device("cpu"))
    assert taught is not None
    rows = taught.flatten(1) if taught.dim() > 1 else taught[:, None]
    same = (rows == rows[-1]) | (rows.isnan() & rows[-1].isnan())
    return ~same.all(1)[:-1]


def _unlabelled(labels: Labels, chosen: NDArray[np.bool_]) -> Labels:
    """Return labels without those of the chosen images, as data have them: -1 for a class, NaN for numbers."""
    if not isinstance(labels, np.ndarray):
        return [None if without else label for label, without in zip(labels, chosen, strict=True)]
    missing = labels.copy()
    missing[chosen] = np.nan if labels.dtype.kind == "f" else -1
    return missing


def _check_meter(
    task: Task,
    outputs: Sequence[NDArray[Any]],
    other: Sequence[NDArray[Any]],
    labels: Labels | None,
    agreement: bool,
) -> None:
    import torch

    count = len(outputs[0])
    itself = _evaluated(task, outputs, outputs, labels)
    _that(itself.n == count, f"an evaluation of {count} images says n={itself.n}")
    _that(
        itself.fidelity is not None and abs(itself.fidelity - 1) <= _EXACT,
        f"the teacher must agree with itself, and its fidelity is {itself.fidelity}",
    )
    worse = _evaluated(task, other, outputs, labels)
    if agreement:
        _that(
            worse.fidelity is not None and 0 <= worse.fidelity < 1,
            f"what differs from the teacher must have a fidelity below 1 and at least 0, not {worse.fidelity}",
        )
    _same(_evaluated(task, other, outputs, labels, at_once=1), worse, "image by image")
    tensors = [torch.from_numpy(np.ascontiguousarray(each, np.float32)) for each in other]
    _same(_evaluated(task, tensors, [torch.from_numpy(each) for each in outputs], labels), worse, "for tensors")
    meter = _filled(task, other, outputs, labels)
    sample = meter.resampled(np.arange(count))
    if sample is not None and sample.score is not None:
        _same_number(sample.score, worse.score, "the score of a sample of all images")
        twice = meter.resampled(np.repeat(np.arange(count), 2))
        _that(twice is not None and twice.n == 2 * count, "a sample must count an image as often as it is drawn")
    nothing = task.meter().evaluation()
    _that(nothing.n == 0, f"an evaluation of no image says n={nothing.n}")
    one = _evaluated(task, [each[:1] for each in outputs], [each[:1] for each in outputs], _part(labels, 0, 1))
    _that(one.n == 1, f"an evaluation of one image says n={one.n}")


def _filled(
    task: Task, outputs: Sequence[Any], teacher: Sequence[Any] | None, labels: Labels | None, at_once: int | None = None
) -> Meter:
    meter, count = task.meter(), len(outputs[0])
    for start in range(0, count, at_once or count):
        stop = start + (at_once or count)
        theirs = None if teacher is None else tuple(each[start:stop] for each in teacher)
        meter.add(tuple(each[start:stop] for each in outputs), theirs, _part(labels, start, stop))
    return meter


def _evaluated(
    task: Task, outputs: Sequence[Any], teacher: Sequence[Any] | None, labels: Labels | None, at_once: int | None = None
) -> Evaluation:
    return _filled(task, outputs, teacher, labels, at_once).evaluation()


def _part(labels: Labels | None, start: int, stop: int) -> Labels | None:
    return None if labels is None else labels[start:stop]


def _written(task: Task) -> None:
    import json

    json.dumps(dict(task.to_json()))


def _same(found: Evaluation, aim: Evaluation, when: str) -> None:
    _that(found.n == aim.n, f"{when}: n is {found.n} instead of {aim.n}")
    _same_number(found.score, aim.score, f"{when}: the score")
    _same_number(found.fidelity, aim.fidelity, f"{when}: fidelity")


def _same_number(found: float | None, aim: float | None, what: str) -> None:
    same = found is aim if found is None or aim is None else abs(found - aim) <= _EXACT
    _that(same, f"{what} is {found} instead of {aim}")


def _that(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)
