"""Standard output and error that neither a reader that goes, a full disk nor a name in a file can break."""

import errno
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

__all__ = ["StandardStream", "Streams", "standard_streams"]

_COMMAND = re.compile(r"(^|[\r\n])([^\S\r\n]*):(?=:)")
_COMMAND_WITHIN = re.compile(r"([\r\n])([^\S\r\n]*):(?=:)")


class StandardStream(io.TextIOWrapper):
    """A text stream on a file descriptor whose errors are remembered instead of raised.

    What the encoding can't hold becomes a question mark. A line that a CI runner would obey (``::error::``,
    ``##[group]``) is defused, since any name in a file could make one; `write_command` writes those that are meant.
    """

    def __init__(self, descriptor: int, encoding: str, *, line_buffering: bool, write_through: bool) -> None:
        self._raw = _Descriptor(descriptor, "w", closefd=False)
        self._at_start = True
        super().__init__(
            io.BufferedWriter(self._raw),
            encoding=encoding,
            errors="replace",
            line_buffering=line_buffering,
            write_through=write_through,
        )

    @property
    def error(self) -> OSError | None:
        """What kept text from being written, None if nothing did."""
        return self._raw.error

    def write(self, text: str) -> int:
        """Write text, commands to a CI runner defused."""
        pattern = _COMMAND if self._at_start else _COMMAND_WITHIN
        super().write(pattern.sub(r"\1\2\\x3a", text).replace("##[", "#\\u0023["))
        self._follow(text)
        return len(text)

    def close(self) -> None:
        """Write what is held back, and stay open: code of a user's that closes stdout doesn't end the command's."""
        self.flush()

    def write_command(self, line: str) -> None:
        """Write a line for a CI runner as it is."""
        super().write(line + "\n" if self._at_start else f"\n{line}\n")
        self._at_start = True

    def _follow(self, text: str) -> None:
        lines = re.split(r"[\r\n]", text)
        self._at_start = (self._at_start or len(lines) > 1) and not lines[-1].strip()


class _Descriptor(io.FileIO):
    """A file descriptor that takes and forgets everything after its first error."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                return super().write(data)
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes


@dataclass
class Streams:
    """What became of what was printed; `lost` is known at the end."""

    lost: bool = False


@contextmanager
def standard_streams() -> Iterator[Streams]:
    """Put `StandardStream` in the place of the process's own streams.

    At the end a loss is told on stderr; that a reader has gone, as ``head`` does, is none.
    """
    streams = Streams()
    _open_closed_descriptors()
    before = sys.stdout, sys.stderr
    stdout, stderr = _guarded(sys.stdout, 1), _guarded(sys.stderr, 2)
    sys.stdout, sys.stderr = stdout, stderr
    try:
        yield streams
    finally:
        stdout.flush()
        error = stdout.error if isinstance(stdout, StandardStream) else None
        streams.lost = error is not None and error.errno != errno.EPIPE
        if error is not None and streams.lost:
            print(f"n2n-edge: stdout can't be written ({error.strerror}); what was printed is lost", file=stderr)
        stderr.flush()
        sys.stdout, sys.stderr = before


def _open_closed_descriptors() -> None:
    """Open what the process was started without: the next file to be opened would become its stdout."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _guarded(stream: Any, descriptor: int) -> Any:
    """Return a stream in the place of the process's own; one that a test put there stays."""
    if stream is None:
        return StandardStream(descriptor, "utf-8", line_buffering=False, write_through=False)
    if not isinstance(stream, io.TextIOWrapper) or _descriptor_of(stream) != descriptor:
        return stream
    with suppress(OSError):  # nothing was written to it yet
        stream.flush()
    return StandardStream(
        descriptor, stream.encoding, line_buffering=stream.line_buffering, write_through=stream.write_through
    )


def _descriptor_of(stream: io.TextIOWrapper) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError):  # in memory, or closed
        return None
