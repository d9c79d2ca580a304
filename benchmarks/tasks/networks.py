"""The networks of the benchmark, how each is fed, and the images, arranged so that no label is learnt from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

__all__ = ["NETWORKS", "Network", "arranged"]

_PARTS = {0: "val", 2: "test", 4: "test"}
"""Of every six images of people, which are held out, and for what."""


@dataclass(frozen=True)
class Network:
    """A teacher's file, the images that it looks at, and how it is fed.

    `images` are those of COCO, or of people with masks; `labelled` tells that their labels are what it says. Where they
    aren't, `options` name the task, so that labels of another kind are left aside.
    """

    file: str
    images: Literal["coco", "people"]
    labelled: bool
    options: Mapping[str, object] = field(default_factory=dict)


_NANODET = {"mean": (103.53, 116.28, 123.675), "std": (57.375, 57.12, 58.395), "pixels": "0..255"}
_BGR = {"channels": "bgr", "resize": "squash"}
_PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
"""Pixels as they are."""

NETWORKS: Mapping[str, Network] = {
    "yolox-nano": Network(
        "exam/yolox-nano.onnx", "coco", True,
        {"channels": "bgr", "resize": "letterbox", "pad_position": "top-left", "pixels": "0..255", **_PLAIN},
    ),
    "nanodet-m-416": Network("exam/nanodet-m-416.onnx", "coco", True, {**_BGR, **_NANODET}),
    "fastestdet": Network("exam/fastestdet.onnx", "coco", True, {**_BGR, **_PLAIN}),
    "yolov8-lite-t": Network(
        "exam/yolov8-lite-t.onnx", "people", False,
        {"task": "detection", "resize": "letterbox", **_PLAIN},
    ),
    "ultraface": Network(
        "models/ultraface_RFB-320.onnx", "people", False,
        {"task": "detection", "resize": "squash", "mean": (127.0, 127.0, 127.0),
         "std": (128.0, 128.0, 128.0), "pixels": "0..255"},
    ),
    "selfie": Network("exam/selfie.onnx", "people", True, {"resize": "squash", **_PLAIN}),
    "pfld": Network("exam/pfld.onnx", "people", False, {"task": "keypoints", **_PLAIN}),
    "ppocrv3-det-en": Network(
        "exam/ppocrv3-det-en.onnx", "coco", False, {"task": "segmentation", "input_shape": (3, 320, 320)},
    ),
}  # fmt: skip


def arranged(images: str, source: Path, work: Path) -> tuple[str, tuple[str, ...]]:
    """Link images below `work`, without the labels of those to learn from; return `--data` and `--unlabelled`.

    `source` is COCO's in YOLO's layout with its two splits, or a folder with images/ and masks/.
    """
    folder = work / images
    if images == "coco":
        spec = folder / "data.yaml"
        if not spec.exists():
            _link(source / "images" / "train2017", folder / "images" / "learn")
            _link(source / "images" / "val2017", folder / "images" / "val")
            _link(source / "labels" / "val2017", folder / "labels" / "val")
            _, _, names = (source / "data.yaml").read_text().partition("names:\n")
            spec.write_text(f"path: {folder.absolute()}\ntrain: images/learn\nval: images/val\nnames:\n{names}")
        return str(spec), ()
    pictures = sorted((source / "images").iterdir())
    masks = {path.stem: path for path in (source / "masks").iterdir()}
    for place, picture in enumerate(pictures):
        if part := _PARTS.get(place % 6):
            mask = masks[picture.stem]
            _link(picture, folder / part / "images" / picture.name)
            _link(mask, folder / part / "masks" / mask.name)
        else:
            _link(picture, work / "people-learn" / picture.name)
    return str(folder), (str(work / "people-learn"),)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.is_symlink():
        target.symlink_to(source.absolute())
