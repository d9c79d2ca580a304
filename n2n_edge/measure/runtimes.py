"""Runtimes that a model can be converted for: what each needs here, and how its files are made from an ONNX file."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from n2n_edge.errors import N2NError, UnsuitableEnvironmentError
from n2n_edge.measure.for_ncnn import rewrite_steps
from n2n_edge.measure.messages import one_line
from n2n_edge.metrics.runtimes import runtime_named

__all__ = ["RUNTIMES", "ConversionError", "Runtime", "convert", "parse_runtimes", "require", "split_names"]

CONVERSION_TIMEOUT_S = 600.0


class ConversionError(N2NError):
    """A model can't be converted for a runtime, or isn't the same there (exit code 1)."""

    exit_code = 1


@dataclass(frozen=True)
class InputType:
    """Shape and numpy type of one input, in the order of the file."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Runtime:
    """One runtime besides ONNX Runtime: `modules` that it and its converter need, and the `suffixes` of its files.

    `write` makes the files from an ONNX file: path, folder, stem, inputs.
    """

    name: str
    modules: tuple[str, ...]
    suffixes: tuple[str, ...]
    write: Callable[[Path, Path, Sequence[InputType]], None]


def parse_runtimes(names: Sequence[str]) -> tuple[str, ...]:
    """Return runtimes in order, each once; names may stand in one text with commas between.

    Raises:
        InputError: no such runtime.
        UnsuitableEnvironmentError: one whose packages aren't installed here.

    >>> parse_runtimes(["onnxruntime", "onnxruntime"])
    ('onnxruntime',)
    """
    wanted = split_names(names)
    for name in wanted:
        require(runtime_named(name))
    return wanted


def split_names(texts: Sequence[str]) -> tuple[str, ...]:
    """Return names in order, each once and in small letters; several may stand in one text with commas between."""
    names = (name.strip().lower() for text in texts for name in text.split(","))
    return tuple(dict.fromkeys(name for name in names if name))


def require(name: str) -> None:
    """Raise `UnsuitableEnvironmentError` if a package of a runtime isn't installed here."""
    modules = RUNTIMES[name].modules if name in RUNTIMES else ()
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise UnsuitableEnvironmentError(
            f"‹runtime› {name}: {' and '.join(missing)} can't be found; pip install 'n2n-edge[{name}]'"
        )


def convert(model: Path, runtime: str, folder: Path, inputs: Sequence[InputType]) -> tuple[Path, ...]:
    """Convert an ONNX file, ``model.onnx`` in a folder of its own, and return the files that the runtime reads.

    Raises:
        ConversionError: the converter refuses it, crashes, hangs or writes nothing.
    """
    kind = RUNTIMES[runtime]
    kind.write(model, folder, inputs)
    files = tuple(folder / f"model{suffix}" for suffix in kind.suffixes)
    if not all(file.is_file() for file in files):
        raise ConversionError(f"it can't be converted for {runtime}: the converter wrote nothing")
    return files


_PNNX_TYPES = {
    "float32": "f32", "float64": "f64", "float16": "f16", "int64": "i64", "int32": "i32", "int16": "i16", "int8": "i8",
    "uint8": "u8", "bool": "bool",
}  # fmt: skip

_TO_OPENVINO = """
import sys, json, openvino
model = openvino.Core().read_model(sys.argv[1])
model.reshape(dict(enumerate(json.loads(sys.argv[3]))))
openvino.save_model(model, sys.argv[2], compress_to_fp16=False)
"""


def _write_ncnn(model: Path, folder: Path, inputs: Sequence[InputType]) -> None:
    """Run pnnx, which comes as a program inside its package; importing that would import torch."""
    spec = importlib.util.find_spec("pnnx")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    program = Path(spec.submodule_search_locations[0]) / ("pnnx.exe" if sys.platform == "win32" else "pnnx")
    for given in inputs:
        if len(given.shape) > 1 and given.shape[0] != 1:
            raise ConversionError(f"it can't be converted for ncnn: a batch of {given.shape[0]}, ncnn takes one image")
        if given.dtype not in _PNNX_TYPES:
            raise ConversionError(f"it can't be converted for ncnn: an input of type {given.dtype}")
    rewrite_steps(model)
    shapes = ",".join(f"[{','.join(map(str, given.shape))}]{_PNNX_TYPES[given.dtype]}" for given in inputs)
    _run([str(program), str(model), f"inputshape={shapes}", "fp16=0"], folder, "ncnn")
    for suffix in (".param", ".bin"):
        made = folder / f"{model.stem}.ncnn{suffix}"
        if made.is_file():
            made.replace(folder / f"model{suffix}")


def _write_openvino(model: Path, folder: Path, inputs: Sequence[InputType]) -> None:
    shapes = str([list(given.shape) for given in inputs])
    _run([sys.executable, "-c", _TO_OPENVINO, str(model), str(folder / "model.xml"), shapes], folder, "openvino")


def _run(command: list[str], folder: Path, runtime: str) -> None:
    """Run a converter in a process of its own, which may crash or hang without harm."""
    failed = f"it can't be converted for {runtime}: "
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=CONVERSION_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ConversionError(f"{failed}no end within {CONVERSION_TIMEOUT_S:g} s") from error
    except OSError as error:
        raise ConversionError(f"{failed}{error.strerror or error}") from error
    if done.returncode != 0:
        lines = [line for line in done.stdout.decode(errors="replace").splitlines() if line.strip()]
        telling = [line for line in lines if "fail" in line.lower() or "error" in line.lower()] or lines
        words = one_line(telling[-1], 200) if telling else f"exit code {done.returncode}"
        raise ConversionError(f"{failed}{words}")


RUNTIMES = {
    "ncnn": Runtime("ncnn", ("ncnn", "pnnx"), (".param", ".bin"), _write_ncnn),
    "openvino": Runtime("openvino", ("openvino",), (".xml", ".bin"), _write_openvino),
}
"""Runtimes besides ONNX Runtime; each also has a class in `worker/runtimes.py`."""
