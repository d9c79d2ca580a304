"""Teachers that come as torch networks: made by name or read from a program file, weights loaded, exported once."""

import difflib
import json
import logging
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, cast, get_args

import onnx_ir as ir
import torch
from torch import Tensor, nn

from n2n_edge.data.preprocessing import METADATA_KEY, Interpolation, Preprocessing
from n2n_edge.errors import InputError, UnsuitableEnvironmentError, first_line
from n2n_edge.foreign import printable
from n2n_edge.graph.torch_export import export_module, export_program
from n2n_edge.importing import call_by_name, guarded, is_function_name
from n2n_edge.training.program_archive import checked_program

__all__ = ["is_torch_teacher", "known_shape", "torch_teacher"]

_ZOOS = ("torchvision", "timm")
_IMAGE_RANK = 3
_NESTED = ("state_dict", "model_state_dict", "model", "net", "weights")
"""Under which keys training scripts keep the weights within a checkpoint."""
_WRAPPERS = ("module.", "_orig_mod.")
"""What wrappers put before the names of a network's tensors: DataParallel and torch.compile."""


def is_torch_teacher(spec: str) -> bool:
    """Tell whether `spec` names a torch network or program instead of an ONNX file."""
    return Path(spec).suffix == ".pt2" or is_function_name(spec) or spec.partition(":")[0] in _ZOOS


def torch_teacher(
    spec: str, weights: str | None, input_shape: tuple[int, ...] | None, *, trust_pt2: bool = False
) -> ir.Model:
    """Return the ONNX graph of a torch teacher, BatchNorm kept and the batch axis free.

    `spec` is ``package.module:function`` (which gives an `nn.Module`), ``torchvision:NAME``, ``timm:NAME`` or the path
    of a ``.pt2`` program; `weights` a state dict (`torch.save` or safetensors) for what isn't a program; `input_shape`
    ``(channels, height, width)``, which programs and timm networks know themselves. A program is loaded if it holds
    tensors and ATen operators alone; `trust_pt2` loads any, and with it whatever code it holds.

    Raises:
        InputError: no such network or file, weights that don't fit, no input shape, or torch can't export it.
        UnsuitableEnvironmentError: torchvision or timm isn't installed.
    """
    if Path(spec).suffix == ".pt2":
        if weights is not None:
            raise InputError(f"‹weights› {weights}: a .pt2 program holds its weights; leave it out")
        return _program(Path(spec), trusted=trust_pt2)
    zoo, _, name = spec.partition(":")
    if zoo in _ZOOS:
        module, transforms = _from_zoo(zoo, name, pretrained=weights is None)
    else:
        transforms = None
        made = call_by_name("teacher", spec)
        if not issubclass(type(made), nn.Module):
            raise InputError(f"teacher '{spec}' gives a {type(made).__name__}: give a torch.nn.Module")
        module = cast("nn.Module", made)
    with guarded(f"teacher '{spec}'"):  # its own methods may be overridden
        if weights is not None:
            _load_weights(module, Path(weights))
        shape = input_shape or known_shape(module)
    if shape is None:
        raise InputError(f"teacher '{spec}': a torch network doesn't tell its input; give ‹input_shape› 3x224x224")
    model = export_module(module, torch.zeros(1, *shape))
    if published := _preprocessing(module, transforms, shape):
        model.metadata_props[METADATA_KEY] = json.dumps(published.to_json())
    return model


def _preprocessing(module: nn.Module, transforms: object, shape: tuple[int, ...]) -> Preprocessing | None:
    """Return what timm's configuration of a network, or torchvision's transforms for its weights, say; else None."""
    config = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    told: dict[str, Any] = {}
    if isinstance(config, Mapping) and config.get("mean") and config.get("std"):
        told = {key: config.get(key) for key in ("mean", "std", "interpolation")}
        squashed = config.get("crop_mode") == "squash"
        told |= {"resize": "squash"} if squashed else {"crop_ratio": config.get("crop_pct")}
    elif all(hasattr(transforms, name) for name in ("crop_size", "resize_size", "mean", "std", "interpolation")):
        whole: Any = transforms
        told = {"mean": whole.mean, "std": whole.std, "interpolation": getattr(whole.interpolation, "value", None)}
        told["crop_ratio"] = min(1.0, whole.crop_size[0] / whole.resize_size[0])
    if not told or len(shape) != _IMAGE_RANK:
        return None
    if told["interpolation"] not in get_args(Interpolation):
        told["interpolation"] = "bilinear"
    told |= {name: tuple(told[name]) for name in ("mean", "std")}
    try:
        return Preprocessing((shape[1], shape[2]), channels=shape[0], **told)
    except (InputError, TypeError):  # a configuration that says what there isn't here
        return None


def _program(path: Path, *, trusted: bool) -> ir.Model:
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of a program saved by torch.export.save")
    source = path if trusted else checked_program(path)
    try:
        with _silent():
            program = torch.export.load(source)
    except Exception as error:  # zip, pickle and schema errors of every kind
        raise InputError(
            f"{path}: not a program of torch.export.save ({printable(first_line(error)[:160])})"
        ) from error
    with _silent():
        return export_program(program)


