"""The report's pictures as PNG files for slides."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from n2n_edge.errors import InputError, UnsuitableEnvironmentError
from n2n_edge.report.chart import Chart, Key
from n2n_edge.report.page import svg_environment

__all__ = ["PICTURE_WIDTH", "slide_svg", "write_pictures"]

PICTURE_WIDTH = 1920
"""Pixels across."""

_WIDTH, _MARGIN = 600, 20
_KEY_ROOM, _LETTER = 27.0, 6.6
_FONTS = (
    "'Noto Sans', 'DejaVu Sans', 'Liberation Sans', Roboto, 'Segoe UI', 'Helvetica Neue', Arial, Arimo, FreeSans, "
    "'Bitstream Vera Sans', sans-serif"
)


@dataclass(frozen=True)
class _PlacedKey:
    x: float
    y: float
    key: Key


def write_pictures(charts: Sequence[Chart], folder: Path) -> tuple[Path, ...]:
    """Write each chart to `folder` as a PNG of `PICTURE_WIDTH`; the file's name is the chart's.

    Raises:
        InputError: the folder can't be written.
        UnsuitableEnvironmentError: what draws PNGs isn't installed, or this system has no font.
    """
    _check_environment()
    images = [(chart.name, _png(slide_svg(chart))) for chart in charts]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for name, image in images:
            path = folder / f"{_file_name(name)}.png"
            path.write_bytes(image)
            written.append(path)
    except OSError as error:
        raise InputError(f"‹png› {folder}: can't be written ({error.strerror}); give another folder") from error
    return tuple(written)


def slide_svg(chart: Chart) -> str:
    """Return a chart as an SVG that stands alone: with title, legend and source, in the colours of a light page."""
    words = textwrap.wrap(chart.description, 96, max_lines=2, placeholder=" …")
    title = textwrap.shorten(chart.title, 52, placeholder=" …")
    keys_at = 50 + 15 * len(words)
    keys = _placed(chart.keys, keys_at)
    top = (keys[-1].y if keys else keys_at - 14) + 20
    source = textwrap.wrap(chart.source, 110, max_lines=3, placeholder=" …")
    return (
        svg_environment()
        .get_template("slide.svg.j2")
        .render(
            chart=chart,
            title=title,
            words=words,
            placed=keys,
            top=top,
            source=source,
            width=_WIDTH,
            height=top + chart.height + 22 + 12 * len(source),
            margin=_MARGIN,
            fonts=_FONTS,
        )
    )


def _placed(keys: Sequence[Key], y: float) -> tuple[_PlacedKey, ...]:
    placed: list[_PlacedKey] = []
    x = float(_MARGIN)
    for key in keys:
        width = _KEY_ROOM + _LETTER * len(key.text)
        if x + width > _WIDTH and placed:
            x, y = float(_MARGIN), y + 18
        placed.append(_PlacedKey(x, y, key))
        x += width + 12
    return tuple(placed)


def _png(svg: str) -> bytes:
    import resvg_py

    return resvg_py.svg_to_bytes(svg_string=svg, width=PICTURE_WIDTH)


def _check_environment() -> None:
    try:
        import resvg_py  # noqa: F401
    except ImportError as error:
        raise UnsuitableEnvironmentError(
            'pictures need a package that isn\'t installed: pip install "n2n-edge[png]"'
        ) from error
    if not _has_font():
        raise UnsuitableEnvironmentError(
            "pictures need a font, and this system has none that is known here: install one, such as fonts-dejavu-core"
        )


def _has_font() -> bool:
    """Tell whether text leaves any trace: what draws it says nothing where it finds no font."""
    import resvg_py

    size = 'xmlns="http://www.w3.org/2000/svg" width="40" height="20"'
    text = f'<text x="2" y="15" style="font-family: {_FONTS}">Ag</text>'
    blank, drawn = (resvg_py.svg_to_bytes(svg_string=f"<svg {size}>{inner}</svg>") for inner in ("", text))
    return blank != drawn


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name).strip(".-")[:120]
