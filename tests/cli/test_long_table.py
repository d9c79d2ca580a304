"""Tables of many rows look as rich writes them."""

import io

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from n2n_edge.cli.long_table import LongTable

ROWS = [
    (Text(f"layer{index}{'.conv' * (index % 9)}"), Text(str(11**index)), Text("yes", style="green"))
    if index % 3
    else (Text("a name with\nbreaks and 漢字"), Text("1"), Text(f"no: {'it is read elsewhere ' * 5}", style="dim"))
    for index in range(12)
]


def _table() -> Table:
    table = Table(title="layers", title_justify="left")
    table.add_column("layer", overflow="fold")
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("removable", overflow="fold", ratio=1)
    return table


def _printed(renderable: object, width: int, *, color: bool) -> str:
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=color, color_system="truecolor" if color else None).print(renderable)
    return file.getvalue()


@pytest.mark.parametrize("width", [20, 50, 80, 200])
@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("rows", [ROWS, ROWS[1:2], []], ids=["many", "one", "none"])
def test_a_long_table_is_written_as_rich_writes_it(rows: list[tuple[Text, ...]], width: int, color: bool) -> None:
    expected = _table()
    for row in rows:
        expected.add_row(*row)

    assert _printed(LongTable(_table(), rows), width, color=color) == _printed(expected, width, color=color)
