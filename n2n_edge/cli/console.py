"""A console for tables and coloured text in which names from files stay on their line."""

from collections.abc import Iterable
from itertools import accumulate
from typing import Any

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Span, Text

from n2n_edge.foreign import printable

__all__ = ["Console"]


class Console(rich.console.Console):
    """rich's console; every text that is printed, in a table as well, is made printable first.

    Square brackets are no markup here, since names have them: what is coloured is a `Text`.
    """

    def __init__(self, *, width: int | None = None, stderr: bool = False, highlight: bool = True) -> None:
        super().__init__(width=width, stderr=stderr, highlight=highlight, markup=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render an object, texts made printable."""
        return super().render(_printable_text(renderable) if isinstance(renderable, Text) else renderable, options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Make a text of a string with markup, made printable."""
        return super().render_str(printable(text), **options)


def _printable_text(text: Text) -> Text:
    """Return the same text with escapes, its styles where they were."""
    plain = text.plain
    escaped = [printable(character) for character in plain]
    if len(escaped) == sum(map(len, escaped)) and "".join(escaped) == plain:
        return text
    offsets = [0, *accumulate(map(len, escaped))]
    copy = text.copy()
    copy.plain = "".join(escaped)
    copy.spans = [
        Span(offsets[max(span.start, 0)], offsets[min(span.end, len(plain))], span.style) for span in text.spans
    ]
    return copy
