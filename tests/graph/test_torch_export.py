"""What torch exports is the module's function, or is refused."""

import re
from collections.abc import Callable

import numpy as np
import pytest

from n2n_edge.errors import InputError
from n2n_edge.graph.teacher import Teacher
from n2n_edge.graph.torch_export import export_module
from tests.graph.running import has_free_batch, run

torch = pytest.importorskip("torch", reason="exporting a module needs torch")
nn = torch.nn
SHAPE = (3, 12, 12)


class Net(nn.Module):  # type: ignore[misc, name-defined]
    """Two convolutions with `between` in the middle."""

    def __init__(self, between: Callable[..., object], last: Callable[..., object] = lambda y: y) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)
        self.between, self.last = between, last

    def forward(self, x):  # type: ignore[no-untyped-def]
        y = self.between(torch.relu(self.first(x)), x)
        return self.last(self.head(torch.relu(self.second(y)).mean((2, 3))))


def python_branch(y, x):  # type: ignore[no-untyped-def]
    return 2 * y if x.mean() > 0 else y


def python_branch_on_the_largest(y, x):  # type: ignore[no-untyped-def]
    return torch.sigmoid(y) if x.max() > 30 else y


def python_number(y, x):  # type: ignore[no-untyped-def]
    return y * float(x.abs().mean())


def python_loop(y, x):  # type: ignore[no-untyped-def]
    for _ in range(int(x.abs().max()) % 4):
        y = 0.5 * y
    return y


def per_image(y, x):  # type: ignore[no-untyped-def]
    return torch.stack([2 * one if image.mean() > 0 else one for one, image in zip(y, x, strict=True)])


@pytest.mark.parametrize("between", [python_branch_on_the_largest, python_loop, per_image])
def test_what_the_tracer_bakes_in_is_refused(between: Callable[..., object]) -> None:
    with pytest.raises(InputError, match=r"torch's export of Net .*give an ONNX file instead") as caught:
        export_module(Net(between), torch.zeros(1, *SHAPE))

    assert "\n" not in str(caught.value)


def test_what_only_the_newer_exporter_can_take_goes_to_it() -> None:
    pytest.importorskip("onnxscript", reason="the newer exporter needs onnxscript")
    module = Net(python_number).eval()
    model = export_module(module, torch.zeros(1, *SHAPE))

    images = np.random.default_rng(1).standard_normal((1, *SHAPE)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(images)).numpy()
    (got,) = run(model, {str(model.graph.inputs[0].name): images})
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


def test_the_tracers_own_words_are_told_and_nothing_of_the_exporters_reaches_the_terminal(
    capfd: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("onnxscript", reason="the newer exporter needs onnxscript")
    with pytest.raises(
        InputError, match=r"differ by \d+%.*the tracer warned: Converting a tensor .*test_torch_export\.py"
    ) as caught:
        export_module(Net(python_branch), torch.zeros(1, *SHAPE))

    assert re.search(r"torch's export of Net .*give an ONNX file instead", str(caught.value))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "between",
    [
        lambda y, x: y + torch.randn_like(y),
        pytest.param(lambda y, x: nn.functional.dropout(y, 0.5), marks=pytest.mark.slow),
    ],
)
def test_a_module_that_is_random_is_refused(between: Callable[..., object]) -> None:
    with pytest.raises(InputError, match="other outputs for the same images each time"):
        export_module(Net(between), torch.zeros(1, *SHAPE))


def with_a_token(y, x):  # type: ignore[no-untyped-def]
    """As a vision transformer does: rows for every image, their number read by `len`."""
    rows = y.flatten(2).transpose(1, 2)
    token = torch.ones(1, 1, 6).expand(len(x), -1, -1)
    rows = torch.cat([token, rows], 1)[:, 1:]
    return rows.transpose(1, 2).reshape(len(x), 6, *x.shape[2:])


@pytest.mark.parametrize(
    "between",
    [
        lambda y, x: torch.where(x.mean((1, 2, 3), keepdim=True) > 0, 2 * y, y),
        lambda y, x: y.reshape(x.shape[0], 6, -1).reshape(y.shape),
        with_a_token,
    ],
)
def test_what_is_exported_is_the_module_for_one_image_and_for_many(between: Callable[..., object]) -> None:
    pytest.importorskip("onnxscript", reason="the newer exporter needs onnxscript")
    module = Net(between).eval()
    teacher = Teacher(export_module(module, torch.zeros(1, *SHAPE)))

    assert has_free_batch(teacher.model)
    for count in (1, 3):
        images = np.random.default_rng(count).standard_normal((count, *SHAPE)).astype(np.float32) - 0.1
        with torch.no_grad():
            expected = module(torch.from_numpy(images)).numpy()
        (got,) = run(teacher.model, {str(teacher.model.graph.inputs[0].name): images})
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "last",
    [
        lambda y: (y, y.sigmoid()),
        lambda y: {"scores": y, "boxes": y[:, :2]},
        lambda y: [y, {"b": y[:, :2], "a": y[:, :3]}],
        lambda y: (y, None),
        lambda y: y.argmax(1),
    ],
)
def test_outputs_of_every_form_are_taken(last: Callable[..., object]) -> None:
    model = export_module(Net(lambda y, x: y, last), torch.zeros(1, *SHAPE))

    assert model.graph.inputs


def test_a_warning_of_the_tracer_stays_with_a_file_that_is_right() -> None:
    def harmless(y, x):  # type: ignore[no-untyped-def]
        return y if x.shape[1] == 3 and bool(torch.tensor(3) == x.shape[1]) else 2 * y

    model = export_module(Net(harmless), torch.zeros(1, *SHAPE))

    assert "test_torch_export.py" in model.metadata_props["n2n_edge.export_warning"]


def test_what_an_exporter_prints_past_python_stays_out_of_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    """A pool to more cells than there are: the first exporter prints its graph from C++, the second one takes it."""
    pytest.importorskip("onnxscript", reason="the newer exporter needs onnxscript")
    enlarging = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(196, 2))

    export_module(enlarging, torch.zeros(1, 3, 5, 5))

    assert capfd.readouterr() == ("", "")
