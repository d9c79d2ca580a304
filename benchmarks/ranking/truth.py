"""The yardstick: the accuracy of every architecture of the sample, refitted to the teacher, then distilled.

The distillation is one pass over 64,000 augmented images; accuracy is that on all 5,000 validation images.

``python benchmarks/ranking/truth.py resnet20_jpeg.onnx CIFAR [--part K/N]`` writes ``truth.json`` (or a part of it);
what is there already is kept.
"""

import argparse
import json
from pathlib import Path

import torch
from sample import architectures

from n2n_edge.data.dataset import load_data
from n2n_edge.graph.costs import costs
from n2n_edge.graph.teacher import Teacher, build, surviving
from n2n_edge.training.proxy_evaluation import ShortDistiller
from n2n_edge.training.settings import DistillSettings

HERE = Path(__file__).parent
IMAGES = 64_000
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    """Distil and write after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("data")
    parser.add_argument("--part", default="0/1", help="K/N: every N-th architecture from the K-th on")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "truth.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    part, parts = (int(number) for number in options.part.split("/"))
    teacher = Teacher.load(options.teacher)
    data = load_data(options.data, input_shape=(3, 32, 32), classes=10, mean=MEAN, std=STD)
    distiller = ShortDistiller(
        teacher.model, data, IMAGES, DistillSettings(calibration_images=4096), validation_images=5000
    )
    known = json.loads(options.out.read_text()) if options.out.exists() else {}
    known["teacher"] = {"accuracy": distiller.teacher.metric}
    for index, architecture in enumerate(architectures(teacher)):
        if index % parts != part or architecture.key in known:
            continue
        model = build(teacher, architecture)
        judged = distiller.evaluate(model, surviving(teacher, architecture), seed=0)
        counted = costs(model)
        known[architecture.key] = {
            "architecture": architecture.to_json(),
            "params": counted.params,
            "macs": counted.macs,
            "accuracy": judged.accuracy,
            "loss": judged.loss,
            "seconds": round(judged.seconds, 1),
        }
        print(index, architecture.key, judged.accuracy, f"{judged.seconds:.0f} s", flush=True)
        options.out.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
