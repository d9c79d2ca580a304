"""Which packages are there: the base's are imported, those of extras are only looked up unless asked to."""

import importlib
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

import n2n_edge
from n2n_edge.doctor.check import Check
from n2n_edge.versions import first_version, own_version

__all__ = ["base_packages", "extra_packages", "import_check"]

LEAST_PYTHON = (3, 11)
IMPORT_TIMEOUT_S = 300.0

BASE: Mapping[str, tuple[str, str]] = {
    "numpy": ("numpy", "arrays"),
    "onnx": ("onnx", "reads and writes models"),
    "onnx-ir": ("onnx_ir", "the graph that everything works on"),
    "psutil": ("psutil", "memory and processes"),
    "pydantic": ("pydantic", "checks device profiles"),
    "jinja2": ("jinja2", "HTML reports"),
    "pyyaml": ("yaml", "the data.yaml of labels"),
}
"""Distributions that the base needs beside ONNX Runtime: the module, and what it is for."""

PURPOSES: Mapping[str, str] = {
    "compress": "`n2n-edge compress`, and torch networks as teachers",
    "example": "the built-in example's images",
    "cluster": "candidates trained side by side, on several machines",
    "tensorboard": "event files of a run that TensorBoard shows",
    "png": "pictures of a report's charts",
}
"""What extras are for; which packages they bring is asked of the installed metadata."""

FOR_DEVELOPERS = {"dev", "docs"}

OPTIONAL: Mapping[str, str] = {
    "torchvision": "teachers named torchvision:NAME",
    "timm": "teachers named timm:NAME",
}


def base_packages() -> Iterator[Check]:
    """Give Python, n2n-edge itself, and the packages that the base imports."""
    version = platform.python_version()
    old = sys.version_info < LEAST_PYTHON
    yield Check(
        "base", "Python", "missing" if old else "ok", f"{version} ({sys.executable})", "runs everything",
        "install Python 3.11 or newer and make the environment with it" if old else "", needed=True,
    )  # fmt: skip
    yield Check("base", "n2n-edge", "ok", f"{own_version()} ({Path(n2n_edge.__path__[0])})", "this program")
    for distribution, (module, purpose) in BASE.items():
        yield _imported(distribution, module, purpose)


def extra_packages() -> Iterator[Check]:
    """Give the extras and the optional packages, looked up without importing any."""
    for extra, distributions in _extras().items():
        versions = {name: first_version(name) for name in distributions}
        absent = [name for name, version in versions.items() if version is None]
        found = ", ".join(
            f"no {name}" if version is None else f"{name} {version}" for name, version in versions.items()
        )
        remedy = f'pip install "n2n-edge[{extra}]"' if absent else ""
        yield Check("extras", extra, "missing" if absent else "ok", found, PURPOSES.get(extra, ""), remedy)
    for name, purpose in OPTIONAL.items():
        version = first_version(name)
        found = "none" if version is None else f"{version}, not imported"
        remedy = f"pip install {name}, of the release that belongs to your torch" if version is None else ""
        yield Check("extras", name, "missing" if version is None else "ok", found, purpose, remedy)


def import_check(name: str) -> Check:
    """Import torch, torchvision or timm in a process of its own, and tell what came of it."""
    purpose = "imports, with --imports"
    code = f"import {name}; print({name}.__version__)"
    if name == "torch":
        code += "; print(torch.get_num_threads(), 'threads')"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=IMPORT_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Check(
            "extras", f"import {name}", "limited", f"not within {IMPORT_TIMEOUT_S:g} s", purpose, "try again when idle"
        )
    if done.returncode == 0:
        return Check("extras", f"import {name}", "ok", ", ".join(done.stdout.split("\n")[:-1]), purpose)
    said = done.stderr.strip().splitlines()
    remedy = f"pip install --force-reinstall {name}, of a release that belongs to what else is installed"
    return Check("extras", f"import {name}", "limited", f"fails: {said[-1] if said else 'crashed'}", purpose, remedy)


def _extras() -> dict[str, list[str]]:
    """Return the distributions that each extra of the installed n2n-edge brings; empty for a bare source tree."""
    try:
        requirements = metadata.requires("n2n-edge") or []
    except metadata.PackageNotFoundError:
        return {}
    found: dict[str, list[str]] = {}
    for requirement in requirements:
        match = re.match(r"([A-Za-z0-9._-]+).*;.*\bextra\s*==\s*['\"]([\w-]+)['\"]", requirement)
        if match and match[2] not in FOR_DEVELOPERS:
            found.setdefault(match[2], []).append(match[1])
    return found


def _imported(distribution: str, module: str, purpose: str) -> Check:
    try:
        importlib.import_module(module)
    except Exception as error:  # whatever keeps it from being imported
        found = "none" if isinstance(error, ModuleNotFoundError) else f"can't be imported: {error}"
        remedy = f"{sys.executable} -m pip install --force-reinstall {distribution}"
        return Check("base", distribution, "missing", found, purpose, remedy, needed=True)
    return Check("base", distribution, "ok", first_version(distribution) or "of unknown version", purpose, needed=True)
