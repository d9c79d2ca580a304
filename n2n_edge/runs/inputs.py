"""Inputs of a run that come as objects: teachers and data written as files into its folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from n2n_edge.data.source_function import Dataset
    from n2n_edge.graph.teacher import Teacher

__all__ = ["DataLike", "TeacherLike", "written_data", "written_teacher"]


TeacherLike: TypeAlias = "str | Path | Teacher | ir.Model | onnx.ModelProto | nn.Module"
"""A file or name as on the command line, an analysed or loaded ONNX model, or a torch network."""

DataLike: TypeAlias = (
    "str | Path | Dataset | tuple[Dataset, Dataset] | tuple[NDArray[Any], Sequence[Any] | NDArray[Any] | None]"
)
"""A file or name as on the command line, a Dataset (or a training and a test one), or arrays of images and labels."""


def written_teacher(teacher: TeacherLike, data: "DataLike | None", shape: tuple[int, ...] | None, path: Path) -> None:
    """Write a teacher that is no file to `path` as ONNX; a torch network is exported for images of `shape`.

    Without `shape` a torch network is exported for what it says of itself, or for the first image of `data`.

    Raises:
        InputError: it is no network, can't be exported, or its input is told by nothing.
    """
    from n2n_edge.graph.load import save_model
    from n2n_edge.graph.model_file import to_bytes
    from n2n_edge.graph.teacher import Teacher

    if isinstance(teacher, Teacher):
        save_model(teacher.source, path)
    elif isinstance(teacher, ir.Model):
        save_model(teacher, path)
    elif isinstance(teacher, onnx.ModelProto):
        path.write_bytes(to_bytes(teacher))
    else:
        from torch import nn, zeros

        from n2n_edge.graph.torch_export import export_module
        from n2n_edge.training.torch_teachers import known_shape

        if not isinstance(teacher, nn.Module):
            raise InputError(
                f"teacher {type(teacher).__name__}: give a path, a Teacher, an ONNX model or a torch.nn.Module"
            )
        sizes = shape or known_shape(teacher) or _image_shape(data)
        if sizes is None:
            raise InputError(
                f"teacher {type(teacher).__name__}: a torch network doesn't tell its input; give ‹input_shape›"
            )
        save_model(export_module(teacher, zeros(1, *sizes)), path)


def written_data(
    data: DataLike,
    shape: tuple[int, ...] | None,
    teacher: Path | None,
    path: Path,
    given: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write data that are no file to `path` as ``.npz``, images as bytes of the size that the teacher takes.

    Boxes, masks and points are written as `packed` says.

    That is `shape`, or stands in the file `teacher`, or is that of the first image. Images of other sizes are brought
    to it as the teacher's metadata say, or `given`, fields of `Preprocessing`.

    Raises:
        InputError: no Dataset and no arrays, or images and labels that don't fit each other or the teacher.
    """
    from n2n_edge.data.labels.packed import packed
    from n2n_edge.data.pixels import Conversions
    from n2n_edge.data.preprocessing import Preprocessing
    from n2n_edge.data.samples import Samples, Source
    from n2n_edge.data.source_function import read_datasets
    from n2n_edge.data.source_npz import as_bytes, labelled
    from n2n_edge.runs.preprocessing import preprocessing_for

    model = _image_model(teacher, shape)
    if model is not None:
        fitting = preprocessing_for(model, model.metadata_props, given).preprocessing
    else:
        sizes = shape or _image_shape(data)
        if sizes is None or len(sizes) != 3:
            raise InputError(f"data {type(data).__name__}: its images have no channels, height and width; give images")
        fitting = Preprocessing((sizes[1], sizes[2]), channels=sizes[0], **given)

    if _is_arrays(data) and not _are_annotated(data):
        images, labels = cast("tuple[NDArray[Any], NDArray[Any] | None]", data)
        pixels = as_bytes("data[0]", images, fitting, Conversions())
        if labels is not None and len(labels) != len(images):
            raise InputError(f"data: {len(images)} images and {len(labels)} labels; give one for each")
        whole = Samples(pixels, None) if labels is None else labelled("data[1]", pixels, np.asarray(labels))
        source = Source(whole)
    else:
        if _is_arrays(data):
            data = list(zip(*cast("tuple[NDArray[Any], Sequence[Any]]", data), strict=True))
        source = read_datasets(type(data).__name__, data, fitting)
    arrays: dict[str, NDArray[Any]] = {}
    for name, part in (("train", source.train), ("test", source.test)):
        if part is not None:
            arrays[f"x_{name}"] = np.asarray(part.images)
            values = part.targets if part.labels is None else part.labels
            if values is not None:
                arrays[f"y_{name}"] = values
            if part.annotations is not None:
                told = packed(list(part.annotations), fitting.size)
                arrays |= {f"{key}_{name}": array for key, array in told.items()}
    np.savez(path, allow_pickle=False, **arrays)


def _is_arrays(data: object) -> bool:
    return isinstance(data, tuple) and len(data) == 2 and isinstance(data[0], np.ndarray)


def _are_annotated(data: object) -> bool:
    """Tell whether arrays of images have masks or dicts as labels."""
    from n2n_edge.data.labels.targets import Targets

    images, labels = cast("tuple[NDArray[Any], Sequence[Any] | None]", data)
    if labels is None or len(labels) != len(images) or not len(labels):
        return False
    sizes = [tuple(images.shape[at : at + 2]) for at in (1, 2) if images.ndim > at + 1]
    return any(Targets.are(labels[0], (int(height), int(width))) for height, width in sizes)


def _image_model(teacher: Path | None, shape: tuple[int, ...] | None) -> ir.Model | None:
    """Return an ONNX file of images, its size fixed by `shape`; None where it is no such file, or leaves it free."""
    from n2n_edge.graph.input_shape import with_input_shape
    from n2n_edge.graph.load import load_model

    if teacher is None or teacher.suffix == ".pt2" or not teacher.is_file():
        return None
    model = with_input_shape(load_model(teacher), shape)
    sizes = [size for size in list(model.graph.inputs[0].shape or ())[1:] if isinstance(size, int) and size > 0]
    return model if len(sizes) == 3 else None


def _image_shape(data: object) -> tuple[int, ...] | None:
    """Return the shape (C, H, W) of the first image of data given as objects; None for anything else."""
    if data is None or isinstance(data, str | Path):
        return None
    first: Any = data
    if isinstance(first, tuple):
        first = first[0]
    try:
        image = first[0]
    except (IndexError, KeyError, TypeError):
        return None
    if isinstance(image, tuple | list) and len(image):
        image = image[0]
    if hasattr(image, "getbands"):  # of PIL
        return (len(image.getbands()), image.height, image.width)
    shape = tuple(int(size) for size in getattr(image, "shape", ()))
    if len(shape) == 2:
        return (1, *shape)
    if len(shape) != 3:
        return None
    return shape if shape[0] in (1, 3, 4) else (shape[2], shape[0], shape[1])
