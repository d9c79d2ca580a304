"""A person's own code by name: ``package.module:function``."""

import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from n2n_edge.errors import InputError

__all__ = ["call_by_name", "is_function_name"]

_SPEC = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_function_name(spec: str) -> bool:
    """Tell whether `spec` has the form ``package.module:function``."""
    return _SPEC.fullmatch(spec) is not None


def call_by_name(what: str, spec: str) -> object:
    """Import the module, call the function without arguments and return what it gives.

    Modules in the current folder are found, as with ``python -m``.

    Raises:
        InputError: no such module or function, or it failed; `what` says in the message what it was wanted for.
    """
    module_name, _, function_name = spec.partition(":")
    with _current_folder_importable():
        try:
            module = importlib.import_module(module_name)
        except Exception as error:
            raise InputError(f"{what} '{spec}': module '{module_name}' can't be imported ({error})") from error
        function = getattr(module, function_name, None)
        if not callable(function):
            raise InputError(f"{what} '{spec}': module '{module_name}' has no function '{function_name}'")
        try:
            result: object = function()
        except Exception as error:
            raise InputError(f"{what} '{spec}': the function failed ({type(error).__name__}: {error})") from error
    return result


@contextmanager
def _current_folder_importable() -> Iterator[None]:
    """Let a script beside the person be imported, as ``python -m`` would."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
