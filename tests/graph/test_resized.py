"""Networks of a fixed input size at another one calculate what they would have, had they been exported for it."""

import warnings

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn
from torch.nn import functional

from n2n_edge.errors import InputError
from n2n_edge.graph.image_session import ImageSession
from n2n_edge.graph.resized import resized
from n2n_edge.graph.teacher import Teacher
from n2n_edge.graph.torch_export import export_module

BEFORE, AFTER = (48, 64), (24, 32)


class Shuffled(nn.Module):
    """A channel shuffle with its sizes written down, as older exporters leave them."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 4, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = self.size[0] // 2, self.size[1] // 2
        y = functional.relu(self.first(x)).reshape(-1, 2, 4, height, width).transpose(1, 2)
        return self.second(y.reshape(-1, 8, height, width)).reshape(-1, 4, height * width)


class Upward(nn.Module):
    """An upsampled map that joins a larger one, its size written down, and a head of flat rows."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.up, self.last = nn.ConvTranspose2d(8, 8, 2, 2), nn.Conv2d(8, 6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = functional.relu(self.first(x))
        deep = functional.relu(self.second(low))
        up = functional.interpolate(deep, size=(self.size[0] // 2, self.size[1] // 2), mode="nearest")
        return self.last(up + low + self.up(deep)).permute(0, 2, 3, 1).reshape(-1, self.size[0] * self.size[1] // 4, 6)


class Pooled(nn.Module):
    """A classifier that pools the whole map by a kernel of its size."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, 4, 1), nn.Linear(8, 5)
        self.pool = nn.AvgPool2d((size[0] // 4, size[1] // 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.pool(functional.relu(self.first(x))).flatten(1))


class Unflattened(nn.Module):
    """Rows of positions that become a map again."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.first, self.last = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = functional.relu(self.first(x)).reshape(-1, 8, self.size[0] * self.size[1] // 4)
        return self.last(rows.reshape(-1, 8, self.size[0] // 2, self.size[1] // 2))


class Listed(nn.Module):
    """Positions as one axis behind another of one, as the grid of a detector has them."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = functional.relu(self.first(x))[0].permute(1, 2, 0)
        return maps.reshape(1, -1, 4)


class Flat(nn.Module):
    """A classifier whose last layer has a weight for each position: for one size alone."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3, 4, 1), nn.Linear(size[0] * size[1] // 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(functional.relu(self.first(x)).flatten(1))


def exported(
    kind: type[nn.Module], size: tuple[int, int], weights: nn.Module | None = None
) -> tuple[ir.Model, nn.Module]:
    torch.manual_seed(0)
    module = kind(size).eval()
    if weights is not None:
        module.load_state_dict(weights.state_dict())
    with warnings.catch_warnings(action="ignore"):
        model = export_module(module, torch.zeros(1, 3, *size))
    model.graph.inputs[0].shape = ir.Shape([1, 3, *size])
    return model, module


@pytest.mark.parametrize("kind", [Shuffled, Upward, Pooled, Unflattened, Listed])
def test_a_network_at_another_size_is_the_one_exported_for_it(kind: type[nn.Module]) -> None:
    model, module = exported(kind, BEFORE)
    wanted, _ = exported(kind, AFTER, module)
    found = resized(model, AFTER)
    batch = np.random.default_rng(0).standard_normal((1, 3, *AFTER)).astype(np.float32)

    (given,), (aim,) = (ImageSession(each).run(batch) for each in (found, wanted))

    assert list(found.graph.inputs[0].shape or ())[2:] == list(AFTER)
    assert given.shape == aim.shape
    assert np.allclose(given, aim, atol=1e-5)
    before, after = (Teacher(each) for each in (model, found))
    assert [layer.name for layer in before.layers] == [layer.name for layer in after.layers]
    (again,) = ImageSession(model).run(np.zeros((1, 3, *BEFORE), np.float32))  # the given model is as it was
    assert again.shape != given.shape or kind is Pooled


def test_a_layer_for_every_position_is_for_one_size_alone() -> None:
    model, _ = exported(Flat, BEFORE)
    with pytest.raises(InputError):
        Teacher(resized(model, AFTER))


def test_a_reshape_that_cannot_follow_is_named() -> None:
    model, _ = exported(Unflattened, (48, 48))  # what a side of 24 becomes is told by nothing
    with pytest.raises(InputError, match=r"Reshape.*has sizes that are for the input"):
        resized(model, (24, 40))
