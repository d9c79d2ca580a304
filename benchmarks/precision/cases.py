"""The networks of the benchmark of precision: float files, and the images that each is calibrated and scored on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import onnx_ir as ir

from n2n_edge.data.dataset import Data, load_data
from n2n_edge.data.preprocessing import Preprocessing
from n2n_edge.graph.batchnorm import fold_batchnorm
from n2n_edge.graph.teacher import Teacher
from n2n_edge.tasks.choice import choose_task

__all__ = ["CASES", "Case"]


@dataclass(frozen=True)
class Case:
    """A float file below `root`, the folder of models or that of the trained teachers, and how it is fed."""

    root: Literal["models", "teachers"]
    file: str
    data: Literal["cifar", "coco", "people"]
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    test_images: int | None = None

    def load(self, models: Path, teachers: Path, sources: Mapping[str, Path]) -> tuple[Path, ir.Model, Data]:
        """Return the file, its graph in normal form with its norms folded, and its data with their task."""
        path = (models if self.root == "models" else teachers) / self.file
        teacher = Teacher.load(path)
        preprocessing = Preprocessing(**self.preprocessing)
        classes = 10 if self.data == "cifar" else None
        data = load_data(
            str(sources[self.data]), preprocessing=preprocessing, classes=classes, may_be_values=classes is None
        )
        data, _ = choose_task(teacher.model, data)
        return path, fold_batchnorm(teacher.model), data


_CIFAR = {"size": (32, 32), "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_BYTES = {"size": (32, 32), "pixels": "0..255"}

CASES: Mapping[str, Case] = {
    "resnet20": Case("models", "teachers/resnet20_jpeg.onnx", "cifar", _CIFAR),
    "resnet56": Case("models", "teachers/resnet56_jpeg.onnx", "cifar", _CIFAR),
    "mobilenet-v2": Case("teachers", "mobilenet-v2.onnx", "cifar", _CIFAR),
    "mobilenet-v3": Case("teachers", "mobilenet-v3.onnx", "cifar", _CIFAR),
    "efficientnet": Case("teachers", "efficientnet.onnx", "cifar", _CIFAR),
    "resnet8": Case("models", "models/mlperftiny_ic_resnet8_fp32.onnx", "cifar", _BYTES),
    "yolox-nano": Case(
        "models", "exam/yolox-nano.onnx", "coco",
        {"size": (416, 416), "resize": "letterbox", "pad_position": "top-left", "channel_order": "bgr",
         "pixels": "0..255"},
    ),
    "selfie": Case("models", "exam/selfie.onnx", "people", {"size": (144, 256), "resize": "squash"}),
}  # fmt: skip
