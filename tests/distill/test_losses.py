"""The losses, against their formulas written out."""

import math

import pytest
import torch

from n2n_edge.distill import distillation_loss, normalised_error, tempered_kl

TEACHER = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.5, 0.0]])
STUDENT = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.0, 3.0]])


def softmax(row: list[float]) -> list[float]:
    exponentials = [math.exp(value) for value in row]
    return [value / sum(exponentials) for value in exponentials]


def test_tempered_kl_is_the_mean_divergence_times_the_squared_temperature() -> None:
    temperature = 4.0
    total = 0.0
    for teacher_row, student_row in zip(TEACHER.tolist(), STUDENT.tolist(), strict=True):
        p = softmax([value / temperature for value in teacher_row])
        q = softmax([value / temperature for value in student_row])
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert tempered_kl(STUDENT, TEACHER, temperature).item() == pytest.approx(total / 2 * 16, rel=1e-5)
    assert tempered_kl(TEACHER, TEACHER + 3.0, temperature).item() == pytest.approx(0, abs=1e-6)


def test_labels_add_cross_entropy_by_weight() -> None:
    labels = torch.tensor([0, 2])
    entropy = -sum(math.log(softmax(row)[k]) for row, k in zip(STUDENT.tolist(), (0, 2), strict=True)) / 2
    loss = distillation_loss([STUDENT], [TEACHER], labels, kind="logits", temperature=4.0, kd_weight=0.7)
    wanted = 0.7 * tempered_kl(STUDENT, TEACHER, 4.0).item() + 0.3 * entropy
    assert loss.item() == pytest.approx(wanted, rel=1e-5)
    unlabelled = distillation_loss([STUDENT], [TEACHER], None, kind="logits", temperature=4.0, kd_weight=0.7)
    assert unlabelled.item() == pytest.approx(tempered_kl(STUDENT, TEACHER, 4.0).item())


def test_a_model_that_ends_in_softmax_is_taught_like_its_logits() -> None:
    labels = torch.tensor([0, 2])
    of_logits = distillation_loss([STUDENT], [TEACHER], labels, kind="logits", temperature=4.0, kd_weight=0.9)
    for kind, function in (("probabilities", torch.softmax), ("log_probabilities", torch.log_softmax)):
        loss = distillation_loss(
            [function(STUDENT, 1)], [function(TEACHER, 1)], labels, kind=kind, temperature=4.0, kd_weight=0.9
        )
        assert loss.item() == pytest.approx(of_logits.item(), rel=1e-4)


def test_other_outputs_are_compared_in_units_of_the_teachers_variance() -> None:
    teacher = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0)) * 100
    assert normalised_error(teacher, teacher).item() == 0
    assert normalised_error(torch.full_like(teacher, teacher.mean().item()), teacher).item() == pytest.approx(
        1, rel=1e-4
    )
    loss = distillation_loss(
        [teacher, teacher.mean().expand_as(teacher)],
        [teacher, teacher],
        None,
        kind="other",
        temperature=4.0,
        kd_weight=1,
    )
    assert loss.item() == pytest.approx(0.5, rel=1e-4)
