"""What a person finds in the report of a run."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest

from n2n_edge.metrics.figures import Figure
from n2n_edge.report.html import render_html, run_charts, write_html
from n2n_edge.report.model_card import render_model_card
from n2n_edge.report.score import score_words
from tests.report.pages import Page, chart_of
from tests.report.sample import detector, old_document, sample_document

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "schemas" / "report.json"


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
    _reaches_for_nothing(html)
    assert Page(html).misplaced == []


def _reaches_for_nothing(html):
    page = Page(html)
    for _, attrs in page.tags:
        assert not [key for key in attrs if key.startswith("on") or key in ("src", "srcset", "action", "data")]
        assert (attrs.get("href") or "data:,").startswith(("data:", "#"))
    assert not re.search(r"https?://|url\(|@import", html)
    policy = next(attrs["content"] for _, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_it_says_what_was_asked_and_whether_it_was_reached(html):
    words = Page(html).words
    assert "All budgets are met" in words
    assert "at most 0.12 MB" in words
    assert "--max-latency-ms" in words


def test_a_missed_budget_is_not_hidden(document):
    missed = {**document, "budgets": [{**document["budgets"][0], "met": False}, document["budgets"][1]]}
    words = Page(_html(missed)).words
    assert "Not all budgets are met" in words
    assert "All budgets are met" not in words


def test_every_figure_carries_its_provenance(document, html):
    page = Page(html)
    cells = re.findall(r'<td><span[^>]*>([^<]*)</span><span class="note">([^<]*)</span></td>', html)
    figures = 2 * (5 + len(document["student"]["latency_ms"])) + len(document["budgets"])
    assert len(cells) == figures
    assert all(re.search(r"(measured|host-limited|calibrated|analytic|computed)$", note) for _, note in cells)
    assert "predicted from data-sheet figures" in page.words


def test_predictions_look_different_from_measurements(document, html):
    predicted = 2 + 1  # teacher and student on the board, and the latency budget
    assert _predicted_figures(html) == predicted
    measured = Figure(0.41, "ms", "measured", low=0.4, high=0.42, n=100).to_json()
    on_board = {**document["student"], "latency_ms": {"raspberry-pi-4": measured}}
    assert _predicted_figures(_html({**document, "student": on_board})) == predicted - 1


def _predicted_figures(html):
    return len(re.findall(r'<td><span class="predicted">[^<]*</span><span class="note">', html))


def test_each_chart_is_valid_svg_with_a_text_alternative(html):
    charts = re.findall(r'<svg class="chart".*?</svg>', html, flags=re.DOTALL)
    assert len(charts) == 5 + 2 + 3 + 2  # accuracy by each cost; reward, entropy; layers; validation, loss
    for chart in charts:
        root = ElementTree.fromstring(chart)
        labels = [root.find(f"*[@id='{name}']").text for name in root.attrib["aria-labelledby"].split()]
        assert all(labels)
        assert root.find("desc") is not None
    others = [attrs for tag, attrs in Page(html).tags if tag == "svg" and attrs.get("class") != "chart"]
    assert all(attrs.get("aria-hidden") == "true" for attrs in others)


def test_the_scatter_shows_every_candidate_once_and_one_winner(document, html):
    chart = chart_of(html, "candidates-params")
    assert chart.count("<title>candidate ") == len(document["search"]["candidates"])
    assert chart.count('class="winner"') == 1
    rows = document["search"]["candidates"]
    assert chart.count('class="untrained"') == sum(row["score"] is None for row in rows)


def test_the_budget_is_drawn_between_those_who_meet_it_and_those_who_do_not(html):
    chart = chart_of(html, "candidates-size_mb")
    limit = float(re.search(r'class="rule budget" d="M([\d.]+)', chart).group(1))
    inside = [float(x) for x in re.findall(r'class="feasible" cx="([\d.]+)"', chart)]
    outside = [float(x) for x in re.findall(r'class="infeasible" cx="([\d.]+)"', chart)]
    assert max(inside) <= limit < min(outside)


def test_the_best_reward_never_falls(html):
    chart = chart_of(html, "reward")
    path = re.search(r'class="line best" d="([^"]*)"', chart).group(1)
    heights = [float(place.split(",")[1]) for place in re.findall(r"[\d.]+,[\d.]+", path)]
    assert heights == sorted(heights, reverse=True)  # SVG counts downwards


def test_it_names_what_was_removed_shrunk_and_kept(html):
    words = " ".join(Page(html).words.split())
    assert "/layers.1/1/conv2" in words
    assert "24 → 8" in words
    assert "Kept at full width: g4 (48)" in words


def test_the_network_is_drawn_with_its_removed_layers_struck(document, html):
    layers = [layer for layer in document["layers"] if layer["op_type"]]
    gone = [layer["name"] for layer in layers if layer["removed"]]
    chart = chart_of(html, "layers")
    assert chart.count('<rect class="before"') == len(layers)
    assert chart.count('<path class="removed"') == len(gone)
    assert [name for name in gone if f"{name}, Conv; " in chart] == gone
    struck = [re.sub("<wbr>", "", name) for name in re.findall(r"<s>(.*?)</s>", html)]
    assert struck == gone


def test_the_front_is_a_table_whose_numbers_another_command_takes(document):
    rows = [
        {**row, "score": None if row["score"] is None else 0.5 + row["params"] / 1e6}
        for row in document["search"]["candidates"]
    ]
    html = _html({**document, "search": {**document["search"], "candidates": rows}})
    table = re.search(r'<table class="front">.*?</table>', html, flags=re.DOTALL).group()
    numbers = [int(number) for number in re.findall(r'<th scope="row">(\d+)', table)]
    assert len(numbers) == len(set(numbers)) > 2
    accuracies = [rows[number - 1]["score"] for number in numbers]
    assert accuracies == sorted(accuracies, reverse=True)
    assert table.count('class="chosen"') == 1
    assert "pareto RUN --ship N" in html


def test_a_report_of_an_older_version_still_has_its_page():
    html = _html(old_document())
    page = Page(html)
    assert page.misplaced == []
    assert "Memory bound against" not in page.words
    assert "Entropy" not in page.words
    assert "Channels along the network" not in page.words
    assert "24 → 8" in page.words


def test_several_devices_and_a_candidate_that_a_person_chose(document):
    rows = [
        {**row, "latencies_ms": {"raspberry-pi-4": 1.0, "jetson-nano": 2.0}} for row in document["search"]["candidates"]
    ]
    several = {
        **document,
        "search": {**document["search"], "candidates": rows},
        "devices": [document["device"], {"name": "jetson-nano", "description": "Jetson Nano"}],
        "chosen": {"run": "demo", "candidate": 7},
        "budgets": [{**document["budgets"][1], "device": name} for name in ("raspberry-pi-4", "jetson-nano")],
    }
    words = Page(_html(several)).words
    assert "A student for raspberry-pi-4 and jetson-nano" in words
    assert "Candidate 7 of the run in demo" in " ".join(words.split())
    assert "Accuracy against latency on jetson-nano" in words
    assert "Latency, jetson-nano--max-latency-ms" in "".join(words.split("\n"))


def test_it_gives_the_command_that_repeats_the_run(document, html):
    assert document["command"] in Page(html).words


def test_names_from_outside_cannot_bring_markup(document):
    evil = "<img src=x onerror=alert(1)>"
    poisoned = {
        **document,
        "teacher": {**document["teacher"], "path": evil},
        "warnings": [evil],
        "data": {evil: evil},
        "device": {"name": evil, "description": evil},
        "command": evil,
        "architecture": {"removed": [evil], "groups": [{"name": evil, "before": 8, "after": 4, "layers": [evil]}]},
        "layers": [{**layer, "name": evil, "op_type": evil} for layer in document["layers"]],
    }
    page = Page(_html(poisoned))
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
    words = Page(_html(bare)).words
    assert "No budget was given" in words
    assert "No layer was removed" in words


def test_without_labels_fidelity_takes_the_place_of_accuracy(document):
    def unlabelled(model):
        return {key: value for key, value in model.items() if key != "accuracy"} | {
            "fidelity": Figure(0.97, "fraction", "measured", n=500).to_json()
        }

    bare = {key: value for key, value in document.items() if key not in ("task", "difference")}
    words = Page(
        _html({**bare, "teacher": unlabelled(document["teacher"]), "student": unlabelled(document["student"])})
    ).words
    assert "Fidelity to the teacher" in words
    assert "Validation fidelity" in words
    assert "Accuracy" not in words


def test_a_task_goes_by_its_own_metric_with_the_interval_of_the_difference(document):
    found = detector(document)
    words = Page(_html(found)).words
    assert score_words(found) == "mAP 34.5% -> 31.2%, -3.3 points [-5.1, -1.4] (n = 64)"
    for part in (
        "mAP (test split)", "−3.3 points [−5.1, −1.4]", "mAP at IoU 0.5", "Validation mAP", "mAP against params",
        "mAP below the teacher's", "mAP: measured on validation images", "95% interval of the difference",
    ):  # fmt: skip
        assert part in words, part
    assert "ccuracy" not in words
    assert words.index("AP of bicycle") < words.index("AP of person")  # it has lost more
    assert "AP of" not in render_model_card(found)
    jsonschema.validate(found, json.loads(SCHEMA.read_text()))


def test_a_detectors_precision_is_drawn_by_recall(document):
    found = detector(document)
    html = _html(found)
    chart = chart_of(html, "precision-recall")
    assert chart.count("<circle") == 22
    assert "teacher; recall 0%; precision 100.0%" in chart
    assert {"line teacher", "line student"} <= set(re.findall(r'class="(line [a-z]+)"', chart))
    words = " ".join(Page(html).words.split())
    assert "Mean over classes, against what is labelled. Area under the curve: teacher 5" in words
    assert "precision-recall" in [chart.name for chart in run_charts(found)]

    curves = {key: value for key, value in found["precision_recall"].items() if key != "teacher"}
    alone = _html({**found, "precision_recall": {**curves, "against": "teacher"}})
    assert chart_of(alone, "precision-recall").count("<circle") == 11
    assert "Mean over classes, against what the teacher finds. Area under the curve: student" in Page(alone).words
    assert "Precision and recall" not in Page(_html(document)).words


@pytest.mark.parametrize("count", [1, 2])
def test_the_shortest_searches_can_be_drawn(document, count):
    rows = [row for row in document["search"]["candidates"] if row["feasible"]][:count]
    html = render_html(document, rows)
    assert "nan" not in html
    assert f"{count} candidates" in Page(html).words
