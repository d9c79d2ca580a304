"""What a command is at, on one line of a terminal."""

import sys

from n2n_edge.foreign import printable

__all__ = ["say"]


def say(stage: str) -> None:
    """Show what is going on, on one line of a terminal that is overwritten; '' takes it away."""
    if sys.stderr.isatty():
        print(f"\r\033[K{printable(stage)}", end="", file=sys.stderr, flush=True)
