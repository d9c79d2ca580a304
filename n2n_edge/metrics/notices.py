"""Warnings and notes: a text for people, and a code that programs decide by."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Notice", "texts_of"]


@dataclass(frozen=True)
class Notice:
    """One thing to be told beside a result.

    ``Notice("other-device", "timed on raspberry-pi-4")``. `code` is stable and in kebab-case, `text` may change. A
    ``warning`` says what makes a result less certain, a ``note`` what it rests on.
    """

    code: str
    text: str
    level: Literal["warning", "note"] = "warning"

    def __str__(self) -> str:
        return self.text


def texts_of(notices: Iterable[Notice]) -> tuple[str, ...]:
    """Return the texts, as JSON documents hold them."""
    return tuple(notice.text for notice in notices)
