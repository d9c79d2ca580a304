"""The examples in the help of every command, and the small files that they name.

A new command is found by itself. An example may name any file of `MAKERS`; one that names another file needs a maker
here. What an example writes (`WRITING`) is left out of its folder.
"""

import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from n2n_edge.cli.app import app
from tests.runs.small import images_npz, teacher_file

__all__ = ["BOARD", "MAKERS", "Example", "commands", "examples", "files_named"]

BOARD = "ssh://pi@raspberrypi.local"
"""The board of every example; the tests put a server on loopback in its place."""

WRITING = {"--out", "--save", "--csv", "--markdown", "--html", "--junit", "--png"}
"""Options whose value is written, not read."""

CHEAP: Mapping[str, tuple[str, ...]] = {
    "bench": ("--min-time", "0.02", "--max-time", "0.2"),
    "compress": ("--candidates", "1", "--epochs", "1", "--effort", "quick"),
    "quantize": ("--max-time", "0.2", "--images", "32", "--calibration", "minmax"),
    "device calibrate": ("--minutes", "0.2", "--threads", "1"),
}
"""Options that an example is given besides, so that a test may run it."""

SLOW = (
    "bench student.onnx --runtime",
    "compress",
    "device calibrate",
    "gate student.onnx --baseline main.onnx --max-regression",
    "pareto demo-run",
    "quantize teacher.onnx --data images/ --epochs",
    "quantize teacher.onnx --data images/ --keep-float",
)
"""How the examples begin that take long even so; other tests of these commands do the same on less."""


@dataclass(frozen=True)
class Example:
    """One command line of a command's help, without the program's name."""

    command: str
    line: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.line)

    @property
    def slow(self) -> bool:
        return self.line.startswith(SLOW)

    @property
    def needs_board(self) -> bool:
        return BOARD in self.line

    @property
    def runtimes(self) -> tuple[str, ...]:
        """Runtimes that it names and that needn't be installed."""
        return tuple(name for name in ("ncnn", "openvino") if name in self.line)

    @property
    def cheaply(self) -> list[str]:
        """The words, with what makes it quick; a run that is resumed keeps its own settings."""
        return self.words if "--resume" in self.words else [*self.words, *CHEAP.get(self.command, ())]


def commands() -> dict[str, Any]:
    """Return every command by its words, groups left out."""

    def below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        for name, inner in getattr(command, "commands", {}).items():
            yield from below(inner, (*words, name))
        if not hasattr(command, "commands"):
            yield " ".join(words), command

    return dict(below(typer.main.get_command(app), ()))


def examples(command: str, text: str) -> list[Example]:
    """Return the examples at the end of a command's help: lines that begin with the program's name, listed or not."""
    _, found, section = text.partition("Examples:")
    lines = re.findall(r"^\s*(?:- )?`?n2n-edge ([^`\n]+)`?$", section, re.MULTILINE) if found else []
    return [Example(command, line.strip()) for line in lines]


def files_named(example: Example) -> list[str]:
    """Return which of `MAKERS` an example reads."""
    words = example.words
    written = {words[place + 1] for place, word in enumerate(words[:-1]) if word in WRITING}
    read = [word.partition("=")[2] or word for word in words]
    return [
        name
        for name in MAKERS
        if any(word.rstrip("/") == name for word in read) and (name not in written or "--resume" in words)
    ]


def _teacher(path: Path, built: Callable[[str], Path]) -> None:
    from n2n_edge._example import teacher_path

    shutil.copy(teacher_path(), path)


def _half(path: Path, built: Callable[[str], Path]) -> None:
    import onnx_ir

    from n2n_edge import Teacher, build

    teacher = Teacher.load(str(built("teacher.onnx")))
    architecture = teacher.full
    for group in teacher.groups:
        if group.shrinkable:
            architecture = architecture.resize(group.name, group.width // 2)
    onnx_ir.save(build(teacher, architecture), path)


def _images(path: Path, built: Callable[[str], Path]) -> None:
    from PIL import Image

    from n2n_edge.data.source_digits import read

    source = read("builtin:digits", (1, 16, 16))
    for index in range(300):
        folder = path / str(source.train.labels[index])  # type: ignore[index]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(source.train.images[index, ..., 0]).save(folder / f"{index}.png")


def _run(path: Path, built: Callable[[str], Path]) -> None:
    import n2n_edge

    folder = path.parent / "of the run"
    folder.mkdir()
    teacher, data = teacher_file(folder / "teacher.onnx"), images_npz(folder / "data.npz")
    n2n_edge.compress(
        teacher, data=data, out=path, mean=(0.5,), std=(0.5,), device="raspberry-pi-4", max_params=4_000.0,
        effort="quick", candidates=3, epochs=1,
    )  # fmt: skip


def _bench(path: Path, built: Callable[[str], Path]) -> None:
    models = [str(built(name)) for name in ("teacher.onnx", "student.onnx")]
    done = CliRunner().invoke(app, ["bench", *models, *CHEAP["bench"], "--save", str(path)])
    assert done.exit_code == 0, done.output


def _profile(path: Path, built: Callable[[str], Path]) -> None:
    from n2n_edge.calibration.own_profiles import new_profile

    new_profile(path.stem, "raspberry-pi-4", path)


MAKERS: Mapping[str, Callable[[Path, Callable[[str], Path]], object]] = {
    "teacher.onnx": _teacher,
    "student.onnx": _half,
    "main.onnx": _teacher,
    "images": _images,
    "run": _run,
    "demo-run": lambda path, built: shutil.copytree(built("run"), path),
    "bench.json": _bench,
    "my-board.toml": _profile,
}
"""How each file or folder is made at a path, `built` giving the path of another one."""
