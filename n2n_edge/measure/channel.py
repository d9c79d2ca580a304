"""Channel of lines to and from a child process, with an end to every wait and a limit on how much it may say."""

import contextlib
import os
import select
import subprocess
import threading
import time
from typing import IO

__all__ = ["Channel", "FloodError"]

LINE_BYTES = 16_000_000
"""The longest line: the longest that a worker writes, a hundred thousand times of runs, takes a seventh of it."""
TRAFFIC_BYTES = 128_000_000
"""How much may come on both streams together in answer to one line that was sent."""
MOST_LINES = 10_000
"""And in how many lines: a worker writes fewer than ten, a login shell may greet at length."""
LAST_WORDS_BYTES = 65_536
PIECE_BYTES = 65_536
LOOK_S = 0.5
"""How often to look whether the process still lives: whatever it has started may hold its streams open."""


class FloodError(Exception):
    """The process said more than it may; the text is the rest of a sentence about it."""


class Channel:
    """The pipes of one child process; for one thread at a time, but for `beat`.

    Of stderr only the end is kept (`last_words`).
    """

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        self._write_lock = threading.Lock()
        self._received = bytearray()
        self._searched = 0
        self._last_words = bytearray()
        self._traffic = self._lines = 0
        self._ended = False
        self._reading: dict[int, IO[bytes]] = {}
        for stream in (self._stdin, self._stdout, self._stderr):
            os.set_blocking(stream.fileno(), False)
        for stream in (self._stdout, self._stderr):
            self._reading[stream.fileno()] = stream

    def send(self, data: bytes, deadline: float) -> None:
        """Write some bytes until `deadline` (of `time.monotonic`).

        Raises:
            TimeoutError: the process doesn't read them.
            OSError: it has closed its stdin, or has ended.
        """
        self._traffic = self._lines = 0
        rest = memoryview(data)
        with self._write_lock:
            while rest:
                try:
                    written = self._stdin.write(rest)
                except ValueError as error:  # closed by now
                    raise OSError("the process is closed") from error
                if written:
                    rest = rest[written:]
                elif time.monotonic() >= deadline:
                    raise TimeoutError
                else:
                    poller = select.poll()
                    poller.register(self._stdin.fileno(), select.POLLOUT)
                    poller.poll(max(0.0, 1000 * min(LOOK_S, deadline - time.monotonic())))

    def beat(self) -> None:
        """Write an empty line, unless the process has yet to read what was sent before.

        Raises:
            OSError: it has closed its stdin, or has ended.
        """
        with self._write_lock, contextlib.suppress(ValueError):
            self._stdin.write(b"\n")

    def line(self, deadline: float) -> bytes | None:
        """Return the next line of stdout; None when there will be no more.

        Raises:
            TimeoutError: there is none until `deadline`.
            FloodError: the line, or everything in answer to what was sent, is longer than it may be.
        """
        while True:
            end = self._received.find(b"\n", self._searched)
            if end >= 0:
                line = bytes(self._received[:end])
                del self._received[: end + 1]
                self._searched = 0
                self._lines += 1
                if self._lines > MOST_LINES:
                    raise FloodError(f"sent more than {MOST_LINES} lines")
                return line
            self._searched = len(self._received)
            if self._searched > LINE_BYTES:
                raise FloodError(f"sent a line of more than {LINE_BYTES // 1_000_000} MB")
            if self._ended:
                return None
            if time.monotonic() >= deadline:
                raise TimeoutError
            self._read(deadline)

    def last_words(self, deadline: float) -> str:
        """Wait for the process to end, until `deadline`, and return the last that it has said on stderr."""
        while self._process.poll() is None and time.monotonic() < deadline:
            self._read(min(deadline, time.monotonic() + 0.05))
        for _ in range(TRAFFIC_BYTES // PIECE_BYTES):
            if not self._take(self._stderr):  # what it has started may hold stderr open: don't wait for its end
                break
        return self._last_words.decode(errors="replace").strip()

    def close(self) -> None:
        """Let go of the pipes; safe to call twice."""
        for stream in (self._stdin, self._stdout, self._stderr):
            with contextlib.suppress(OSError):
                stream.close()

    def close_stdin(self) -> None:
        """Tell the process that nothing more is asked of it."""
        with contextlib.suppress(OSError):
            self._stdin.close()

    def _read(self, deadline: float) -> None:
        """Take what has come on either stream, or wait for it a moment."""
        poller = select.poll()
        for number in self._reading:
            poller.register(number, select.POLLIN)
        left_s = min(LOOK_S, deadline - time.monotonic())
        ready = poller.poll(max(0.0, 1000 * left_s))
        for number, _ in ready:
            stream = self._reading[number]
            if self._take(stream) == b"":
                del self._reading[number]
                self._ended = self._ended or stream is self._stdout
        if not ready and self._process.poll() is not None:
            self._ended = True
        if self._traffic > TRAFFIC_BYTES:
            raise FloodError(f"sent more than {TRAFFIC_BYTES // 1_000_000} MB")

    def _take(self, stream: IO[bytes]) -> bytes | None:
        """Take a piece from a stream and return it: empty at its end, None where there is nothing yet."""
        try:
            piece: bytes | None = stream.read(PIECE_BYTES)
        except (OSError, ValueError):
            return b""
        if piece:
            self._traffic += len(piece)
            if stream is self._stdout:
                self._received += piece
            else:
                self._last_words += piece
                del self._last_words[:-LAST_WORDS_BYTES]
        return piece
