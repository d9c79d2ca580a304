"""Documents whose figures are no run's: a page, or one line of error."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from n2n_edge.errors import InputError
from n2n_edge.report.writing import write_report
from tests.report.sample import sample_document


def numbers(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield (*path, key)
        yield from numbers(value, (*path, key))


def places() -> list[tuple[Any, ...]]:
    """Give one path of each kind: rows of a list are alike."""
    kinds = {}
    for path in numbers(sample_document(3)):
        if path[-1] != "schema_version":
            kinds.setdefault(tuple(0 if isinstance(part, int) else part for part in path), path)
    return list(kinds.values())


@pytest.mark.parametrize("path", places(), ids=lambda path: ".".join(map(str, path)))
def test_no_number_breaks_the_report(path: tuple[Any, ...], tmp_path: Path) -> None:
    document = sample_document(3)
    place: Any = document
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = 1e308
    (tmp_path / "report.json").write_text(json.dumps(document))
    try:
        page, _ = write_report(tmp_path)
        assert page.is_file()
    except InputError as error:
        refusal = str(error)
        assert "not a complete report" in refusal
