"""What a JPEG decoder that skips detail saves, and by how much it shifts the pixels that a network sees.

    python benchmarks/engine/draft.py PHOTOGRAPHS [--rounds 5]

PHOTOGRAPHS is a folder of JPEGs (COCO's, about 640 x 480). They are read as the centre that fits at 32, 64 and 96
pixels, and mosaics of 36 of them, of the 11 megapixels that a phone takes, at 96, 160 and 224: with the decoder's draft
mode and without, by turns. Writes `draft.json` and `draft.md` beside this.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from n2n_edge.data.preprocessing import Preprocessing

HERE = Path(__file__).resolve().parent
PLAIN, MOSAIC = (32, 64, 96), (96, 160, 224)
ACROSS, CELL = 6, (640, 480)


def mosaics(files: list[Path], folder: Path, count: int = 12) -> list[Path]:
    """Write pictures of 36 photographs each, in their own detail."""
    random, written = np.random.RandomState(0), []
    for index in range(count):
        whole = Image.new("RGB", (ACROSS * CELL[0], ACROSS * CELL[1]))
        for place, chosen in enumerate(random.choice(len(files), ACROSS * ACROSS)):
            with Image.open(files[chosen]) as photograph:
                cell = photograph.convert("RGB").resize(CELL)
            whole.paste(cell, (place % ACROSS * CELL[0], place // ACROSS * CELL[1]))
        written.append(folder / f"{index}.jpg")
        whole.save(written[-1], quality=90)
    return written


def timed(read: Callable[[Path], NDArray[np.uint8]], files: list[Path]) -> tuple[float, list[NDArray[np.uint8]]]:
    """Return milliseconds of processor time per image, and the images."""
    start = time.process_time()
    images = [read(file) for file in files]
    return 1000 * (time.process_time() - start) / len(files), images


def compared(files: list[Path], size: int, rounds: int) -> dict[str, float]:
    """Return what draft mode saves and shifts."""
    reading = Preprocessing((size, size))
    spent: tuple[list[float], list[float]] = ([], [])
    images: list[list[NDArray[np.uint8]]] = [[], []]

    own = JpegImageFile.draft
    for turn in range(rounds + 1):
        for way in (0, 1) if turn % 2 else (1, 0):
            JpegImageFile.draft = own if way else (lambda *_: None)  # type: ignore[assignment,method-assign]
            milliseconds, images[way] = timed(reading.resized, files)
            if turn:  # the first warms up
                spent[way].append(milliseconds)
    JpegImageFile.draft = own  # type: ignore[method-assign]
    pairs = list(zip(*images, strict=True))
    shifts = np.concatenate([(b.astype(int) - a.astype(int)).ravel() for a, b in pairs])
    touched = sum(bool((a != b).any()) for a, b in pairs)
    return {
        "size": size,
        "images": len(files),
        "touched": touched,
        "without_ms": statistics.median(spent[0]),
        "with_ms": statistics.median(spent[1]),
        "mean_shift": float(np.abs(shifts).mean()),
        "bias": float(shifts.mean()),
        "p99_shift": float(np.percentile(np.abs(shifts), 99)),
        "largest_shift": int(np.abs(shifts).max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    files = sorted(options.photographs.rglob("*.jpg"))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, chosen, sizes in (
            ("640 x 480", files, PLAIN), ("3840 x 2880", mosaics(files, Path(folder)), MOSAIC),
        ):  # fmt: skip
            for size in sizes:
                rows.append({"pictures": name, **compared(chosen, size, options.rounds)})
    document = {"load": os.getloadavg()[0], "rounds": options.rounds, "rows": rows}
    (HERE / "draft.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    lines = [
        f"Processor time of one image, medians of {options.rounds} rounds in turns; shifts of a byte's value, over all "
        "pixels of all images.",
        "",
        "| pictures | at | all pixels | draft | ratio | mean shift | bias | 99% within | largest |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['images']} of {row['pictures']} | {row['size']} px "
        f"| {row['without_ms']:.2f} ms | {row['with_ms']:.2f} ms "
        f"| {row['with_ms'] / row['without_ms']:.2f} | {row['mean_shift']:.2f} | {row['bias']:+.2f} "
        f"| {row['p99_shift']:.0f} | {row['largest_shift']} |"
        for row in rows
    ]
    (HERE / "draft.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
