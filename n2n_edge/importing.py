"""A person's own code by name: ``package.module:function``."""

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from n2n_edge.errors import InputError
from n2n_edge.foreign import foreign_code, printable

__all__ = ["call_by_name", "function_by_name", "guarded", "is_function_name", "name_of_function", "object_by_name"]

_SPEC = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_function_name(spec: str) -> bool:
    """Tell whether `spec` has the form ``package.module:function``."""
    return _SPEC.fullmatch(spec) is not None


def name_of_function(what: str, function: Callable[..., object]) -> str:
    """Return the name by which `function_by_name` finds a function; raises InputError for one that has none."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    spec = f"{module}:{name}"
    if module == "__main__" or not is_function_name(spec):
        raise InputError(
            f"{what} {name or function!r}: give a function at the top of a module that can be imported, since a run "
            "that goes on has to find it again"
        )
    return spec


def function_by_name(what: str, spec: str) -> Callable[..., object]:
    """Import the module and return the function, as `call_by_name` does; raises InputError where there is none."""
    module_name, _, function_name = spec.partition(":")
    with _current_folder_importable():
        return _function(f"{what} '{spec}'", module_name, function_name)


def object_by_name(what: str, spec: str) -> object:
    """Import the module and return any object of it; raises InputError where there is none."""
    module_name, _, name = spec.partition(":")
    with _current_folder_importable():
        return _named(f"{what} '{spec}'", module_name, name)


def call_by_name(what: str, spec: str) -> object:
    """Import the module, call the function without arguments and return what it gives.

    Modules in the current folder are found, as with ``python -m``. What the code prints goes to stderr.

    Raises:
        InputError: no such module or function, it failed, or it tried to end the process; `what` says in the message
            what it was wanted for.
    """
    module_name, _, function_name = spec.partition(":")
    with _current_folder_importable():
        function = _function(f"{what} '{spec}'", module_name, function_name)
        with guarded(f"{what} '{spec}': the function"):
            return function()


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """Run code of the user's: what it raises becomes an `InputError`, what it prints stays out of stdout."""
    with foreign_code(what), redirect_stdout(sys.stderr):
        yield


def _function(where: str, module_name: str, function_name: str) -> Callable[[], object]:
    function = _named(where, module_name, function_name)
    if not callable(function):
        raise InputError(f"{where}: '{function_name}' of module '{module_name}' is no function")
    found: Callable[[], object] = function
    return found


def _named(where: str, module_name: str, name: str) -> object:
    with guarded(f"{where}: module '{module_name}'"):
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise InputError(
                f"{where}: module '{module_name}' can't be imported ({printable(error)}); run the command in the "
                "folder that holds it, or install what it lacks"
            ) from error
        found: object = getattr(module, name, None)
    if found is None:
        raise InputError(f"{where}: module '{module_name}' has no function '{name}'")
    return found


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
