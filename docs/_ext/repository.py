"""Takes pages of the repository that lie outside this folder into the site, and turns links to them.

Results of `benchmarks/`, the changelog and how to contribute are copied beside the other pages (git ignores the
copies), so that the evidence for a figure is one click away.
"""

import re
import shutil
from pathlib import Path

from sphinx.application import Sphinx

__all__ = ["setup", "turned"]

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
PAGES = ("CHANGELOG.md", "CONTRIBUTING.md")
FOLDERS = ("benchmarks",)
SUFFIXES = {".md", ".json", ".svg", ".png"}

_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_ORPHAN = "---\norphan: true\n---\n\n"


def copy_pages(app: Sphinx) -> None:
    """Copy what is not of this folder into it, fresh."""
    for name in FOLDERS:
        shutil.rmtree(DOCS / name, ignore_errors=True)
        for path in sorted((ROOT / name).rglob("*")):
            if path.is_file() and path.suffix in SUFFIXES:
                copy = DOCS / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
    for name in PAGES:
        shutil.copyfile(ROOT / name, DOCS / name)


def turn_links(app: Sphinx, docname: str, source: list[str]) -> None:
    """Turn the links of one page; what no table of contents names is said to be so on purpose."""
    place = DOCS / f"{docname}.md"
    copied = docname.split("/")[0] in FOLDERS or f"{docname}.md" in PAGES
    original = ROOT / f"{docname}.md" if copied else place
    orphan = _ORPHAN if docname.split("/")[0] in FOLDERS and not docname.endswith("/README") else ""
    source[0] = orphan + turned(source[0], original)


def turned(text: str, page: Path) -> str:
    """Return the text of `page` with links as the site has them, from its root."""

    def turn(match: re.Match[str]) -> str:
        target, anchor, fragment = match[2].partition("#")
        if not target or re.match(r"[a-z]+:|/", target):
            return match[0]
        real = (page.parent / target).resolve()
        if real.is_dir() and (real / "README.md").is_file():
            real /= "README.md"
        if real == ROOT / "README.md":
            real = DOCS / "index.md"
        if DOCS in real.parents:
            place = real.relative_to(DOCS)
        elif ROOT in real.parents:
            place = real.relative_to(ROOT)
        else:
            return match[0]
        return f"{match[1]}/{place.as_posix()}{anchor}{fragment}{match[3]}"

    return _LINK.sub(turn, text)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", copy_pages)
    app.connect("source-read", turn_links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
