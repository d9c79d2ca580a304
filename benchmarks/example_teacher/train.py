"""Train the teacher of the built-in example and write it as ONNX, with a results file beside this script.

Run from the repository's root: ``python -m benchmarks.example_teacher.train``. Takes a minute or two on two cores.
The validation split chooses the epoch whose weights are kept; the test split is looked at once, at the end.
"""

import argparse
import copy
import io
import json
import platform
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import sklearn
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.example_teacher.network import DigitsResNet, NetworkShape
from n2n_edge._example import teacher_path
from n2n_edge.data.dataset import Data, Split, load_data

DATA = "builtin:digits"
INPUT_SHAPE = (1, 16, 16)
CLASSES = 10
OPSET = 17
RESULTS = Path(__file__).with_name("results.json")


@dataclass(frozen=True)
class Recipe:
    """How the teacher is trained; shifts are fractions of the image's width, rotations in degrees."""

    seed: int = 0
    epochs: int = 40
    batch: int = 64
    learning_rate: float = 0.08
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.05
    shift: float = 0.08
    rotation_degrees: float = 10.0
    scale: float = 0.08
    threads: int = 1


def main() -> None:
    """Train, export, prove that the export agrees, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--out", type=Path, default=teacher_path(), help="where the ONNX file goes")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the results file goes")
    arguments = parser.parse_args()
    recipe, shape = Recipe(seed=arguments.seed, epochs=arguments.epochs), NetworkShape()

    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    torch.use_deterministic_algorithms(True)
    data = load_normalised()
    started = time.perf_counter()
    network, best_epoch = train(DigitsResNet(shape), data, recipe)
    seconds = time.perf_counter() - started
    arguments.out.write_bytes(export(network, data))
    accuracies = {
        name: onnx_accuracy(arguments.out, split, data)
        for name, split in (("train", data.train), ("validation", data.validation), ("test", data.test))
    }
    results = {
        "data": DATA,
        "images": {"train": len(data.train), "validation": len(data.validation), "test": len(data.test)},
        "accuracy": {name: round(accuracy, 5) for name, accuracy in accuracies.items()},
        "trainable_params": sum(parameter.numel() for parameter in network.parameters()),
        "file_bytes": arguments.out.stat().st_size,
        "largest_difference_torch_onnxruntime": largest_difference(arguments.out, network, data),
        "best_epoch": best_epoch,
        "training_seconds": round(seconds, 1),
        "network": asdict(shape),
        "recipe": asdict(recipe),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
            "scikit-learn": sklearn.__version__,
            "numpy": np.__version__,
        },
    }
    arguments.results.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))


def load_normalised() -> Data:
    """Return the digits with the mean and standard deviation of their training pixels as normalisation."""
    raw = load_data(DATA, input_shape=INPUT_SHAPE, classes=CLASSES)
    pixels = raw.train.images / 255.0
    mean, std = round(float(pixels.mean()), 4), round(float(pixels.std()), 4)
    return load_data(DATA, input_shape=INPUT_SHAPE, classes=CLASSES, mean=(mean,), std=(std,))


def train(network: DigitsResNet, data: Data, recipe: Recipe) -> tuple[DigitsResNet, int]:
    """Train by SGD under a one-cycle schedule; return the network with the weights of its best validation epoch."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images, labels = tensors(data.train, data)
    steps = len(images) // recipe.batch
    optimiser = torch.optim.SGD(
        network.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, epochs=recipe.epochs, steps_per_epoch=steps
    )
    best = (-1.0, float("inf"))
    best_epoch, best_weights = 0, copy.deepcopy(network.state_dict())
    for epoch in range(1, recipe.epochs + 1):
        network.train()
        for chosen in torch.randperm(len(images))[: steps * recipe.batch].split(recipe.batch):  # type: ignore[no-untyped-call]
            optimiser.zero_grad()
            batch = augment(images[chosen], recipe).contiguous(memory_format=torch.channels_last)
            logits = network(batch)
            loss = functional.cross_entropy(logits, labels[chosen], label_smoothing=recipe.label_smoothing)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        accuracy, validation_loss = evaluate(network, data.validation, data)
        if (accuracy, -validation_loss) > (best[0], -best[1]):
            best, best_epoch, best_weights = (accuracy, validation_loss), epoch, copy.deepcopy(network.state_dict())
        print(f"epoch {epoch:2}  validation {accuracy:.2%}  loss {validation_loss:.4f}", file=sys.stderr)
    network.load_state_dict(best_weights)
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return network.eval(), best_epoch


