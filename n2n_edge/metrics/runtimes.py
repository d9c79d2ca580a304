"""Runtimes that a latency may be of."""

from typing import Literal, cast, get_args

from n2n_edge.errors import InputError

__all__ = ["ONNXRUNTIME", "RuntimeName", "runtime_family", "runtime_named"]

RuntimeName = Literal["onnxruntime", "ncnn", "openvino"]

ONNXRUNTIME: RuntimeName = "onnxruntime"
"""The runtime of all that doesn't say; so documents of older versions are read."""


def runtime_named(name: str) -> RuntimeName:
    """Return the runtime of this name, in any case of letters.

    Raises:
        InputError: no such runtime.

    >>> runtime_named("NCNN")
    'ncnn'
    """
    found = name.strip().lower()
    if found in get_args(RuntimeName):
        return cast("RuntimeName", found)
    known = ", ".join(get_args(RuntimeName))
    if found == "litert":
        raise InputError(
            "‹runtime› litert: there is no converter from ONNX that installs beside n2n-edge; see the guide on "
            f"runtimes, or give {known}"
        )
    raise InputError(f"‹runtime› {name}: no such runtime; give {known}")


def runtime_family(told: str) -> str:
    """Return the runtime's name out of what a document or a calibration says of it: name, version, remarks.

    >>> runtime_family("onnxruntime 1.31.1"), runtime_family("ncnn, Vulkan")
    ('onnxruntime', 'ncnn')
    """
    return told.lower().split(",")[0].split()[0]
