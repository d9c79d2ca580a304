"""`n2n_edge.compress(...)`: the command line's main job as a function."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from n2n_edge.errors import UnsuitableEnvironmentError
from n2n_edge.runs.folder import RunFolder
from n2n_edge.runs.settings import CompressSettings, absolute_paths

if TYPE_CHECKING:
    from n2n_edge.runs.finish import CompressResult
    from n2n_edge.runs.observer import Observer

__all__ = ["INSTALL_HINT", "compress", "require_pillow", "require_training_packages"]

INSTALL_HINT = 'needs torch, which is not installed; run: pip install "n2n-edge[compress]"'


def require_training_packages(what: str = "compressing") -> None:
    """Raise UnsuitableEnvironmentError, saying what to install, where the extra ``[compress]`` is missing.

    `what` needs it.
    """
    from importlib.util import find_spec

    missing = [name for name in ("torch", "safetensors", "PIL") if find_spec(name) is None]
    if missing:
        raise UnsuitableEnvironmentError(
            f"{what} {INSTALL_HINT.replace('torch', {'PIL': 'pillow'}.get(missing[0], missing[0]), 1)}"
        )


def require_pillow(what: str) -> None:
    """Raise UnsuitableEnvironmentError, saying what to install, where Pillow is missing; `what` needs it."""
    try:
        import_module("PIL.Image")
    except ImportError as error:
        raise UnsuitableEnvironmentError(
            f"{what} needs Pillow, which can't be imported ({error}); run: pip install pillow"
        ) from error


def compress(
    teacher: Path | str | None = None,
    *,
    out: Path | str,
    resume: bool = False,
    observer: "Observer | None" = None,
    tensorboard: bool = False,
    **given: object,
) -> "CompressResult":
    """Compress `teacher` (an ONNX file; None for the built-in example) into the folder `out`.

    Further keywords are the fields of `CompressSettings`, named like the command's options:

    >>> result = n2n_edge.compress("teacher.onnx", data="images/", device="raspberry-pi-4", max_mb=0.5, out="run")
    >>> result.met, result.student

    `device` may be a list of several. With `tensorboard` the folder ``tensorboard`` in `out` gets event files.

    With `resume` the run in `out` goes on with its own settings. A step that never ends ends the process with exit
    code 3 (after half an hour at least, or what the environment's ``N2N_EDGE_STALL_S`` says; 0 for never).

    Raises:
        InputError: anything wrong with teacher, data, device, options or folder.
        BudgetMissedError: no architecture meets the budgets.
        UnsuitableEnvironmentError: torch (or for `tensorboard` tensorboardX) is missing, or the exported file isn't
            what was trained.
    """
    require_training_packages()
    from n2n_edge.runs.observer import SilentObserver
    from n2n_edge.runs.run import run_compress
    from n2n_edge.runs.tensorboard import require_tensorboard, with_tensorboard

    if tensorboard:
        require_tensorboard()
    if resume:
        folder, settings = RunFolder.resume(Path(out))
    else:
        settings = CompressSettings(**absolute_paths({**given, "teacher": teacher}))  # type: ignore[arg-type]
        folder = RunFolder.new(Path(out))
    with with_tensorboard(folder, settings, observer or SilentObserver(), tensorboard) as observers:
        return run_compress(folder, settings, observers)
