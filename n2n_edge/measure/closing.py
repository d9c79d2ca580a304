"""What is closed at the end of a ``with`` block."""

from types import TracebackType
from typing import Self

__all__ = ["ClosedAtExit"]


class ClosedAtExit:
    """Gives a class that has `close` the use as a context."""

    def close(self) -> None:
        """Let go of what is held; safe to call twice."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
