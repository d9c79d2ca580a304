"""What the tests of reports read from a page."""

import re
from html.parser import HTMLParser

__all__ = ["VOID", "Page", "chart_of"]

VOID = {"meta", "link", "br", "hr", "img", "input", "wbr"}


class Page(HTMLParser):
    """Collects the tags of a page with their attributes, its text, and tags that are closed in the wrong order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.misplaced: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        self.misplaced += [f"<{tag}> is never closed" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()
        else:
            self.misplaced.append(f"</{tag}> where {self._open[-1:]} is open")

    def handle_data(self, data: str) -> None:
        self.words += data

    def of_class(self, name: str) -> list[str]:
        """Return the tags that have this class."""
        return [tag for tag, attrs in self.tags if name in (attrs.get("class") or "").split()]


def chart_of(html: str, name: str) -> str:
    """Return the SVG of the chart called `name`."""
    found = re.search(rf'<svg class="chart"[^>]*"{re.escape(name)}-title.*?</svg>', html, flags=re.DOTALL)
    assert found is not None, name
    return found.group()
