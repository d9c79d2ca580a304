"""Warnings and notes: what programs decide by is documented."""

import re
from pathlib import Path

from n2n_edge.metrics.notices import Notice, codes_of, texts_of

ROOT = Path(__file__).parents[2]


def test_a_notice_is_shown_with_its_remedy_and_known_by_its_code():
    notice = Notice("busy", "others use 2 cores", "quieten the machine")

    assert texts_of([notice, notice.prefixed("a.onnx")]) == (
        "others use 2 cores; quieten the machine",
        "a.onnx: others use 2 cores; quieten the machine",
    )
    assert codes_of([notice.prefixed("a.onnx")]) == ("busy",)


def test_every_code_is_documented():
    sources = "".join(path.read_text() for path in (ROOT / "n2n_edge").rglob("*.py"))
    codes = re.findall(r'\bNotice\(\s*f?"([a-z{][a-z{}._-]*)"', sources)
    documented = set(re.findall(r"`([a-z0-9-]+)`", (ROOT / "docs/reference/documents.md").read_text()))

    assert len(codes) > 40
    for code in codes:
        pattern = re.sub(r"\\{.*?\\}", "[a-z0-9]+", re.escape(code))
        assert any(re.fullmatch(pattern, one) for one in documented), code
