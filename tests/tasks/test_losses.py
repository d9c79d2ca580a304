"""The losses, against their formulas written out."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from n2n_edge.data.labels.values import Mask, Points
from n2n_edge.tasks.channels import ChannelScale
from n2n_edge.tasks.classification import Classification
from n2n_edge.tasks.keypoints import Keypoints
from n2n_edge.tasks.losses import Mean, dice_divergence, normalised_error, tempered_kl
from n2n_edge.tasks.maps import ClassMap
from n2n_edge.tasks.multilabel import Multilabel
from n2n_edge.tasks.points import PointForm
from n2n_edge.tasks.segmentation import Segmentation
from n2n_edge.tasks.task import JoinedTask, Labels
from n2n_edge.tasks.values import Values
from n2n_edge.training.settings import DistillSettings

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
    loss = Classification().loss([STUDENT], [TEACHER], labels, DistillSettings(kd_weight=0.7))
    wanted = 0.7 * tempered_kl(STUDENT, TEACHER, 4.0).item() + 0.3 * entropy
    assert loss.item() == pytest.approx(wanted, rel=1e-5)
    unlabelled = Classification().loss([STUDENT], [TEACHER], None, DistillSettings(kd_weight=0.7))
    assert unlabelled.item() == pytest.approx(tempered_kl(STUDENT, TEACHER, 4.0).item())


def test_a_model_that_ends_in_softmax_is_taught_like_its_logits() -> None:
    labels = torch.tensor([0, 2])
    of_logits = Classification().loss([STUDENT], [TEACHER], labels, DistillSettings())
    for kind, function in (("probabilities", torch.softmax), ("log_probabilities", torch.log_softmax)):
        loss = Classification(kind).loss([function(STUDENT, 1)], [function(TEACHER, 1)], labels, DistillSettings())
        assert loss.item() == pytest.approx(of_logits.item(), rel=1e-4)


def test_values_are_compared_in_units_of_each_channels_variance() -> None:
    teacher = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0)) * 100
    assert normalised_error(teacher, teacher).item() == 0
    assert normalised_error(torch.full_like(teacher, teacher.mean().item()), teacher).item() == pytest.approx(
        1, rel=1e-4
    )
    mixed = (
        torch.randn(64, 4, 20, 30, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1e-3, 1, 1e3, 1e-6])[:, None, None]
    )
    constant = mixed.mean((0, 2, 3), keepdim=True).expand_as(mixed)
    for channels in ([0], [3], [0, 1, 3]):
        student = mixed.clone()
        student[:, channels] = constant[:, channels]
        loss = Values().loss([student, mixed], [mixed, mixed], None, DistillSettings())
        assert loss.item() == pytest.approx(math.log(2) * len(channels) / 4 / 2, rel=0.02)


def test_a_channel_that_hardly_varies_cannot_drown_the_others() -> None:
    teacher = (
        torch.randn(64, 2, 30, 30, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 1e-7])[:, None, None]
    )
    student = (teacher + torch.tensor([0.5, 1e-3])[:, None, None]).requires_grad_()
    loss = Values().loss([student], [teacher], None, DistillSettings())
    loss.backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    first, second = (student.grad[:, channel] * 0.5 for channel in (0, 1))
    assert 1e-5 < abs(float(second.sum() * 1e-3 / first.sum() / 0.5)) < 1e5


def test_a_small_class_of_a_map_counts_as_much_as_a_large_one() -> None:
    teacher = torch.zeros(2, 3, 16, 16)
    teacher[:, 0], teacher[:, 1, :2, :2], teacher[:, 0, :2, :2] = 1.0, 1.0, 0.0
    assert float(dice_divergence(teacher, teacher)) == 0
    background = torch.zeros_like(teacher)
    background[:, 0] = 1.0
    missed = float(dice_divergence(background, teacher))
    assert missed == pytest.approx((1 + 4 / (256 + 252)) / 2)  # all of the one, hardly any of the other
    assert missed > 0.5  # a mean over pixels would be 4 / 256 of that
    student = background.clone().requires_grad_()
    dice_divergence(student, teacher).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert not bool(student.grad[:, 2].any())  # which the teacher sees nowhere
    nothing = float(dice_divergence(background[:, 1:], teacher[:, 2:].expand(-1, 2, -1, -1)))
    assert nothing == 0


class Shared:
    """Two processes that share a batch, as threads that meet in every mean."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2, timeout=20)
        self.given: dict[int, torch.Tensor] = {}

    def mean(self, rank: int) -> Mean:
        def mean(tensor: torch.Tensor) -> torch.Tensor:
            self.given[rank] = tensor
            self.barrier.wait()
            result = (self.given[0] + self.given[1]) / 2
            self.barrier.wait()
            return result

        return mean

    def loss(self, task: JoinedTask, student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor) -> float:
        """Give the loss by labels of a batch that the two halve."""

        def part(rank: int) -> float:
            half = slice(0, len(student) // 2) if rank == 0 else slice(len(student) // 2, None)
            given = [student[half]], [teacher[half]], labels[half]
            found = task.by_labels(*given, DistillSettings(), self.mean(rank))
            return float(found.value)

        with ThreadPoolExecutor(2) as pool:
            return sum(pool.map(part, (0, 1))) / 2


def random_points(count: int) -> list[Points | None]:
    source = np.random.default_rng(3)
    return [None, *(Points(np.c_[source.uniform(2, 14, (3, 2)), [2, 1, 0]]) for _ in range(count - 1))]


@pytest.mark.parametrize(
    ("task", "shape", "labels"),
    [
        (Classification(), (8, 4), np.array([0, 1, 2, 3, -1, -1, -1, 2])),
        (Multilabel(False), (8, 3), np.where(np.arange(8)[:, None] == 2, np.nan, np.eye(8, 3))),
        (Values(scales=(ChannelScale(None, torch.tensor([1.0, 4.0, 0.1])),)), (8, 3), np.eye(8, 3)),
        (Keypoints(PointForm(3), (16, 16), scales=(ChannelScale(None, torch.ones(6)),)), (8, 6), random_points(8)),
        (Keypoints(PointForm(3, maps=True), (16, 16)), (8, 3, 8, 8), random_points(8)),
        (Segmentation(ClassMap(1, 3), (4, 4)), (8, 3, 4, 4), [None] * 4 + [Mask(np.eye(4, dtype=np.uint8))] * 4),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
def test_processes_that_share_a_batch_have_its_loss_by_labels(
    task: JoinedTask, shape: tuple[int, ...], labels: Labels
) -> None:
    source = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(shape, generator=source) for _ in range(2))
    taught = task.taught(labels, torch.device("cpu"))
    assert taught is not None
    whole = task.by_labels([student], [teacher], taught, DistillSettings())
    assert Shared().loss(task, student, teacher, taught) == pytest.approx(float(whole.value), rel=1e-4)
