"""TensorBoard's event files: written record by record, and read back to see what is there already."""

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

__all__ = ["EventFile", "written_steps"]

_LENGTH, _CHECKSUM = 8, 4
"""Bytes of a record before and after its content: length and checksum, content, checksum (TFRecord)."""


class EventFile:
    """A new event file in a folder; every call has reached the disk when it returns."""

    def __init__(self, folder: Path) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("*.tfevents.*")))  # two files of one second get names of their own
        self._writer = EventsWriter(str(folder.absolute() / "events"), f".{number}")

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Add one point to each of the curves in `values`."""
        from tensorboardX.summary import scalar

        for name, value in values.items():
            self._add(scalar(name, value), step)
        self._writer.flush()

    def text(self, name: str, text: str) -> None:
        """Add a text in Markdown."""
        from tensorboardX import summary

        self._add(summary.text(name, text), 0)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _add(self, summary: "Summary", step: int) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))


def written_steps(folder: Path) -> set[tuple[str, int]]:
    """Return every name and step that the event files of `folder` hold; what a kill cut off doesn't count."""
    return {
        (str(value.tag), int(event.step))
        for path in sorted(folder.glob("*.tfevents.*"))
        for event in _events(path)
        for value in event.summary.value
    }


def _events(path: Path) -> "Iterator[Event]":
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorboardX.proto.event_pb2 import Event

    content = path.read_bytes()
    place = 0
    while place + _LENGTH + _CHECKSUM <= len(content):
        (length,) = struct.unpack("<Q", content[place : place + _LENGTH])
        start = place + _LENGTH + _CHECKSUM
        place = start + length + _CHECKSUM
        if place > len(content):
            return
        try:
            yield Event.FromString(content[start : start + length])
        except DecodeError:
            return
