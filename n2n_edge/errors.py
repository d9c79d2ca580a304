"""The errors that people see: one line that says what was given, what is wrong and what to do.

An error is raised where it is understood; only ``n2n_edge.cli`` turns it into an exit code. It names a setting as
``‹max_mb›``, which Python's users read as ``max_mb`` and those of the command line as ``--max-mb``; options leave
out the unit of seconds, so ``‹max_time_s›`` is ``--max-time`` there.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

__all__ = [
    "BudgetMissedError", "IncompressibleError", "InputError", "LimitExceededError", "MemoryLimitError", "N2NError",
    "UnsuitableEnvironmentError",
    "as_options",
    "first_line",
    "lack_behind",
    "message_of",
    "naming",
    "setting",
]  # fmt: skip


_LINE_BREAKS = {ord(sign): repr(sign)[1:-1] for sign in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"}

_SETTING = re.compile("‹([a-z][a-z0-9_]*?)(_s)?›")


def setting(option: str) -> str:
    """Return an option such as ``--max-mb`` as errors name it: ``‹max_mb›``."""
    return f"‹{option.removeprefix('--').replace('-', '_')}›"


def as_options(text: str) -> str:
    """Return a text with settings in brackets as the command line has them."""
    return _SETTING.sub(lambda found: "--" + found[1].replace("_", "-"), text)


class N2NError(Exception):
    """Base of every error that n2n-edge raises on purpose; `exit_code` is what the command line returns.

    >>> try:
    ...     n2n_edge.load_profile("no-such-board")
    ... except n2n_edge.N2NError as error:
    ...     error.exit_code
    2
    """

    exit_code = 2

    def __str__(self) -> str:
        return _SETTING.sub(r"\1\2", self.text)

    @property
    def text(self) -> str:
        """What was raised on one line, settings in brackets: for another error to quote.

        Line breaks, which only names from elsewhere have, are escaped.
        """
        return super().__str__().translate(_LINE_BREAKS)

    def on_command_line(self) -> str:
        """Return the text with settings as the options of commands."""
        return as_options(self.text)


class InputError(N2NError):
    """Wrong usage or bad input: a file, an option, a profile, a data set (exit code 2)."""


class IncompressibleError(InputError):
    """A model that runs, and that is no model to compress: a quantized one, or one of text or sequences."""


class LimitExceededError(N2NError):
    """A model took more time or memory than it is given for one run (exit code 2)."""


class BudgetMissedError(N2NError):
    """A budget or gate failed, or can't be reached (exit code 1); `details` is what a program would want to know."""

    exit_code = 1

    def __init__(self, message: str, details: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.details = dict(details or {})


class UnsuitableEnvironmentError(N2NError):
    """The result is inconclusive, or this environment can't tell: a package or tool is missing (exit code 3)."""

    exit_code = 3


class MemoryLimitError(N2NError):
    """The memory budget was exceeded while running (exit code 4)."""

    exit_code = 4


@contextmanager
def naming(names: Mapping[object, object]) -> Iterator[None]:
    """Let errors of the block name what a person knows instead of a file that exists only meanwhile.

    `names` are the known names, or paths, by those of the files.
    """
    try:
        yield
    except N2NError as error:
        text, *more = error.args
        for file, known in names.items():
            text = str(text).replace(str(file), str(known))
        error.args = (text, *more)
        raise


def message_of(error: object) -> str:
    """Return what an error says, on one line; nothing where saying it fails, too."""
    try:
        return " ".join(str(error).split())
    except (Exception, SystemExit):  # the text of a foreign error is foreign code
        return ""


def first_line(error: object) -> str:
    """Return the first line of what an error says; its type where it says nothing."""
    return str(error).strip().split("\n")[0].strip() or type(error).__name__


def lack_behind(error: BaseException) -> str | None:
    """Return what this process has too little of, "memory" or "threads", where that is what an error comes from."""
    seen: BaseException | None = error
    while seen is not None:
        text = message_of(seen).lower()
        unmapped = "failed to map segment" in text or "cannot allocate memory" in text
        if isinstance(seen, MemoryError) or (isinstance(seen, (ImportError, OSError)) and unmapped):
            return "memory"
        if isinstance(seen, RuntimeError) and "can't start new thread" in text:
            return "threads"
        seen = seen.__cause__ or seen.__context__
    return None
