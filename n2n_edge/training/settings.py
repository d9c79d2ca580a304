"""How a distillation is run."""

import re
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal, get_args

from n2n_edge.errors import InputError
from n2n_edge.importing import is_function_name

__all__ = ["AUGMENTATIONS", "DistillSettings", "Format", "Precision", "check_augment", "check_device"]

Format = Literal["fp32", "bf16", "fp16"]
"""The number format of convolutions and matrix products; weights, sums and losses are float32 in each."""

Precision = Literal["auto", "fp32", "bf16", "fp16"]
"""What a user may ask for: a format, or the fastest that device and graph allow."""

AUGMENTATIONS = ("auto", "none", "light", "standard")

_LEAST_STEPS, _LEAST_BATCH = 8, 16

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def check_device(device: str, precision: str, processes: int) -> None:
    """Raise InputError where settings name no device or number format, or too few processes."""
    if not _DEVICE.fullmatch(device):
        raise InputError(f"‹train_device› {device}: no such device; give auto, cpu, cuda, cuda:N or mps")
    if precision not in get_args(Precision):
        raise InputError(f"‹train_precision› {precision}: no such format; give {', '.join(get_args(Precision))}")
    if processes < 1:
        raise InputError(f"‹gpus› {processes}: must be at least 1")


def check_augment(augment: object, flip: bool | None) -> None:
    """Raise InputError for what is neither an augmentation's name nor that of a function, or has nothing to mirror."""
    if augment not in AUGMENTATIONS and not (isinstance(augment, str) and is_function_name(augment)):
        raise InputError(f"‹augment› {augment}: give {', '.join(AUGMENTATIONS)}, or package.module:function")
    if flip and augment not in ("auto", "light", "standard"):
        raise InputError(f"‹flip› belongs to light and standard, and ‹augment› is {augment}: leave one out")


@dataclass(frozen=True)
class DistillSettings:
    """Settings of a distillation; the defaults are for small image classifiers.

    `learning_rate` is the peak of a cosine schedule after a short warm-up; `weight_decay` touches weights of two or
    more axes only. `augment` is what is done to images from the second epoch on: ``light`` shifts and mirrors
    (benchmarks/distillation), ``standard`` crops, scales and mirrors, ``auto`` is light for images of less than 96
    pixels, ``none`` leaves them as they are; or ``package.module:function``, called with bytes `(N, H, W, C)` and a
    torch.Generator. `flip` None means: images of three channels may be mirrored, others (digits, characters) not.
    `images_per_epoch` limits an epoch to so many images, freshly drawn. `hint_weight` is what feature hints count at
    the start (see `FeatureHints`);
    after `teacher_images` augmented images they come back with the teacher's outputs for them (see `Teaching`).
    `device` is ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; `processes` train
    together, each on its part of every batch: as many CUDA devices, or parts of the processor. `precision` ``auto``
    calculates in bfloat16 where the processor has instructions for it and few convolutions are grouped, on CUDA in
    bfloat16 or (before Ampere) float16; what is evaluated is always float32. `images_at_once` go through the network
    together, gradients being summed up to `batch_size`; None: the whole batch (`step_memory.images_at_once` tells how
    many fit). `threads` None leaves torch's number as it is.
    """

    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    temperature: float = 4.0
    kd_weight: float = 0.9
    label_smoothing: float = 0.0
    hint_weight: float = 1.0
    teacher_images: int = 200_000
    gradient_clip: float = 5.0
    seed: int = 0
    flip: bool | None = None
    augment: str = "auto"
    images_per_epoch: int | None = None
    calibration_images: int = 4096
    precision: Precision = "auto"
    device: str = "auto"
    processes: int = 1
    images_at_once: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        check_device(self.device, self.precision, self.processes)
        check_augment(self.augment, self.flip)
        for name in (
            "epochs",
            "batch_size",
            "images_per_epoch",
            "teacher_images",
            "calibration_images",
            "images_at_once",
            "threads",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}: must be at least 1")
        for name in ("learning_rate", "temperature", "gradient_clip"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}: must be above 0")
        for name in ("momentum", "kd_weight", "label_smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}: must lie between 0 and 1")
        for name in ("weight_decay", "hint_weight"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}: must not be negative")

    def for_images(self, images: int) -> "DistillSettings":
        """Return the settings for an epoch of so many training images.

        Of few images a batch is smaller, so that an epoch takes several steps, and the rate falls with it (Goyal et
        al., Accurate, Large Minibatch SGD, 2017, the other way round). A batch that is larger than usual was asked for.
        """
        if self.batch_size > DistillSettings.batch_size:
            return self
        fitting = 1 << max(0, (images // _LEAST_STEPS).bit_length() - 1)
        batch = min(self.batch_size, max(_LEAST_BATCH, fitting))
        return replace(self, batch_size=batch, learning_rate=self.learning_rate * batch / self.batch_size)

    def rounds(self, images: int) -> int:
        """Epochs over so many training images after which batches come back: the first, then those augmented."""
        if self.images_per_epoch is not None:
            return self.epochs
        return min(self.epochs, 1 + ceil(self.teacher_images / images))

    def augments(self, epoch: int) -> bool:
        """Whether the images of an epoch, the first being 1, are augmented: what is new is seen as it is."""
        return self.augment != "none" and epoch > 1

    def flips(self, channels: int) -> bool:
        """Whether images of so many channels are mirrored."""
        return channels == 3 if self.flip is None else self.flip
