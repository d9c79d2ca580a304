"""Memory of a training step, and the images that go through at once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from n2n_edge.data.dataset import Data
from n2n_edge.training import step_memory as module
from n2n_edge.training.compute import Engine
from n2n_edge.training.distillation import distill
from n2n_edge.training.settings import DistillSettings
from n2n_edge.training.step_memory import StepMemory, free_bytes, images_at_once, step_memory
from tests.training.small import small_cnn

CPU = torch.device("cpu")


def test_what_a_step_takes_grows_with_the_network_and_shrinks_with_the_format(striped_data: Data) -> None:
    small, wide = (small_cnn(width=width, classes=3) for width in (8, 16))
    least = step_memory(small, small, striped_data, Engine(CPU))
    more = step_memory(wide, wide, striped_data, Engine(CPU))
    assert 1.5 < more.image_bytes / least.image_bytes < 2.5
    assert more.fixed_bytes > least.fixed_bytes
    short = step_memory(wide, wide, striped_data, Engine(CPU, "bf16"))
    assert short.image_bytes < more.image_bytes
    # the stem's output, its norm and its activation are saved at least
    assert least.image_bytes > 3 * 8 * 16 * 16 * 4
    assert more.of(10) - more.of(9) == more.image_bytes


@pytest.mark.parametrize(("free", "expected"), [(4_000_000_000, 128), (2_400_000_000, 64), (300_000_000, 8), (0, 2)])
def test_a_batch_is_halved_until_a_step_fits(free: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_bytes", lambda device: free)
    assert images_at_once(StepMemory(10_000_000, 9_000_000), 128, CPU) == expected


def test_a_control_group_limits_what_is_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_CGROUP", tmp_path / "none")
    machine = free_bytes(CPU)
    for name, text in (("max", "30000000"), ("current", "20000000"), ("stat", "anon 1\ninactive_file 5000000\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    monkeypatch.setattr(module, "_CGROUP", tmp_path)
    assert machine > 100_000_000
    assert free_bytes(CPU) == 15_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(CPU) > 100_000_000


def without_norms(model: ir.Model) -> ir.Model:
    for node in [node for node in model.graph if node.op_type == "BatchNormalization"]:
        ir.convenience.replace_all_uses_with(node.outputs[0], node.inputs[0])  # type: ignore[arg-type]
        model.graph.remove(node, safe=True)
    return model


def test_gradients_of_parts_add_up_to_those_of_the_batch(striped_data: Data) -> None:
    student, teacher = (without_norms(small_cnn(width=width, classes=3)) for width in (4, 8))
    settings = DistillSettings(epochs=1, batch_size=32, precision="fp32", device="cpu", threads=1)

    def weights(at_once: int | None) -> list[np.ndarray]:
        model = distill(student, teacher, striped_data, replace(settings, images_at_once=at_once)).model
        return [v.const_value.numpy() for v in model.graph.initializers.values() if v.const_value is not None]

    for whole, parts in zip(weights(None), weights(8), strict=True):
        np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-6)
