"""What CI systems are given: JUnit, Markdown, GitHub, GitLab, JSON."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest
import xmlschema
from hypothesis import given
from hypothesis import strategies as st

from n2n_edge.gating.check import Gated, exit_code_of, summary_of
from n2n_edge.gating.github import SUMMARY_BYTES, append_summary, github_annotations, github_error
from n2n_edge.gating.gitlab import gitlab_report
from n2n_edge.gating.json_document import gates_document
from n2n_edge.gating.junit import junit_report
from n2n_edge.gating.latency_ratio import LatencyRatio
from n2n_edge.gating.markdown import gate_markdown
from n2n_edge.gating.operators import Operators
from n2n_edge.gating.regression import compare
from n2n_edge.gating.unanswered import Unanswered
from n2n_edge.measure.comparison import Comparison
from n2n_edge.metrics.budget import Budget
from n2n_edge.metrics.figures import Figure
from n2n_edge.metrics.notices import Notice
from n2n_edge.metrics.verdict import verdicts_on

ROOT = Path(__file__).resolve().parents[2]
JUNIT = xmlschema.XMLSchema(Path(__file__).with_name("junit.xsd"))
SCHEMA = json.loads((ROOT / "docs" / "schemas" / "gate.json").read_text())
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
LATENCY = Figure(2.0, "ms", "measured", 1.9, 2.1, 100)

words = st.text(min_size=1, max_size=30)


def _size(limit, value=0.5):
    return verdicts_on({"size_mb": Figure(value, "MB", "computed")}, [Budget("size_mb", limit)])[0]


def _ratio(low, high):
    found = Comparison((low * high) ** 0.5, low, high, 0.99, 12, 0.05, "inconclusive")
    return LatencyRatio(found, Comparison(1.0, 0.99, 1.01, 0.99, 12, 0.05, "same"), 0.05, LATENCY, LATENCY, "host")


PASSED = Gated(
    Path("models/a.onnx"),
    (_size(1), _ratio(0.98, 1.02), Operators(("Conv",), ())),
    (Notice("a", "doubtful"),),
    notes=(Notice("b", "evidence"),),
)
FAILED = Gated(
    Path("models/b.onnx"),
    (
        _size(1),
        _size(0.4),
        *compare(
            {"params": Figure(2, "params", "computed")}, {"params": Figure(0, "params", "computed")}, lambda _: 1.0
        ),
        _ratio(1.06, 1.2),
        _ratio(1.01, 1.2),
        Operators(("Conv",), (("Gelu", 3),)),
        Unanswered("latency_ms", "--max-latency-ms 5", "no ssh here"),
    ),
    baseline=Path("main.onnx"),
)
OPEN = Gated(Path("c.onnx"), (_ratio(1.01, 1.2),))


@pytest.mark.parametrize(
    ("found", "code", "words"),
    [
        ([PASSED], 0, "pass: all 3 met"),
        ([PASSED, OPEN], 3, "inconclusive: 1 of 4 checks of 2 models can't be told here"),
        ([PASSED, OPEN, FAILED], 1, "FAIL: 4 of 11 checks of 3 models missed, 3 inconclusive"),
    ],
)
def test_one_failure_fails_a_job_and_one_open_question_leaves_it_open(found, code, words):
    assert exit_code_of(found) == code
    assert summary_of(found) == words


@pytest.mark.parametrize("found", [[PASSED], [FAILED], [OPEN], [PASSED, FAILED, OPEN]])
def test_documents_keep_to_the_published_schema(found):
    document = json.loads(json.dumps(gates_document(found), allow_nan=False))
    jsonschema.validate(document, SCHEMA)
    assert document["exit_code"] == exit_code_of(found)


def test_a_junit_report_has_a_suite_a_model_and_a_case_a_check():
    text = junit_report([PASSED, FAILED], "runner", 3.0, NOW)
    JUNIT.validate(text)
    root = ElementTree.fromstring(text)
    assert [suite.get("name") for suite in root] == ["models/a.onnx", "models/b.onnx"]
    assert [(suite.get("tests"), suite.get("failures"), suite.get("errors")) for suite in root] == [
        ("3", "0", "0"),
        ("7", "4", "2"),
    ]
    assert len(root.findall("./testsuite[2]/testcase/failure")) == 4
    assert [error.get("type") for error in root.iter("error")] == ["inconclusive", "inconclusive"]
    assert root.find("testsuite").get("timestamp") == "2026-01-31T12:00:00"


@given(name=words, reason=words)
def test_whatever_a_text_holds_junit_stays_valid(name, reason):
    gated = Gated(Path("m.onnx"), (Unanswered("latency_ms", "asked", reason),), (Notice("a", name),))
    JUNIT.validate(junit_report([gated], "host", 0.1, NOW))


def test_markdown_shows_what_did_not_pass_first():
    text = gate_markdown([PASSED, FAILED])
    assert text.index("b.onnx") < text.index("a.onnx")
    rows = [line for line in text.split("### `models/b.onnx`")[1].splitlines() if line.startswith("| `")]
    assert "FAIL" in rows[0]
    assert " pass " in rows[6]
    assert text.index("- **warning**: doubtful") < text.index("- evidence")


@given(reason=words)
def test_no_text_breaks_a_table(reason):
    text = gate_markdown([Gated(Path("m.onnx"), (Unanswered("latency_ms", "--max | x", reason),))])
    (row,) = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 4
    assert "<" not in row


def test_annotations_name_file_and_question():
    lines = github_annotations([PASSED, FAILED])
    assert [line.split(" ")[0] for line in lines] == ["::error"] * 4 + ["::warning"] * 2
    assert "file=models/b.onnx,title=n2n-edge gate%3A --max-mb 0.4::" in lines[0]
    assert "0.5 MB, computed from the file" in lines[0]


def test_an_annotation_is_one_line_whatever_it_says():
    assert github_error("a%b\nc") == "::error title=n2n-edge gate::a%25b%0Ac"


def test_more_annotations_than_are_shown_are_counted_in_the_last():
    lines = github_annotations([Gated(Path("m.onnx"), tuple(_size(0.4) for _ in range(25)))])
    assert len(lines) == 10
    assert "16 more" in lines[-1]


def test_a_summary_is_added_to_what_is_there_and_stays_below_github_s_limit(tmp_path):
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    append_summary([FAILED], path)
    assert path.read_text().startswith("before\n## n2n-edge gate")
    path.write_text("x" * (SUMMARY_BYTES - 3000) + "\n")
    append_summary([Gated(Path("m.onnx"), tuple(_size(0.4) for _ in range(100)))], path)
    text = path.read_text()
    assert SUMMARY_BYTES - 3000 < len(text.encode()) <= SUMMARY_BYTES
    assert "lines are left out" in text
    path.write_text("x" * SUMMARY_BYTES)
    append_summary([FAILED], path)
    assert path.stat().st_size == SUMMARY_BYTES


def test_gitlab_is_told_what_did_not_pass_with_fingerprints_that_last():
    entries = json.loads(gitlab_report([PASSED, FAILED]))
    assert [entry["severity"] for entry in entries] == ["critical"] * 3 + ["minor"] + ["critical", "minor"]
    assert len({entry["fingerprint"] for entry in entries if entry["severity"] == "critical"}) == 4
    assert all(set(entry) == {"description", "check_name", "fingerprint", "severity", "location"} for entry in entries)
    assert entries[0]["location"] == {"path": "models/b.onnx", "lines": {"begin": 1}}
    assert gitlab_report([PASSED]) == "[]\n"
    assert json.loads(gitlab_report([FAILED])) == entries


def test_notes_and_warnings_stand_apart():
    document = gates_document([PASSED])
    assert (document["warnings"], document["notes"]) == (["doubtful"], ["evidence"])
    suite = ElementTree.fromstring(junit_report([PASSED], "runner", 3.0, NOW))[0]
    assert (suite.findtext("system-err"), suite.findtext("system-out")) == ("doubtful", "evidence")
