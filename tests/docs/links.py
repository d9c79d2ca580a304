"""Links of Markdown files to other files of the repository and to headings in them.

Links to other hosts are left alone: nothing here uses the network.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

__all__ = ["anchors", "broken_links", "pages"]

_FENCE = re.compile(r"^(`{3,}|~{3,}|:{3,}).*?^\1\s*$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)", re.DOTALL)
_LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)")
_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$", re.MULTILINE)
_TARGET = re.compile(r"^\(([\w-]+)\)=$|<a (?:id|name)=\"([^\"]+)\"", re.MULTILINE)


def pages(root: Path) -> list[Path]:
    """Return the Markdown files of a checkout that people read; copies that a build of the site makes are left out."""
    copies = {root / "docs" / name for name in ("benchmarks", "_build", "CHANGELOG.md", "CONTRIBUTING.md")}
    found = [root / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
    found += [path for folder in ("docs", "benchmarks") for path in sorted((root / folder).rglob("*.md"))]
    return [path for path in found if not copies & {path, *path.parents}]


def broken_links(page: Path, root: Path) -> list[str]:
    """Return what is wrong with the relative links of `page`, one line each."""
    found = []
    for target in _links(page.read_text(encoding="utf-8")):
        path, _, fragment = target.partition("#")
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        place = page if not path else (page.parent / path).resolve()
        if root not in (place, *place.parents) or not place.exists():
            found.append(f"{page.relative_to(root)}: {target}: no such file")
        elif fragment and (place.suffix != ".md" or fragment not in anchors(place.read_text(encoding="utf-8"))):
            found.append(f"{page.relative_to(root)}: {target}: no such heading")
    return found


def anchors(text: str) -> set[str]:
    """Return what can be linked to in a page: its headings as GitHub names them, and targets that it sets."""
    seen: Counter[str] = Counter()
    names = {first or second for first, second in _TARGET.findall(text)}
    for heading in _HEADING.findall(_FENCE.sub("", text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        names.add(name if not seen[name] else f"{name}-{seen[name]}")
        seen[name] += 1
    return names


def _links(text: str) -> Iterator[str]:
    yield from _LINK.findall(_SPAN.sub("", _FENCE.sub("", text)))
