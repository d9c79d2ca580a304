"""A gate as a JUnit report: a suite per model, a case per check."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from xml.etree import ElementTree

from n2n_edge.foreign import printable
from n2n_edge.gating.check import Check, Gated
from n2n_edge.gating.repository_path import repository_path
from n2n_edge.metrics.notices import texts_of

__all__ = ["junit_report"]

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_report(found: Sequence[Gated], host: str, seconds: float, now: datetime | None = None) -> str:
    """Return the XML: a missed check is a failure, an inconclusive one an error, since nobody could tell.

    `host` is the machine's name, `seconds` what the whole gate took, `now` its end. The form is that of Ant's JUnit
    task, which most CI systems read.
    """
    stamp = (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    root = ElementTree.Element("testsuites")
    for place, gated in enumerate(found):
        outcomes = [check.outcome for check in gated.checks]
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            {
                "name": _text(repository_path(gated.model)),
                "package": "n2n-edge gate",
                "id": str(place),
                "timestamp": stamp,
                "hostname": _text(host) or "localhost",
                "tests": str(len(outcomes)),
                "failures": str(outcomes.count("fail")),
                "errors": str(outcomes.count("inconclusive")),
                "time": f"{seconds / len(found):.3f}",
            },
        )
        ElementTree.SubElement(suite, "properties")
        for check in gated.checks:
            _case(suite, gated, check)
        ElementTree.SubElement(suite, "system-out").text = _text("\n".join(texts_of(gated.notes)))
        ElementTree.SubElement(suite, "system-err").text = _text("\n".join(texts_of(gated.warnings)))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ElementTree.Element, gated: Gated, check: Check) -> None:
    names = {"classname": _text(repository_path(gated.model)), "name": _text(check.asked), "time": "0"}
    case = ElementTree.SubElement(suite, "testcase", names)
    if check.outcome != "pass":
        tag = "failure" if check.outcome == "fail" else "error"
        details = {"type": check.outcome, "message": _text(check.reason)}
        ElementTree.SubElement(case, tag, details).text = _text(f"{check.asked}: {check.reason}")


def _text(text: str) -> str:
    """Escape what XML can't hold, and what moves a cursor where somebody prints it."""
    return "\n".join(printable(line) for line in _NOT_XML.sub(lambda found: printable(found[0]), text).split("\n"))