@contextmanager
def _silent() -> Iterator[None]:
    """Keep torch from writing warnings and tracebacks of what is reported in one line anyway."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _from_zoo(zoo: str, name: str, *, pretrained: bool) -> tuple[nn.Module, object]:
    """Make a network of torchvision or timm, with its published weights, and their transforms, unless others are given.

    The transforms are torchvision's, else None.
    """
    try:
        library = import_module("torchvision.models" if zoo == "torchvision" else "timm")
    except (ImportError, RuntimeError) as error:  # a torchvision of another torch fails while it registers its ops
        raise UnsuitableEnvironmentError(
            f"teacher '{zoo}:{name}' needs {zoo}, which can't be imported ({printable(first_line(error)[:160])}); "
            f"install one that fits torch {torch.__version__}"
        ) from error
    names = list(library.list_models())
    if name not in names:
        near = ", ".join(difflib.get_close_matches(name, names, 3)) or "see its documentation"
        raise InputError(f"teacher '{zoo}:{name}': {zoo} has no such network; nearest: {near}")
    module = _make(library, zoo, name, pretrained=pretrained)
    if zoo != "torchvision" or not pretrained or not hasattr(library, "get_model_weights"):
        return module, None
    return module, library.get_model_weights(name).DEFAULT.transforms()


def _make(library: ModuleType, zoo: str, name: str, *, pretrained: bool) -> nn.Module:
    try:
        if zoo == "timm":
            module = library.create_model(name, pretrained=pretrained)
        else:
            module = library.get_model(name, weights="DEFAULT" if pretrained else None)
    except Exception as error:  # no network, no published weights, an optional package that is missing
        raise InputError(
            f"teacher '{zoo}:{name}' can't be made ({printable(first_line(error)[:160])}); "
            "give a file of its weights with ‹weights› if they can't be fetched"
        ) from error
    assert isinstance(module, nn.Module)
    return module


def known_shape(module: nn.Module) -> tuple[int, ...] | None:
    """Return the input shape that timm networks keep with them."""
    config = getattr(module, "default_cfg", None)
    shape = config.get("input_size") if isinstance(config, Mapping) else None
    return tuple(int(size) for size in shape) if shape else None


def _load_weights(module: nn.Module, path: Path) -> None:
    if not path.is_file():
        raise InputError(f"‹weights› {path}: no such file")
    own = module.state_dict()
    tensors = _unwrapped(_tensors(path), own)
    if not hasattr(tensors, "_metadata"):  # safetensors holds tensors alone
        tensors = _with_versions(tensors.items(), getattr(own, "_metadata", None))
    missing = [name for name in own if name not in tensors and not name.endswith("num_batches_tracked")]
    strange = [name for name in tensors if name not in own]
    if missing or strange:
        parts = [f"{len(missing)} missing, such as '{missing[0]}'"] if missing else []
        parts += [f"{len(strange)} unknown, such as '{strange[0]}'"] if strange else []
        raise InputError(f"‹weights› {path}: don't fit {type(module).__name__}: {'; '.join(parts)}")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise InputError(
                f"‹weights› {path}: '{name}' is {tuple(tensor.shape)}, "
                f"{type(module).__name__} has {tuple(own[name].shape)}; make the network as it was trained"
            )
        if _is_unusual(tensor):
            raise InputError(f"‹weights› {path}: '{name}' is {_is_unusual(tensor)}; save plain tensors of real numbers")
    module.load_state_dict(tensors, strict=False)


def _is_unusual(tensor: Tensor) -> str:
    """Say what keeps a tensor from being copied into a weight; nothing for most."""
    if tensor.is_meta:
        return "without content (on the meta device)"
    if tensor.layout != torch.strided:
        return "sparse"
    if tensor.is_quantized:
        return "quantized"
    return "complex" if tensor.is_complex() else ""


def _tensors(path: Path) -> dict[str, Tensor]:
    """Read a state dict, without running any code that the file may hold."""
    try:
        with _silent():
            if path.suffix == ".safetensors":
                from safetensors.torch import load_file

                return load_file(path)
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and safetensors errors of every kind
        raise InputError(
            f"‹weights› {path}: can't be read as weights alone ({printable(first_line(error)[:160])}); "
            "save a state_dict with torch.save or safetensors"
        ) from error
    seen: set[int] = set()  # a dictionary may hold itself
    while isinstance(found, Mapping) and not _is_state_dict(found) and id(found) not in seen:
        seen.add(id(found))
        key = next((key for key in _NESTED if isinstance(found.get(key), Mapping)), None)
        if key is None:
            break
        found = found[key]
    if not isinstance(found, Mapping) or not _is_state_dict(found):
        raise InputError(f"‹weights› {path}: holds no state dict; save model.state_dict()")
    return _with_versions(found.items(), getattr(found, "_metadata", None))


def _with_versions(tensors: Iterable[tuple[str, Tensor]], versions: object) -> dict[str, Tensor]:
    """Return a state dict with what torch notes of the versions of its modules, by which some tell old weights."""
    state = OrderedDict(tensors)
    if isinstance(versions, Mapping):
        state._metadata = OrderedDict(versions)  # type: ignore[attr-defined]
    return state


def _unwrapped(tensors: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out of all names what DataParallel and torch.compile put before them, unless the network has it, too."""
    while tensors and not any(name in own for name in tensors):
        prefix = next((word for word in _WRAPPERS if all(name.startswith(word) for name in tensors)), None)
        if prefix is None:
            break
        tensors = _renamed(tensors, prefix)
    return tensors


def _renamed(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    versions = getattr(tensors, "_metadata", None)
    if isinstance(versions, Mapping):
        inner = ((f"{name}.".removeprefix(prefix).removesuffix("."), versions[name]) for name in versions if name)
        versions = OrderedDict(inner)
    return _with_versions(((name.removeprefix(prefix), tensor) for name, tensor in tensors.items()), versions)


def _is_state_dict(found: Mapping[object, object]) -> bool:
    return bool(found) and all(isinstance(key, str) and isinstance(item, Tensor) for key, item in found.items())
