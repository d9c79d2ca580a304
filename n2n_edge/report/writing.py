"""Writing the report of a document that lies on disk, and its pictures."""

from pathlib import Path
from typing import cast

import jinja2

from n2n_edge.errors import InputError
from n2n_edge.report.bench_charts import bench_charts
from n2n_edge.report.bench_document import BenchJson
from n2n_edge.report.bench_html import render_bench_html
from n2n_edge.report.chart import Chart
from n2n_edge.report.document import RunReport
from n2n_edge.report.html import render_html, run_charts
from n2n_edge.report.pictures import write_pictures
from n2n_edge.report.reading import find_document, read_document
from n2n_edge.writing import write_text

__all__ = ["write_report"]

_MARK = b'name="generator" content="n2n-edge'


def write_report(source: Path, pictures: Path | None = None) -> tuple[Path, tuple[Path, ...]]:
    """Write the HTML file of a run's folder, a `report.json` or a bench document beside it; return where it lies.

    With `pictures` every chart goes to that folder as a PNG, too; their paths come second.

    Raises:
        InputError: there is no such document, it isn't complete, or something can't be written.
        UnsuitableEnvironmentError: pictures need a package or a font that isn't there.
    """
    path = find_document(source)
    document = read_document(path)
    try:
        text, charts = _rendered(document)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, jinja2.UndefinedError) as error:
        raise InputError(
            f"{path}: not a complete report ({type(error).__name__}: {error}); give one that compress or bench wrote"
        ) from error
    page = path.with_suffix(".html")
    _refuse_foreign(page, path)
    try:
        write_text(page, text)
    except OSError as error:
        raise InputError(
            f"{page}: can't be written ({error.strerror}); copy {path.name} to a folder of yours"
        ) from error
    return page, () if pictures is None else write_pictures(charts, pictures)


def _refuse_foreign(page: Path, document: Path) -> None:
    """Refuse to write over what isn't a page of ours."""
    if page == document or (page.exists() and _MARK not in page.read_bytes()[:4096]):
        raise InputError(f"{page}: is there and no report; move it, or copy {document.name} to a folder of its own")


def _rendered(document: RunReport | BenchJson) -> tuple[str, tuple[Chart, ...]]:
    if document.get("kind") == "bench":
        bench = cast("BenchJson", document)
        return render_bench_html(bench), bench_charts(bench)
    run = cast("RunReport", document)
    return render_html(run, run["search"]["candidates"]), run_charts(run)
