"""Teachers that come as torch networks: by name, with weights, as programs."""

import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import pytest
import torch
from safetensors.torch import save_file

from n2n_edge.data.preprocessing import Preprocessing, recorded_preprocessing
from n2n_edge.errors import InputError, UnsuitableEnvironmentError
from n2n_edge.graph.teacher import Teacher
from n2n_edge.training import torch_teachers
from n2n_edge.training.torch_teachers import is_torch_teacher, torch_teacher
from tests.graph.running import run

SHAPE = (3, 16, 16)

CODE = """
import torch
from torch import nn

class Versioned(nn.Conv2d):
    # tells old weights by their version, as torchvision's MNASNet does

    _version = 2

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *more):
        if local_metadata.get("version") != 2:
            raise ValueError(f"version {local_metadata.get('version')}")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *more)

def network():
    return nn.Sequential(
        Versioned(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
    )

class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.module = network()

    def forward(self, images):
        return self.module(images)

def wrapped():
    return Wrapped()

def number():
    return 7

def broken():
    raise RuntimeError("no such luck")
"""

UNUSUAL: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sparse": lambda tensor: tensor.to_sparse(),
    "quantized": lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
    "meta": lambda tensor: tensor.to("meta"),
    "complex": lambda tensor: tensor.to(torch.complex64),
}


@pytest.fixture(autouse=True)
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_networks.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("own_networks", None)


def wrapped(weights: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    state = OrderedDict((prefix + name, tensor) for name, tensor in weights.items())
    versions = weights._metadata  # type: ignore[attr-defined]
    inner = {f"{prefix}{name}".removesuffix("."): versions[name] for name in versions}
    state._metadata = OrderedDict({"": {"version": 1}} | inner)  # type: ignore[attr-defined]
    return state


def network() -> torch.nn.Module:
    sys.path.insert(0, ".")
    try:
        import own_networks  # type: ignore[import-not-found]
    finally:
        sys.path.remove(".")
    made = own_networks.network()
    for norm in made.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(norm.running_mean, -1, 1)
            torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    assert isinstance(made, torch.nn.Module)
    return made.eval()


def assert_is(model: ir.Model, module: torch.nn.Module) -> None:
    images = np.random.default_rng(0).standard_normal((3, *SHAPE)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(images)).numpy()
    teacher = Teacher(model)
    (got,) = run(teacher.model, {str(teacher.model.graph.inputs[0].name): images})
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert "BatchNormalization" in {node.op_type for node in teacher.model.graph}
    assert any(group.shrinkable for group in teacher.groups)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("own_networks:network", True), ("a.b:c", True), ("net.pt2", True), ("torchvision:resnet18", True),
        ("timm:mobilenetv3_small_050.lamb_in1k", True), ("model.onnx", False), ("folder/model.onnx", False),
    ],
)  # fmt: skip
def test_what_is_a_torch_teacher(spec: str, expected: bool) -> None:
    assert is_torch_teacher(spec) == expected


@pytest.mark.parametrize("form", ["plain", "nested", "parallel", "compiled", "both", "safetensors"])
def test_a_function_and_its_weights(form: str, tmp_path: Path) -> None:
    module = network()
    weights = module.state_dict()
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pt")
    match form:
        case "plain":
            torch.save(weights, path)
        case "nested":
            torch.save({"epoch": 3, "model": {"state_dict": weights}}, path)
        case "parallel":
            torch.save(wrapped(weights, "module."), path)
        case "compiled":
            torch.save(wrapped(weights, "_orig_mod."), path)
        case "both":
            torch.save(wrapped(weights, "_orig_mod.module."), path)
        case _:
            save_file(weights, path)

    model = torch_teacher("own_networks:network", str(path), SHAPE)

    assert_is(model, module)


def test_a_network_whose_own_part_is_called_module(tmp_path: Path) -> None:
    module = network()
    torch.save({f"module.{name}": tensor for name, tensor in module.state_dict().items()}, tmp_path / "weights.pt")

    assert_is(torch_teacher("own_networks:wrapped", str(tmp_path / "weights.pt"), SHAPE), module)


def test_a_saved_program(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="exporting a program needs onnxscript")
    module = network()
    torch.export.save(torch.export.export(module, (torch.zeros(1, *SHAPE),)), tmp_path / "net.pt2")

    assert_is(torch_teacher(str(tmp_path / "net.pt2"), None, None), module)


