"""A graph that takes one image at a time, and can't be opened, is run and trained on batches all the same."""

import numpy as np
import onnx_ir as ir
import pytest
import torch

from n2n_edge.graph.free_batch import takes_one_image
from n2n_edge.graph.image_session import ImageSession
from n2n_edge.training.executor import GraphModule
from tests.graph.test_free_batch import EITHER, OPENED, SIZE, Net, images, network


@pytest.mark.parametrize("tail", [True, False])
@pytest.mark.parametrize("name", [name for name in (*OPENED, *EITHER) if name != "norm with default axes"])
def test_a_batch_gives_what_its_images_give_alone(name: str, tail: bool) -> None:
    body, opset = (OPENED | EITHER)[name]
    model = network(body, opset, tail=tail)
    try:
        module = GraphModule(model, whole=True)  # selections are no part of what is learned
    except ValueError as error:
        pytest.skip(str(error))
    session = ImageSession(model)
    expected = np.concatenate([session.run(image[None])[0] for image in images()])

    with torch.inference_mode():
        got = module(torch.from_numpy(images()))

    assert takes_one_image(model)
    assert isinstance(got, torch.Tensor)
    assert np.allclose(expected, session.run(images())[0])
    assert np.allclose(expected, got.numpy(), rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def without_leading_axis() -> ir.Model:
    """Attention over channels in matrices without a batch axis, as of a reader of number plates."""
    return network(lambda net, y: net.op("Reshape", net.op("ReduceMean", y, axes=[2]), net.ints(4, -1)), tail=False)


def test_an_output_without_a_batch_axis_gets_one() -> None:
    model = without_leading_axis()
    batch = images()

    with torch.inference_mode():
        together = GraphModule(model)(torch.from_numpy(batch))

    assert isinstance(together, torch.Tensor)
    assert together.shape == (len(batch), 4, SIZE)
    assert ImageSession(model).run(batch)[0].shape == (len(batch), 4, SIZE)


def test_gradients_are_those_of_the_images_one_by_one() -> None:
    module = GraphModule(without_leading_axis())
    batch = torch.from_numpy(images())

    def gradients(parts: list[torch.Tensor]) -> list[torch.Tensor]:
        module.zero_grad()
        for part in parts:
            outputs = module(part)
            assert isinstance(outputs, torch.Tensor)
            outputs.square().sum().backward()
        return [weight.grad.clone() for weight in module.weights() if weight.grad is not None]

    together, alone = gradients([batch]), gradients(list(batch.split(1)))

    assert len(together) == len(alone) > 0
    assert all(
        torch.allclose(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max())) for a, b in zip(together, alone, strict=True)
    )


def test_images_of_a_graph_with_channels_last_come_either_way() -> None:
    net = Net()
    y = net.op("Relu", net.conv(net.op("Transpose", "x", perm=[0, 3, 1, 2]), 3, 4))
    module = GraphModule(ir.from_proto(net.model(y, ["N", 8, 8, 3], None)))
    pictures = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(module(pictures), module(pictures.permute(0, 2, 3, 1)))
