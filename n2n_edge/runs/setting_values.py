"""What single settings of a run may be."""

import re
from collections.abc import Iterable
from pathlib import Path

from n2n_edge.errors import InputError
from n2n_edge.metrics.runtimes import ONNXRUNTIME
from n2n_edge.reading import expanded, is_file

__all__ = ["check_cluster", "check_input_size", "named_devices", "refuse_precision"]

_RAY_ADDRESS = re.compile(r"ray://([\w.-]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}")


def check_cluster(cluster: str | None, retries: int) -> None:
    """Raise InputError for what is no place of workers, or no number of retries."""
    if retries < 0:
        raise InputError(f"‹retries› {retries}: give 0 or more")
    if cluster is None or cluster in ("auto", "local") or _RAY_ADDRESS.fullmatch(cluster):
        return
    raise InputError(f"‹cluster› {cluster}: give auto, local, or the address of Ray's client server: ray://host:10001")


def refuse_precision(precision: str, runtime: str | None) -> None:
    """Raise `InputError` where a student is to ship in a precision that is made, proven and timed for another runtime.

    >>> refuse_precision("fp32", "ncnn")
    """
    if precision != "fp32" and runtime not in (None, ONNXRUNTIME):
        raise InputError(
            f"‹precision› {precision}: is made and proven for {ONNXRUNTIME} alone; give fp32 for ‹runtime› {runtime}, "
            "whose own tools quantize it"
        )


def check_input_size(text: str) -> None:
    """Raise InputError for what is no size of images, nor a way to choose one."""
    parts = text.lower().split("x")
    if text in ("keep", "auto"):
        return
    if len(parts) > 2 or not all(part.isdecimal() and part.isascii() and 0 < int(part) < 2**15 for part in parts):
        raise InputError(f"‹input_size› {text}: give keep, auto, or height and width such as 320x320")


def named_devices(given: object) -> str | tuple[str, ...]:
    """Return devices as settings keep them: one as a string, several as a tuple in the order given.

    `given` is a name or a profile's file, or several of them, in a list or with commas between. A file whose path has a
    comma in it is left whole.

    Raises:
        InputError: a name is empty.
    """
    texts = [str(given)] if isinstance(given, str | Path) else [str(one) for one in _iterable(given)]
    names = tuple(name.strip() for text in texts for name in ([text] if _is_file(text) else text.split(",")))
    if not names or not all(names):
        raise InputError(f"‹device› {','.join(texts)}: a name is empty; see `n2n-edge profiles list`")
    return names[0] if len(names) == 1 else names


def _iterable(given: object) -> Iterable[object]:
    if not isinstance(given, Iterable):
        raise InputError(f"‹device› {given}: must be a name, a profile's file, or a list of these")
    return given


def _is_file(device: str) -> bool:
    return device.endswith(".toml") and is_file(expanded(device))
