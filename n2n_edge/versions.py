"""Which releases are installed, from their metadata: nothing is imported for it."""

import platform
from importlib import metadata

__all__ = ["ORT_PACKAGES", "first_version", "own_version", "runtime_versions"]

ORT_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-silicon")
"""Distributions that bring the module onnxruntime."""


def first_version(*packages: str) -> str | None:
    """Return the version of the first of these distributions that is installed; None if none is."""
    for package in packages:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return None


def own_version() -> str:
    """Return the version of n2n-edge; ``0+unknown`` for a source tree that isn't installed."""
    return first_version("n2n-edge") or "0+unknown"


def runtime_versions() -> dict[str, str]:
    """Return what a report of a fault should name: Python, the packages that results depend on, the platform."""
    return {
        "python": platform.python_version(),
        "onnxruntime": first_version(*ORT_PACKAGES) or "not installed",
        "onnx": first_version("onnx") or "not installed",
        "numpy": first_version("numpy") or "not installed",
        "torch": first_version("torch") or "not installed",
        "platform": platform.platform(),
    }
