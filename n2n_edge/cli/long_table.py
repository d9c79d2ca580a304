"""Tables of thousands of rows as rich would write them.

rich lays out the columns and wraps what is too long for them; all other rows are written straight away.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

__all__ = ["LongTable"]

_Row = Sequence[Text]


class LongTable:
    """`table` has columns and no rows; its cells lie in its default box and are styled as a whole."""

    def __init__(self, table: Table, rows: Sequence[_Row]) -> None:
        self._table, self._rows = table, rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """Write head and foot as rich does for the widest cells, and the rows between them."""
        head, foot = self._frame(console, options)
        top = "".join(segment.text for segment in head[-1])
        widths = [len(part) - 2 for part in top.strip("┡┩").split("╇")]
        if not self._rows or not top.startswith("┡") or min(widths) < 1:  # plain letters for lines, or no room
            for row in self._rows:
                self._table.add_row(*row)
            yield from console.render(self._table, options)
            return
        yield from _written(head)
        wrapped: list[_Row] = []
        for row in self._rows:
            line = self._plain(row, widths, console)
            if line is None:
                wrapped.append(row)
                continue
            yield from self._by_rich(wrapped, widths, console, options)
            wrapped = []
            yield from line
        yield from self._by_rich(wrapped, widths, console, options)
        yield from _written([foot])

    def _frame(self, console: Console, options: ConsoleOptions) -> tuple[list[list[Segment]], list[Segment]]:
        """Return the lines of the head and the last line of a table that has the longest cells and words alone."""
        columns = list(zip(*self._rows, strict=True))
        if not columns:
            return [[Segment("")]], []
        probe = _like(self._table, self._table)
        for longest in (_length, _longest_word):
            probe.add_row(*(max(cells, key=longest) for cells in columns))
        lines = console.render_lines(probe, options, pad=False)
        ends = [index for index, line in enumerate(lines) if line and line[0].text.startswith("┡")]
        return lines[: ends[0] + 1] if ends else [[Segment("")]], lines[-1]

    def _plain(self, row: _Row, widths: Sequence[int], console: Console) -> list[Segment] | None:
        """Return the line of a row that needs no wrapping; None for any other."""
        segments: list[Segment] = []
        text = "│ "
        for cell, column, width in zip(row, self._table.columns, widths, strict=True):
            content = cell.plain
            if not content.isascii() or not content.isprintable() or content.endswith(" ") or len(content) > width:
                return None
            free = " " * (width - len(content))
            before, after = (free, "") if column.justify == "right" else ("", free)
            if cell.style:
                style = cell.style if isinstance(cell.style, Style) else console.get_style(cell.style)
                segments += [Segment(text), Segment(before + content + after, style)]
                text = " │ "
            else:
                text += before + content + after + " │ "
        return [*segments, Segment(text[:-1] + "\n")]

    def _by_rich(
        self, rows: Sequence[_Row], widths: Sequence[int], console: Console, options: ConsoleOptions
    ) -> Iterator[Segment]:
        if not rows:
            return
        table = _like(self._table, Table(show_header=False), widths)
        for row in rows:
            table.add_row(*row)
        yield from _written(console.render_lines(table, options, pad=False)[1:-1])


def _like(table: Table, other: Table, widths: Sequence[int] = ()) -> Table:
    """Return a table without rows: the columns of `table`, of these widths if given, and the settings of `other`."""
    made = Table(title=other.title, title_justify=other.title_justify, show_header=other.show_header)
    for index, column in enumerate(table.columns):
        copy = replace(column, _cells=[])
        if widths:
            copy.width, copy.ratio = widths[index], None
        made.columns.append(copy)
    return made


def _written(lines: Sequence[Sequence[Segment]]) -> Iterator[Segment]:
    for line in lines:
        yield from line
        yield Segment.line()


def _length(cell: Text) -> int:
    return max((cell_len(line) for line in cell.plain.splitlines()), default=0)


def _longest_word(cell: Text) -> int:
    return max((cell_len(word) for word in cell.plain.split()), default=0)