def augment(images: Tensor, recipe: Recipe) -> Tensor:
    """Shift, turn and scale each of ``(N, 1, H, W)`` by a little; what comes in from outside repeats the border."""
    count = len(images)
    angle = (torch.rand(count) * 2 - 1) * recipe.rotation_degrees * torch.pi / 180
    scale = 1 + (torch.rand(count) * 2 - 1) * recipe.scale
    shift = (torch.rand(count, 2) * 2 - 1) * 2 * recipe.shift  # the grid spans -1 to 1
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
    affine = torch.stack(
        [torch.stack([cosine, -sine, shift[:, 0]], dim=1), torch.stack([sine, cosine, shift[:, 1]], dim=1)], dim=1
    )
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def tensors(split: Split, data: Data) -> tuple[Tensor, Tensor]:
    """Return normalised images ``(N, C, H, W)`` and labels ``(N,)``."""
    assert split.labels is not None
    pixels = split.images.astype(np.float32).transpose(0, 3, 1, 2) / 255
    mean, std = (np.array(values, np.float32).reshape(1, -1, 1, 1) for values in (data.mean, data.std))
    images = torch.from_numpy((pixels - mean) / std)
    return images.contiguous(memory_format=torch.channels_last), torch.from_numpy(split.labels)


@torch.no_grad()
def evaluate(network: nn.Module, split: Split, data: Data) -> tuple[float, float]:
    """Return accuracy and mean cross-entropy on a split."""
    network.eval()
    images, labels = tensors(split, data)
    logits = network(images)
    return float((logits.argmax(1) == labels).float().mean()), float(functional.cross_entropy(logits, labels))


def export(network: DigitsResNet, data: Data) -> bytes:
    """Return the network as ONNX bytes: BatchNorm apart, batch axis free, normalisation in the metadata."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # This exporter is deprecated, but the newer one folds BatchNorm away and names weights less readably.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            network,
            (torch.zeros(1, *INPUT_SHAPE),),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            # Evaluation mode would fold BatchNorm into the convolutions; PRESERVE keeps it, and the network is in eval.
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            opset_version=OPSET,
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}},
        )
    model = onnx.load_from_string(buffer.getvalue())
    separate_equal_weights(model)
    onnx.helper.set_model_props(
        model,
        {
            "n2n_edge.data": DATA,
            "n2n_edge.mean": json.dumps(data.mean),
            "n2n_edge.std": json.dumps(data.std),
        },
    )
    onnx.checker.check_model(model, full_check=True)
    norms = sum(node.op_type == "BatchNormalization" for node in model.graph.node)
    expected = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    if norms != expected:
        raise RuntimeError(f"the exporter kept {norms} of {expected} BatchNorms")
    return bytes(model.SerializeToString(deterministic=True))


def separate_equal_weights(model: onnx.ModelProto) -> None:
    """Give every layer weights of its own, in place: the exporter stores equal ones once and passes them by Identity.

    The last norm of a block and that of its projection get the same gradient for their shifts, so those are equal.
    """
    weights = {weight.name: weight for weight in model.graph.initializer}
    for node in [node for node in model.graph.node if node.op_type == "Identity" and node.input[0] in weights]:
        copied = model.graph.initializer.add()
        copied.CopyFrom(weights[node.input[0]])
        copied.name = node.output[0]
        model.graph.node.remove(node)


def onnx_accuracy(path: Path, split: Split, data: Data) -> float:
    """Return the accuracy of the exported file under ONNX Runtime."""
    images, labels = tensors(split, data)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"input": images.contiguous().numpy()})
    return float((logits.argmax(1) == labels.numpy()).mean())


@torch.no_grad()
def largest_difference(path: Path, network: nn.Module, data: Data) -> float:
    """Return the largest absolute difference between the logits of torch and of ONNX Runtime on validation images."""
    images, _ = tensors(data.validation, data)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"input": images.contiguous().numpy()})
    return float(np.abs(logits - network.eval()(images).numpy()).max())


if __name__ == "__main__":
    main()
