"""What a second decoding worker brings: photographs per second with one and with two, by turns.

    python benchmarks/engine/loader.py [--rounds 7] [--images 1024] [--folder FOLDER]

Reads different JPEGs of about 400 x 300 at 224 pixels in batches of 128, as a training run does, without a cache and
from the page cache; nothing else is calculated. Each round times one worker and two workers, in changing order, on the
same files. Writes `loader.json` and `loader.md` beside this.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from photographs import CLASSES, make_folder

from n2n_edge.data.dataset import load_data
from n2n_edge.data.loading import Loading
from n2n_edge.data.streaming import batches_of

HERE = Path(__file__).resolve().parent
BATCH, SIZE = 128, 224


def rate(folder: Path, workers: int, images: int, seed: int) -> tuple[float, float]:
    """Return images per second, and seconds of processor time per image."""
    loading = Loading(workers, cache_gb=0.0)
    data = load_data(str(folder), input_shape=(3, SIZE, SIZE), classes=CLASSES, loading=loading)
    order = np.random.RandomState(seed).permutation(len(data.train))[:images]
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    start, spent = time.perf_counter(), time.process_time()
    read = sum(len(batch) for batch in batches_of(data.train.images, batches))
    seconds, spent = time.perf_counter() - start, time.process_time() - spent
    return read / seconds, spent / read


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "photographs"
        make_folder(folder, 5000)
        for turn in range(options.rounds + 1):
            for workers in (1, 2) if turn % 2 else (2, 1):
                measured = rate(folder, workers, options.images, turn)
                if turn:  # the first warms up
                    found[workers].append(measured)
    ratios = [two[0] / one[0] for one, two in zip(found[1], found[2], strict=True)]
    rates = {workers: statistics.median(each for each, _ in rows) for workers, rows in found.items()}
    spent = {workers: 1000 * statistics.median(each for _, each in rows) for workers, rows in found.items()}
    load = os.getloadavg()[0]
    document = {
        "images_per_s": rates, "processor_ms_per_image": spent, "ratio": statistics.median(ratios), "ratios": ratios,
        "cores": os.cpu_count(), "load_average": load, "rounds": found,
    }  # fmt: skip
    (HERE / "loader.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    lines = [
        f"JPEGs of about 400 x 300 decoded at {SIZE} px, {os.cpu_count()} cores, load average {load:.1f}; medians of "
        f"{options.rounds} rounds by turns.",
        "",
        "| workers | images/s | processor time per image, ms |",
        "| --- | --- | --- |",
        *(f"| {workers} | {rates[workers]:,.0f} | {spent[workers]:.2f} |" for workers in rates),
        "",
        f"Two workers to one: {document['ratio']:.2f} (rounds {min(ratios):.2f} to {max(ratios):.2f}); aim: 1.7.",
    ]
    (HERE / "loader.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
