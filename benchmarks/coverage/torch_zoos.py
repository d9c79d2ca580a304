"""Networks of timm and torchvision as teachers: ``torch_zoos.py FOLDER`` exports each to an ONNX file for `run.py`.

Weights are random (nothing is fetched) and come as a state dict, as a user's would. Torchvision's networks of other
tasks are made by functions of this module: segmentation without auxiliary head, and the backbone of a detector, whose
outputs are the maps of its feature pyramid. ``torch_zoos.py --smallest 30`` prints the smallest CNNs of timm.
"""

import argparse
import json
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from zoo import settle

from n2n_edge.graph.load import save_model
from n2n_edge.training.torch_teachers import torch_teacher

__all__ = ["DETECTORS", "SEGMENTERS", "TIMM", "TORCHVISION", "export", "specs"]

_SIZES = dict.fromkeys(("alexnet", "vgg11", "vgg11_bn"), 224) | {"inception_v3": 299, "ssd300_vgg16": 300}
"""Height and width of images, pixels, where a network isn't made for `_SIZE`."""

_SIZE = 128

TIMM = (
    "starnet_s050", "starnet_s100", "dla46x_c", "dla46_c", "dla60x_c", "starnet_s150", "mobilenetv3_small_050",
    "lcnet_035", "mobilenetv2_035", "lcnet_050", "ese_vovnet19b_slim_dw", "mobilenetv4_conv_small_035",
    "mobilenetv2_050", "mnasnet_small", "mobilenetv3_small_075", "tf_mobilenetv3_small_075", "tinynet_e",
    "tf_mobilenetv3_small_minimal_100", "semnasnet_050", "convnext_zepto_rms", "convnext_zepto_rms_ols",
    "mnasnet_050", "mobilenetv4_conv_small_050", "repghostnet_050", "tinynet_d", "lcnet_075", "tinynet_c",
    "mobilenetv3_small_100", "tf_mobilenetv3_small_100", "repghostnet_058",
)  # fmt: skip
"""The smallest CNNs of timm 1.0.31 by params: ``torch_zoos.py --smallest 30``."""

TORCHVISION = (
    "alexnet", "vgg11", "vgg11_bn", "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "squeezenet1_0",
    "squeezenet1_1", "densenet121", "googlenet", "inception_v3", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0",
    "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "mnasnet0_5", "mnasnet1_0", "efficientnet_b0",
    "efficientnet_v2_s", "regnet_x_400mf", "regnet_y_400mf", "convnext_tiny",
)  # fmt: skip
SEGMENTERS = ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50", "fcn_resnet50")
DETECTORS = (
    "ssdlite320_mobilenet_v3_large", "ssd300_vgg16", "fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn", "fcos_resnet50_fpn", "keypointrcnn_resnet50_fpn",
)  # fmt: skip


class _Maps(nn.Module):
    """A network of torchvision whose outputs stand in a dictionary, as a tuple of tensors."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.module(images).values())


def _made(name: str) -> nn.Module:
    from torchvision.models import get_model

    if name in DETECTORS:
        return _Maps(get_model(name, weights=None, weights_backbone=None).backbone)
    more = {} if name.startswith("lraspp") else {"aux_loss": False}
    return _Maps(get_model(name, weights=None, weights_backbone=None, **more))


def __getattr__(name: str) -> object:
    """Give the function that makes a segmenter or detector of torchvision, for ``torch_zoos:NAME``."""
    if name in SEGMENTERS or name in DETECTORS:
        return lambda: _made(name)
    raise AttributeError(name)


def specs() -> dict[str, str]:
    """Return each network's name in the table and how it is named as a teacher."""
    zoos = {"timm": TIMM, "torchvision": TORCHVISION, "torch_zoos": (*SEGMENTERS, *DETECTORS)}
    return {
        f"{zoo.replace('torch_zoos', 'torchvision')}-{name}": f"{zoo}:{name}"
        for zoo, names in zoos.items()
        for name in names
    }


def _settled(spec: str, size: int) -> dict[str, Tensor]:
    """Return random weights that don't make the network chaotic."""
    zoo, _, name = spec.partition(":")
    torch.manual_seed(0)
    if zoo == "timm":
        import timm

        module = timm.create_model(name, pretrained=False)
    elif zoo == "torchvision":
        from torchvision.models import get_model

        module = get_model(name, weights=None)
    else:
        module = _made(name)
    settle(module, torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1)))
    return module.state_dict()


def export(spec: str, path: Path, size: int | None = None) -> None:
    """Write a network to `path` as `compress` would export it."""
    size = size or _SIZES.get(spec.partition(":")[2], _SIZE)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        weights = Path(folder) / "weights.pt"
        torch.save(_settled(spec, size), weights)
        save_model(torch_teacher(spec, str(weights), (3, size, size)), path)


def smallest_timm_cnns(count: int) -> list[tuple[int, str]]:
    """Return params and names of timm's smallest networks with convolutions, without attention; its test ones aside."""
    import timm

    sizes: list[tuple[int, str]] = []
    for name in timm.list_models(pretrained=False, exclude_filters=["test_*"]):
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            module = timm.create_model(name, pretrained=False)
        kinds = " ".join(type(item).__name__.lower() for item in module.modules())
        if "conv2d" in kinds and not any(word in kinds for word in ("attention", "attn", "mhsa", "mixer")):
            sizes.append((sum(item.numel() for item in module.parameters()), name))
    return sorted(sizes)[:count]


def main() -> None:
    """Export what isn't there yet; what can't be exported is told in ``FOLDER/failed.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="where the files go")
    parser.add_argument("--smallest", type=int, metavar="N", help="print the N smallest CNNs of timm instead")
    parser.add_argument("--only", nargs="*", help="names to do; default: all")
    options = parser.parse_args()
    if options.smallest:
        print(*(f"{size:>9,} {name}" for size, name in smallest_timm_cnns(options.smallest)), sep="\n")
        return
    sys.path.insert(0, str(Path(__file__).parent))
    options.folder.mkdir(parents=True, exist_ok=True)
    failed: dict[str, str] = {}
    for name, spec in specs().items():
        path = options.folder / f"{name}.onnx"
        if path.exists() or (options.only and name not in options.only):
            continue
        try:
            export(spec, path)
        except Exception as error:
            failed[name] = str(error).split("\n")[0]
        print(name, failed.get(name, "exported"), flush=True)
    (options.folder / "failed.json").write_text(json.dumps(failed, indent=1) + "\n")


if __name__ == "__main__":
    main()
