import pytest

from n2n_edge.report.html import render_html
from n2n_edge.report.model_card import render_model_card, write_model_card
from tests.report.sample import sample_document


@pytest.fixture(scope="module")
def document():
    return sample_document()


def test_the_card_has_figures_budgets_use_and_command(document, tmp_path):
    write_model_card(document, tmp_path / "model-card.md")
    card = (tmp_path / "model-card.md").read_text(encoding="utf-8")
    headings = [line for line in card.splitlines() if line.startswith("## ")]
    assert headings == ["## Figures", "## Budgets", "## How it was made", "## Use", "## Limits", "## Made again by"]
    assert (
        "| Accuracy (test split) | 99.4% (n = 360, measured) | 98.9% (n = 360, measured) | −0.5 points [−1.4, +0.3] |"
        in card
    )
    assert "In brackets: the 95% interval" in card
    assert document["command"] in card


def test_a_predicted_latency_is_labelled(document):
    line = next(line for line in render_model_card(document).splitlines() if line.startswith("| Latency, raspberry"))
    assert line.count("analytic") == 2
    assert "measured" not in line


def test_a_missed_budget_stands_out(document):
    missed = {**document, "budgets": [{**document["budgets"][0], "met": False}]}
    assert "| **missed** |" in render_model_card(missed)


def test_free_text_cannot_break_a_table_or_bring_markup(document):
    odd = {**document, "device": {"name": "a|b", "description": "x\n# y <script>"}}
    card = render_model_card(odd)
    assert "<script>" not in card
    assert "\n# y" not in card
    rows = [line for line in card.splitlines() if line.startswith("| Latency")]
    assert all(line.count(" | ") == 3 for line in rows)


def test_notes_of_the_run_stand_apart_from_its_warnings(document):
    noted = {**document, "warnings": ["doubtful"], "notes": ["evidence: 20 models"]}
    before, after = render_model_card(noted).split("## What the figures rest on")
    assert "- doubtful" in before
    assert "- evidence: 20 models" in after
    page = render_html(noted, noted["search"]["candidates"])
    assert page.index("Warnings on these figures") < page.index("doubtful") < page.index("What these figures rest on")
    assert "What the figures rest on" not in render_model_card({**document, "notes": []})


def test_warnings_of_the_run_are_passed_on(document):
    assert all(warning in render_model_card(document) for warning in document["warnings"])
