"""Text, files and code that come from elsewhere: models, boards, and the user's own modules."""

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar, cast

from n2n_edge.errors import (
    InputError,
    LimitExceededError,
    N2NError,
    UnsuitableEnvironmentError,
    lack_behind,
    message_of,
)

__all__ = ["UnforeseenError", "encodable", "foreign_code", "foreign_file", "printable"]

T = TypeVar("T")

_SURROGATE = re.compile("[\ud800-\udfff]")
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_LINE_BREAKS = frozenset("\u2028\u2029")


def printable(text: object) -> str:
    """Return `text` on one line that a terminal shows as it is written.

    Control characters (C0, DEL, C1), line breaks, bidirectional marks and lone surrogates become escapes such as
    ``\\x1b`` and ``\\u202e``: no name in a file moves the cursor, forges a line of a log, or fails to be encoded.
    """
    return "".join(_escape(character) if _is_unsafe(character) else character for character in str(text))


def encodable(value: T) -> T:
    """Return a text, or a document of dictionaries and lists, in which lone surrogates are escaped as by `printable`.

    They stand for the bytes of a file's name that isn't UTF-8; no file or strict reader takes them.
    """
    if isinstance(value, str):
        return cast(T, _SURROGATE.sub(lambda found: _escape(found[0]), value))
    if isinstance(value, dict):
        return cast(T, {encodable(key): encodable(each) for key, each in value.items()})
    if isinstance(value, list | tuple):
        return cast(T, [encodable(each) for each in value])
    return value


def _is_unsafe(character: str) -> bool:
    code = ord(character)
    return (
        code < 0x20 or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000 or character in _BIDI or character in _LINE_BREAKS
    )


def _escape(character: str) -> str:
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
    code = ord(character)
    return short or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


@contextmanager
def foreign_code(what: str) -> Iterator[None]:
    """Turn whatever the user's own code raises, an exit of the process included, into an error of one line.

    `what` names the code as the subject of a sentence, such as ``‹data› mydata:load``. Ctrl-C passes. What the code
    sets for the whole process (its streams, torch's gradients, type and device, numpy's errors) doesn't stay. What it
    forks, and its threads, may still call ``os._exit``.

    Raises:
        InputError: the code raised something, or tried to end the process.
    """
    streams, numpy_errors, torch_modes = (sys.stdout, sys.stderr), _numpy_errors(), _torch_modes()
    end_process, here = os._exit, (os.getpid(), threading.get_ident())

    def refuse_exit(status: int) -> NoReturn:
        if (os.getpid(), threading.get_ident()) != here:  # a forked process, or the watchdog
            end_process(status)
        raise SystemExit(status)

    os._exit = refuse_exit
    try:
        yield
    except (KeyboardInterrupt, N2NError):
        raise
    except SystemExit as error:
        code = printable(message_of(error.code)) or "without a code"
        raise InputError(
            f"{what} ended the process (exit {code}); keep sys.exit behind `if __name__ == '__main__'`"
        ) from error
    except BaseException as error:
        name, text = printable(type(error).__name__), printable(message_of(error))
        raise InputError(f"{what} raised {name}{f': {text}' if text else ''}; mend it there") from error
    finally:
        os._exit = end_process
        sys.stdout, sys.stderr = streams
        if _numpy_errors() != numpy_errors:
            sys.modules["numpy"].seterr(**numpy_errors)
        _restore_torch_modes(torch_modes)


def _numpy_errors() -> dict[str, str]:
    """Return what numpy does about each floating-point error; its defaults while nobody has imported it."""
    numpy: Any = sys.modules.get("numpy")
    if not hasattr(numpy, "geterr"):
        return {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
    return cast("dict[str, str]", numpy.geterr())


def _torch_modes() -> tuple[object, ...] | None:
    """Return what torch computes with by default; None while nobody has imported it."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "get_default_device"):  # or it is being imported
        return None
    return torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_default_device()


def _restore_torch_modes(before: tuple[object, ...] | None) -> None:
    now, torch = _torch_modes(), cast("Any", sys.modules.get("torch"))
    if now is None:
        return
    gradients, dtype, device = before or (True, torch.float32, torch.device("cpu"))
    if now[0] != gradients:
        torch.set_grad_enabled(gradients)
    if now[1] != dtype:
        torch.set_default_dtype(dtype)
    if now[2] != device:
        torch.set_default_device(None if device == torch.device("cpu") else device)


class UnforeseenError(InputError):
    """What a file caused and nobody foresaw; its `__cause__` is what was raised (shown by ``--debug``)."""


@contextmanager
def foreign_file(what: object) -> Iterator[None]:
    """Turn whatever a file causes while it is read or analysed into an error of one line that names it.

    `what` is the file's path, or "the model". Errors that say already what is wrong keep their text.

    Raises:
        InputError: the file can't be analysed; an `UnforeseenError` where no check says why.
    """
    try:
        yield
    except LimitExceededError as error:
        if what == "the model":
            raise
        raise InputError(f"{what}: {error.text}") from error
    except InputError as error:
        if str(what) in error.text or what == "the model":
            raise
        raise type(error)(f"{what}: {error.text.removeprefix('the model: ')}") from error
    except (KeyboardInterrupt, N2NError):
        raise
    except MemoryError as error:
        raise InputError(
            f"{what}: needs more memory than this machine gives; check the sizes that it declares, or give it more"
        ) from error
    except RecursionError as error:
        raise InputError(f"{what}: is nested too deeply; simplify the graph and export it again") from error
    except Exception as error:
        text = message_of(error)
        if lack_behind(error) is not None:
            raise UnsuitableEnvironmentError(
                f"{what}: there is too little memory to analyse it ({printable(text)}); allow more (ulimit -a)"
            ) from error
        short = text if len(text) <= 200 else f"{text[:200]} ..."
        raise UnforeseenError(
            f"{what}: can't be analysed ({type(error).__name__}{f': {short}' if short else ''}); check the file, and "
            "report this if ONNX Runtime runs it"
        ) from error
