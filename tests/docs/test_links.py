"""Every relative link in what people read leads somewhere. Links to other hosts can't be checked offline."""

from pathlib import Path

import pytest

from tests.docs.links import anchors, broken_links, pages

ROOT = Path(__file__).resolve().parents[2]
PAGES = pages(ROOT)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    assert broken_links(page, ROOT) == []


def test_all_that_people_read_is_looked_at() -> None:
    names = {str(page.relative_to(ROOT)) for page in PAGES}

    assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/index.md", "benchmarks/policy/README.md"} <= names


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# One `thing`, and more!\n\n## Twice\n\n## Twice\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md) [b](other.md#one-thing-and-more) [c](other.md#twice-1) [d](https://example.org/x#y) [e](#here)\n"
        "# Here\n[f](missing.md) [g](other.md#twice-2) [h](#there) [i](../outside.md)\n"
        "`[j](code.md)`\n```md\n[k](fenced.md)\n```\n"
    )

    assert broken_links(page, tmp_path) == [
        "page.md: missing.md: no such file",
        "page.md: other.md#twice-2: no such heading",
        "page.md: #there: no such heading",
        "page.md: ../outside.md: no such file",
    ]


def test_anchors_are_named_as_github_does() -> None:
    assert anchors("# What it can't do\n```\n# no heading\n```\n## A [link](x.md) (2)\n(own)=\n### Ä b\n") == {
        "what-it-cant-do", "a-link-2", "own", "ä-b",
    }  # fmt: skip
