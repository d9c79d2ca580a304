"""What a signal that ends a run says: how to go on with it."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from n2n_edge.cli.output import print_line

__all__ = ["resumable"]

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class _Stopped(KeyboardInterrupt):
    """A signal that ends the program; like Ctrl-C it passes through a user's own code."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def resumable(how: Callable[[], str]) -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP end the block in good order, with one line that says `how` to go on.

    Raises:
        typer.Exit: such a signal came; the exit code is 128 and the signal's number.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:  # nohup and supervisors may have theirs
                before[number] = signal.signal(number, _stop)
    try:
        yield
    except KeyboardInterrupt as error:
        came = signal.Signals(error.number if isinstance(error, _Stopped) else signal.SIGINT)
        print_line(f"n2n-edge: stopped by {came.name}; {how()}", on_stderr=True)
        raise typer.Exit(128 + came) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stopped(number)
