"""Warnings and notes: a text for people, and a code that programs decide by."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

__all__ = ["Notice", "codes_of", "texts_of"]


@dataclass(frozen=True)
class Notice:
    """One thing to be told beside a result.

    ``Notice("other-device", "timed on raspberry-pi-4")``. `code` is stable and in kebab-case, `text` may change;
    `remedy` is what to do about it ('' for nothing). Warnings say what makes a result less certain, notes what it rests
    on.
    """

    code: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.text}; {self.remedy}" if self.remedy else self.text

    def prefixed(self, words: str) -> "Notice":
        """Return the same, its text behind `words` and a colon."""
        return replace(self, text=f"{words}: {self.text}")


def texts_of(notices: Iterable[Notice]) -> tuple[str, ...]:
    """Return what is shown, as JSON documents hold it."""
    return tuple(str(notice) for notice in notices)


def codes_of(notices: Iterable[Notice]) -> tuple[str, ...]:
    """Return the codes, which JSON documents hold beside the texts, in the same order."""
    return tuple(notice.code for notice in notices)
