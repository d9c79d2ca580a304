"""Synthetic data with exact labels: coloured shapes on textured backgrounds, written as files that people have.

    python benchmarks/tasks/shapes.py detection|segmentation|keypoints|regression FOLDER [--images 400] [--seed 0]

`detection`: YOLO's text files with a data.yaml, three classes. `segmentation`: images/ and masks/ with the classes as
values. `keypoints`: a CSV with the corners of one triangle. `regression`: a CSV with position, size and tilt of one
ellipse. A fifth of the images are for validation, a fifth for tests.
"""

import argparse
import csv
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIDE = 96
CLASSES = ("disc", "box", "cross")
Rng = np.random.Generator


def background(random: Rng) -> Image.Image:
    """Return a picture of soft noise in two colours."""
    coarse = random.integers(0, 2, (6, 6)) * 255
    noise = np.asarray(Image.fromarray(coarse.astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    first, second = random.uniform(20, 235, (2, 3))
    share = noise[..., None] / 255.0
    pixels = first * share + second * (1 - share) + random.normal(0, 12, (SIDE, SIDE, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def colour(random: Rng) -> tuple[int, int, int]:
    """Return a strong colour."""
    levels = random.permutation([random.integers(200, 256), random.integers(0, 60), random.integers(0, 256)])
    return int(levels[0]), int(levels[1]), int(levels[2])


def draw_shape(draw: ImageDraw.ImageDraw, kind: int, x: float, y: float, half: float, fill: object) -> None:
    """Draw a disc, a box or a cross within `half` of its centre."""
    if kind == 0:
        draw.ellipse((x - half, y - half, x + half, y + half), fill=fill)  # type: ignore[arg-type]
    elif kind == 1:
        draw.rectangle((x - half, y - half, x + half, y + half), fill=fill)  # type: ignore[arg-type]
    else:
        arm = half / 3
        draw.rectangle((x - half, y - arm, x + half, y + arm), fill=fill)  # type: ignore[arg-type]
        draw.rectangle((x - arm, y - half, x + arm, y + half), fill=fill)  # type: ignore[arg-type]


def scene(random: Rng) -> tuple[Image.Image, Image.Image, list[tuple[int, float, float, float]]]:
    """Return a picture of one to four shapes, its mask, and class, centre and half size of each."""
    picture, mask = background(random), Image.new("L", (SIDE, SIDE))
    objects: list[tuple[int, float, float, float]] = []
    for _ in range(int(random.integers(1, 5))):
        half = float(random.uniform(7, 20))
        x, y = (float(each) for each in random.uniform(half, SIDE - 1 - half, 2))
        if any(max(abs(x - other[1]), abs(y - other[2])) < 0.8 * (half + other[3]) for other in objects):
            continue
        kind = int(random.integers(len(CLASSES)))
        draw_shape(ImageDraw.Draw(picture), kind, x, y, half, colour(random))
        draw_shape(ImageDraw.Draw(mask), kind, x, y, half, kind + 1)
        objects.append((kind, x, y, half))
    return picture, mask, objects


def split_of(index: int, images: int) -> str:
    """Return what an image is for."""
    return "train" if index < 0.6 * images else "val" if index < 0.8 * images else "test"


def detection(folder: Path, images: int, random: Rng) -> None:
    """Write images/, labels/ and data.yaml."""
    for index in range(images):
        split = split_of(index, images)
        picture, _, objects = scene(random)
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        picture.save(folder / "images" / split / f"{index:05}.png")
        rows = [
            " ".join([str(kind), *(f"{each / SIDE:.5f}" for each in (x + 0.5, y + 0.5, 2 * half + 1, 2 * half + 1))])
            for kind, x, y, half in objects
        ]
        (folder / "labels" / split / f"{index:05}.txt").write_text("\n".join(rows) + "\n")
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(CLASSES))
    splits = "".join(f"{split}: images/{split}\n" for split in ("train", "val", "test"))
    (folder / "data.yaml").write_text(f"path: {folder.absolute()}\n{splits}names:\n{names}")


def segmentation(folder: Path, images: int, random: Rng) -> None:
    """Write images/ and masks/ of every split."""
    for index in range(images):
        split = split_of(index, images)
        picture, mask, _ = scene(random)
        for kind, image in (("images", picture), ("masks", mask)):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
            image.save(folder / split / kind / f"{index:05}.png")


def triangle(random: Rng) -> tuple[Image.Image, list[float]]:
    """Return a picture of a triangle and its corners: the sharp one first, then clockwise."""
    picture = background(random)
    x, y = random.uniform(30, SIDE - 30, 2)
    size, turn = random.uniform(14, 26), random.uniform(-math.pi, math.pi)
    corners = [(x + far * size * math.cos(turn + a), y + far * size * math.sin(turn + a)) for a, far in
               ((0.0, 1.1), (2.5, 0.8), (-2.5, 0.8))]  # fmt: skip
    ImageDraw.Draw(picture).polygon(corners, fill=colour(random))
    return picture, [each for corner in corners for each in corner]


def ellipse(random: Rng) -> tuple[Image.Image, list[float]]:
    """Return a picture of an ellipse, and its centre, length and slenderness."""
    picture = background(random)
    long, slender = random.uniform(12, 28), random.uniform(0.3, 0.9)
    x, y = random.uniform(30, SIDE - 30, 2)
    ImageDraw.Draw(picture).ellipse((x - long, y - long * slender, x + long, y + long * slender), fill=colour(random))
    return picture, [x / SIDE, y / SIDE, long / SIDE, slender]


def table(
    folder: Path, images: int, random: Rng, make: Callable[[Rng], tuple[Image.Image, list[float]]], names: list[str]
) -> None:
    """Write images and a CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", *names, "split"])
        for index in range(images):
            picture, values = make(random)
            picture.save(folder / f"{index:05}.png")
            writer.writerow([f"{index:05}.png", *(f"{value:.4f}" for value in values), split_of(index, images)])


def write(kind: str, folder: Path, images: int, seed: int = 0) -> Path:
    """Write data of a kind, and return what `--data` is given."""
    random = np.random.default_rng(seed)
    if kind == "detection":
        detection(folder, images, random)
        return folder / "data.yaml"
    if kind == "segmentation":
        segmentation(folder, images, random)
        return folder
    if kind == "keypoints":
        table(folder, images, random, triangle, ["tip_x", "tip_y", "right_x", "right_y", "left_x", "left_y"])
    else:
        table(folder, images, random, ellipse, ["x", "y", "length", "slenderness"])
    return folder / "labels.csv"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("detection", "segmentation", "keypoints", "regression"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(write(given.kind, given.folder, given.images, given.seed))
