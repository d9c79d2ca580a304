"""What a person finds in the report of a run."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from n2n_edge.figures import Figure
from n2n_edge.report import render_html, write_html
from tests.report.sample import sample_document


class _Page(HTMLParser):
    """Collects tags with their attributes, and the text."""

    def __init__(self, html):
        super().__init__()
        self.tags = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words += data

    def of_class(self, name):
        return [tag for tag, attrs in self.tags if name in (attrs.get("class") or "").split()]


def _html(document):
    return render_html(document, document["search"]["candidates"])


@pytest.fixture(scope="module")
def document():
    return sample_document()


@pytest.fixture(scope="module")
def html(document):
    return _html(document)


def test_the_file_is_complete_and_reaches_for_nothing_outside(document, tmp_path):
    write_html(document, document["search"]["candidates"], tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert html.rstrip().endswith("</html>")
    attributes = [attrs for _, attrs in _Page(html).tags]
    assert not any(key in attrs for attrs in attributes for key in ("src", "href", "onload", "onclick"))
    assert not re.search(r"https?://|url\(|@import|<script|<link", html)


def test_it_says_what_was_asked_and_whether_it_was_reached(html):
    words = _Page(html).words
    assert "All budgets are met" in words
    assert "at most 0.12 MB" in words
    assert "--max-latency-ms" in words


def test_a_missed_budget_is_not_hidden(document):
    missed = {**document, "budgets": [{**document["budgets"][0], "met": False}, document["budgets"][1]]}
    words = _Page(_html(missed)).words
    assert "Not all budgets are met" in words
    assert "All budgets are met" not in words


def test_every_figure_carries_its_provenance(document, html):
    page = _Page(html)
    cells = re.findall(r'<td><span[^>]*>([^<]*)</span><span class="note">([^<]*)</span></td>', html)
    figures = 2 * (5 + len(document["student"]["latency_ms"])) + len(document["budgets"])
    assert len(cells) == figures
    assert all(re.search(r"(measured|host-limited|calibrated|analytic|computed)$", note) for _, note in cells)
    assert "predicted from data-sheet figures" in page.words


def test_predictions_look_different_from_measurements(document, html):
    predicted = 2 + 1  # teacher and student on the board, and the latency budget
    assert len(_Page(html).of_class("predicted")) == predicted
    measured = Figure(0.41, "ms", "measured", low=0.4, high=0.42, n=100).to_json()
    on_board = {**document["student"], "latency_ms": {"raspberry-pi-4": measured}}
    assert len(_Page(_html({**document, "student": on_board})).of_class("predicted")) == predicted - 1


def test_each_chart_is_valid_svg_with_a_text_alternative(html):
    charts = re.findall(r'<svg class="chart".*?</svg>', html, flags=re.DOTALL)
    assert len(charts) == 5  # accuracy by params, size and latency; reward; training
    for chart in charts:
        root = ElementTree.fromstring(chart)
        labels = [root.find(f"*[@id='{name}']").text for name in root.attrib["aria-labelledby"].split()]
        assert all(labels)


def test_the_scatter_shows_every_candidate_once_and_one_winner(document, html):
    chart = re.search(r'<svg class="chart"[^>]*candidates-params-title.*?</svg>', html, flags=re.DOTALL).group()
    assert chart.count("<title>candidate ") == len(document["search"]["candidates"])
    assert chart.count('class="winner"') == 1
    rows = document["search"]["candidates"]
    assert chart.count('class="untrained"') == sum(row["accuracy"] is None for row in rows)


def test_the_budget_is_drawn_between_those_who_meet_it_and_those_who_do_not(html):
    chart = re.search(r'<svg class="chart"[^>]*candidates-size_mb-title.*?</svg>', html, flags=re.DOTALL).group()
    limit = float(re.search(r'class="rule budget" d="M([\d.]+)', chart).group(1))
    inside = [float(x) for x in re.findall(r'class="feasible" cx="([\d.]+)"', chart)]
    outside = [float(x) for x in re.findall(r'class="infeasible" cx="([\d.]+)"', chart)]
    assert max(inside) <= limit < min(outside)


def test_the_best_reward_never_falls(html):
    chart = re.search(r'<svg class="chart"[^>]*reward-title.*?</svg>', html, flags=re.DOTALL).group()
    path = re.search(r'class="line best" d="([^"]*)"', chart).group(1)
    heights = [float(place.split(",")[1]) for place in re.findall(r"[\d.]+,[\d.]+", path)]
    assert heights == sorted(heights, reverse=True)  # SVG counts downwards


def test_it_names_what_was_removed_shrunk_and_kept(html):
    words = " ".join(_Page(html).words.split())
    assert "/layers.1/1/conv2" in words
    assert "24 → 8" in words
    assert "Kept at full width: g4 (48)" in words


def test_it_gives_the_command_that_repeats_the_run(document, html):
    assert document["command"] in _Page(html).words


def test_names_from_outside_cannot_bring_markup(document):
    evil = "<img src=x onerror=alert(1)>"
    poisoned = {
        **document,
        "teacher": {**document["teacher"], "path": evil},
        "warnings": [evil],
        "data": {evil: evil},
        "architecture": {"removed": [evil], "groups": [{"name": evil, "before": 8, "after": 4, "layers": [evil]}]},
    }
    page = _Page(_html(poisoned))
    assert "img" not in {tag for tag, _ in page.tags}
    assert evil in page.words


def test_a_run_that_found_nothing_to_train_still_has_a_report(document):
    bare = {
        **document,
        "budgets": [],
        "search": {**document["search"], "candidates": []},
        "architecture": {"removed": [], "groups": []},
        "training": {"epochs": [], "best_epoch": None, "seconds": 0.0},
        "warnings": [],
    }
    words = _Page(_html(bare)).words
    assert "No budget was given" in words
    assert "No layer was removed" in words


def test_without_labels_fidelity_takes_the_place_of_accuracy(document):
    def unlabelled(model):
        return {key: value for key, value in model.items() if key != "accuracy"} | {
            "fidelity": Figure(0.97, "fraction", "measured", n=500).to_json()
        }

    words = _Page(
        _html({**document, "teacher": unlabelled(document["teacher"]), "student": unlabelled(document["student"])})
    ).words
    assert "Fidelity to the teacher" in words
    assert "Validation fidelity" in words
    assert "Accuracy" not in words


@pytest.mark.parametrize("count", [1, 2])
def test_the_shortest_searches_can_be_drawn(document, count):
    rows = [row for row in document["search"]["candidates"] if row["feasible"]][:count]
    html = render_html(document, rows)
    assert "nan" not in html
    assert f"{count} candidates" in _Page(html).words