@pytest.mark.parametrize(
    ("spec", "weights", "shape", "message"),
    [
        ("own_networks:network", None, None, "give input_shape 3x224x224"),
        ("own_networks:number", None, SHAPE, "gives a int: give a torch.nn.Module"),
        ("own_networks:broken", None, SHAPE, "the function raised RuntimeError: no such luck"),
        ("own_networks:missing", None, SHAPE, "has no function 'missing'"),
        ("no_such_module:network", None, SHAPE, "can't be imported"),
        ("own_networks:network", "absent.pt", SHAPE, "absent.pt: no such file"),
        ("own_networks:network", "text.pt", SHAPE, "can't be read as weights alone"),
        ("own_networks:network", "text.safetensors", SHAPE, "can't be read as weights alone"),
        ("own_networks:network", "pickle.pt", SHAPE, "can't be read as weights alone"),
        ("own_networks:network", "number.pt", SHAPE, "holds no state dict"),
        ("own_networks:network", "other.pt", SHAPE, "missing, such as '0.weight'; 1 unknown, such as 'weight'"),
        ("own_networks:network", "wider.pt", SHAPE, "'7.weight' is (5, 6), Sequential has (4, 6)"),
        ("own_networks:network", "itself.pt", SHAPE, "holds no state dict"),
        ("own_networks:network", "circle.pt", SHAPE, "holds no state dict"),
        ("own_networks:network", "sparse.pt", SHAPE, "'0.weight' is sparse; save plain tensors"),
        ("own_networks:network", "quantized.pt", SHAPE, "'0.weight' is quantized; save plain tensors"),
        ("own_networks:network", "meta.pt", SHAPE, "'0.weight' is without content"),
        ("own_networks:network", "complex.pt", SHAPE, "'0.weight' is complex; save plain tensors"),
        ("absent.pt2", None, None, "no such file"),
        ("text.pt2", None, None, "not a program of torch.export.save"),
        ("text.pt2", "text.pt", None, "a .pt2 program holds its weights"),
    ],
)
def test_bad_input_is_one_line(
    spec: str, weights: str | None, shape: tuple[int, ...] | None, message: str, tmp_path: Path
) -> None:
    for suffix in ("pt", "safetensors", "pt2"):
        (tmp_path / f"text.{suffix}").write_text("not weights")
    module = network()
    torch.save(module, tmp_path / "pickle.pt")  # holds code, not weights alone
    torch.save({"epoch": 3}, tmp_path / "number.pt")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pt")
    torch.save({**module.state_dict(), "7.weight": torch.zeros(5, 6)}, tmp_path / "wider.pt")
    itself: dict[str, object] = {}
    itself["model"] = itself
    torch.save(itself, tmp_path / "itself.pt")
    torch.save({"model": {"net": {"weights": itself}}}, tmp_path / "circle.pt")
    for name, change in UNUSUAL.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.save(
                {key: change(tensor) if tensor.dim() else tensor for key, tensor in module.state_dict().items()},
                tmp_path / f"{name}.pt",
            )

    with pytest.raises(InputError) as caught:
        torch_teacher(spec, weights, shape)

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("zoo", ["torchvision", "timm"])
def test_a_zoo_that_is_missing_says_what_to_install(zoo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, zoo, None)
    monkeypatch.setitem(sys.modules, f"{zoo}.models", None)

    with pytest.raises(UnsuitableEnvironmentError, match=f"needs {zoo}, which can't be imported"):
        torch_teacher(f"{zoo}:resnet18", None, SHAPE)


@pytest.mark.parametrize("zoo", ["torchvision", "timm"])
@pytest.mark.zoos
def test_networks_of_a_zoo_by_name(zoo: str, tmp_path: Path) -> None:
    library = imported(zoo)
    module = library.get_model("resnet18", weights=None) if zoo == "torchvision" else library.create_model("resnet18")
    torch.save(module.state_dict(), tmp_path / "weights.pt")

    assert len(Teacher(torch_teacher(f"{zoo}:resnet18", str(tmp_path / "weights.pt"), (3, 64, 64))).layers) == 21
    with pytest.raises(InputError, match="no such network; nearest: resnet18"):
        torch_teacher(f"{zoo}:resnet188", str(tmp_path / "weights.pt"), (3, 64, 64))


def imported(zoo: str) -> object:
    import importlib

    try:
        return importlib.import_module("torchvision.models" if zoo == "torchvision" else "timm")
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"{zoo} can't be imported here ({error})")


def test_how_a_zoo_trained_its_network_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(784, 4))
    module.default_cfg = {
        "input_size": SHAPE, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "crop_pct": 0.9, "crop_mode": "center",
        "interpolation": "bicubic",
    }  # fmt: skip
    preset = SimpleNamespace(
        crop_size=[224], resize_size=[256], mean=[0.485] * 3, std=[0.229] * 3, interpolation=SimpleNamespace(value="")
    )
    of_weights = SimpleNamespace(DEFAULT=SimpleNamespace(transforms=lambda: preset))
    timm = SimpleNamespace(list_models=lambda: ["net"], create_model=lambda name, pretrained: module)
    torchvision = SimpleNamespace(
        list_models=lambda: ["net"],
        get_model=lambda name, weights: torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten()),
        get_model_weights=lambda name: of_weights,
    )
    libraries = {"timm": timm, "torchvision.models": torchvision}
    monkeypatch.setattr(torch_teachers, "import_module", libraries.__getitem__)

    of_timm = recorded_preprocessing(torch_teacher("timm:net", None, None).metadata_props)
    assert of_timm == Preprocessing(
        SHAPE[1:], crop_ratio=0.9, interpolation="bicubic", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)
    )
    of_torchvision = recorded_preprocessing(torch_teacher("torchvision:net", None, SHAPE).metadata_props)
    assert of_torchvision == Preprocessing(SHAPE[1:], crop_ratio=0.875, mean=(0.485,), std=(0.229,))
