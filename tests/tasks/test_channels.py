"""Errors by channel: what fails in one kind of an output's channels shows, whatever the others are."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from n2n_edge.tasks.channels import channel_scales
from n2n_edge.tasks.values import Values
from n2n_edge.training.evaluation import compare

CLASSES = 20
Form = Callable[[Tensor], Tensor]
FORMS: dict[str, Form] = {
    "(N, C, H, W)": lambda x: x,
    "(N, H, W, C)": lambda x: x.permute(0, 2, 3, 1),
    "(N, C, A)": lambda x: x.flatten(2),
    "(N, A, C)": lambda x: x.flatten(2).transpose(1, 2),
    "(N, 1, C, A)": lambda x: x.flatten(2).unsqueeze(1),
    "(N, A, 1, C)": lambda x: x.flatten(2).transpose(1, 2).unsqueeze(2),
    "(N, 3, H, W, C)": lambda x: torch.stack([x, x.flip(0), x.roll(1, 0)], 1).permute(0, 1, 3, 4, 2),
    "(N, A C)": lambda x: x.flatten(2).transpose(1, 2).flatten(1),
}


def detections(images: int = 24, size: int = 12, box_scale: float = 1.0, score_scale: float = 1.0) -> Tensor:
    """Make what a detector gives: boxes that follow a grid, and scores near nought with rare peaks `(N, C, H, W)`."""
    random = torch.Generator().manual_seed(3)
    grid = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")).float()
    centres = grid + torch.rand(images, 2, size, size, generator=random)
    sizes = torch.rand(images, 2, size, size, generator=random) * 4 + 1
    scores = torch.rand(images, CLASSES, size, size, generator=random) ** 4 * 1e-3
    peaks = torch.rand(images, CLASSES, size, size, generator=random) < torch.logspace(-1, -4, CLASSES)[:, None, None]
    scores = torch.where(peaks, torch.rand(scores.shape, generator=random), scores)
    return torch.cat([torch.cat([centres, sizes], 1) * box_scale, scores * score_scale], 1)


def fidelity(student: Tensor, teacher: Tensor, batch: int = 5) -> float:
    found = compare(zip(student.split(batch)), zip(teacher.split(batch)), None, Values()).fidelity
    assert found is not None
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("box_scale", "score_scale"), [(1.0, 1.0), (32.0, 1.0), (1.0, 1e-4), (640.0, 1e-3)])
@pytest.mark.parametrize("images", [1, 2, 24])
def test_a_detector_without_scores_keeps_the_share_of_its_boxes(
    form: str, box_scale: float, score_scale: float, images: int
) -> None:
    teacher = detections(images, box_scale=box_scale, score_scale=score_scale)
    student = teacher.clone()
    student[:, 4:] = 0
    whole, blind = FORMS[form](teacher), FORMS[form](student)
    assert fidelity(whole, whole) == 1
    share = 4 / (4 + CLASSES)
    assert fidelity(blind, whole) <= (share + 0.03 if form != "(N, A C)" or images > 2 else share + 0.4)


@pytest.mark.parametrize("form", FORMS)
def test_boxes_that_only_follow_the_grid_are_no_boxes(form: str) -> None:
    teacher = detections(box_scale=32.0)
    student = teacher.clone()
    student[:, :4] = student[:, :4].mean(0, keepdim=True)
    assert fidelity(FORMS[form](student), FORMS[form](teacher)) <= CLASSES / (4 + CLASSES) + 0.01


def test_small_errors_cost_little_and_the_fidelity_does_not_depend_on_units() -> None:
    teacher = detections()
    noise = torch.randn(teacher.shape, generator=torch.Generator().manual_seed(0))
    student = teacher + 0.1 * noise * teacher.std((0, 2, 3), keepdim=True)
    near = fidelity(student, teacher)
    assert 0.8 < near < 1
    units = torch.logspace(-4, 4, teacher.shape[1])[:, None, None]
    assert fidelity(student * units, teacher * units) == pytest.approx(near, abs=1e-3)


@pytest.mark.parametrize("value", [0.0, 1e-9, 7.0])
def test_constant_channels(value: float) -> None:
    teacher = detections()
    teacher[:, -1] = value
    assert fidelity(teacher.clone(), teacher) == 1
    rounded, wrong = teacher.clone(), teacher.clone()
    rounded[:, -1] += value * 1e-7
    assert fidelity(rounded, teacher) > 0.999
    wrong[:, -1] += 1
    assert fidelity(wrong, teacher) == pytest.approx(1 - 1 / teacher.shape[1], abs=1e-4)
    everywhere = torch.full((4, 3), value)
    assert fidelity(everywhere.clone(), everywhere) == 1
    assert fidelity(everywhere + 1, everywhere) == 0


def test_points_are_channels_each() -> None:
    points = torch.rand(32, 68, 2, generator=torch.Generator().manual_seed(0)) * torch.linspace(1e-2, 1, 68)[:, None]
    student = points.clone()
    student[:, :34] = 0
    assert fidelity(student, points) == pytest.approx(0.5, abs=0.01)
    assert fidelity(student.flatten(1), points.flatten(1)) == pytest.approx(fidelity(student, points))


def test_scales_tell_how_unlike_channels_are() -> None:
    (alike,) = channel_scales([[torch.randn(32, 4, 20, 20, generator=torch.Generator().manual_seed(0))]])
    (unlike,) = channel_scales([[detections(box_scale=640.0)]])
    assert alike.spread < 2
    assert unlike.spread > 1000


@pytest.fixture(scope="module")
def yolox_outputs(shared_data: Path) -> Tensor:
    import onnxruntime

    model, pictures = shared_data / "exam" / "yolox-nano.onnx", shared_data / "coco128.tar"
    if not model.is_file() or not pictures.is_file():
        pytest.skip("needs yolox-nano.onnx and coco128.tar of the shared data")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    found = []
    with tarfile.open(pictures) as archive:
        for member in [member for member in archive if member.name.endswith(".jpg")][:12]:
            file = archive.extractfile(member)
            assert file is not None
            image = Image.open(file).convert("RGB").resize((416, 416))
            pixels = np.ascontiguousarray(np.asarray(image, np.float32)[None, ..., ::-1].transpose(0, 3, 1, 2))
            found.append(torch.from_numpy(session.run(None, {"images": pixels})[0]))
    return torch.cat(found)


def exported(raw: Tensor) -> Tensor:
    """Decode YOLOX's outputs into one tensor `(N, 84, A)` of pixels and scores, the form of YOLOv8's exports."""
    places = []
    for stride in (8, 16, 32):
        size = 416 // stride
        y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
        places.append(torch.stack([x.flatten(), y.flatten(), torch.full((size * size,), stride)], 1))
    grid = torch.cat(places).float()
    centres, sizes = (raw[..., :2] + grid[:, :2]) * grid[:, 2:], raw[..., 2:4].exp() * grid[:, 2:]
    return torch.cat([centres, sizes, raw[..., 5:] * raw[..., 4:5]], 2).transpose(1, 2)


@pytest.mark.parametrize("form", ["raw", "transposed", "exported", "maps"])
def test_a_real_detector_without_scores_loses_nearly_all(yolox_outputs: Tensor, form: str) -> None:
    raw = yolox_outputs
    teacher = {
        "raw": raw.transpose(1, 2),
        "transposed": raw.transpose(1, 2),
        "exported": exported(raw),
        "maps": raw[:, :2704].transpose(1, 2).reshape(len(raw), 85, 52, 52),
    }[form].clone()
    student = teacher.clone()
    student[:, 4:] = 0
    if form == "raw":
        teacher, student = teacher.transpose(1, 2), student.transpose(1, 2)
    assert fidelity(student, teacher) < 0.06
