"""Charts as data: what is drawn is what the document says."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from n2n_edge.report.candidates import candidate_charts, describe_candidate, find_winner
from n2n_edge.report.front import pareto_front
from n2n_edge.report.front_table import front_table
from n2n_edge.report.known_costs import known_costs
from n2n_edge.report.network import layer_rows, network_charts
from n2n_edge.report.progress import entropy_chart
from n2n_edge.report.training import training_charts
from tests.report.sample import sample_document


@pytest.fixture(scope="module")
def document():
    return sample_document()


def _charts(document):
    rows = document["search"]["candidates"]
    costs = known_costs(document, rows)
    return {cost.key: cost for cost in costs}, {
        chart.name.removeprefix("candidates-"): chart for chart in candidate_charts(document, rows, costs)
    }


def _number(point):
    return int(point.text.removeprefix("candidate ").split(",")[0])


def test_every_cost_that_is_known_has_its_chart(document):
    _, charts = _charts(document)
    assert list(charts) == ["params", "size_mb", "macs", "memory_bound_mb", "latency_ms"]


def test_the_objective_comes_first(document):
    costs, _ = _charts({**document, "search": {**document["search"], "objective": "latency_ms"}})
    assert next(iter(costs)) == "latency_ms"


accuracies = st.one_of(st.none(), st.sampled_from([0.1, 0.4, 0.5, 0.9]))


@settings(max_examples=60, deadline=None)
@given(cloud=st.lists(st.tuples(st.integers(1, 9), accuracies), min_size=1, max_size=9))
def test_the_front_goes_through_what_nothing_beats(cloud):
    document = sample_document()
    model = document["search"]["candidates"][0]
    rows = [{**model, "params": params, "score": accuracy} for params, accuracy in cloud]
    _, charts = _charts({**document, "search": {**document["search"], "candidates": rows}})
    chart = charts["params"]
    front = pareto_front([(params, accuracy) for params, accuracy in cloud])
    at = {_number(point) - 1: (point.x, point.y) for point in chart.points}
    if len(front) < 2:  # one point makes no line
        assert chart.lines == ()
    else:
        (line,) = chart.lines
        assert line.places[::2] == tuple(at[place] for place in front)
        assert all(x == after[0] or y == after[1] for (x, y), after in zip(line.places, line.places[1:], strict=False))


def test_budgets_are_drawn_where_they_are_and_only_there(document):
    _, charts = _charts(document)
    limits = {name: [rule.label for rule in chart.rules] for name, chart in charts.items()}
    assert limits["size_mb"] == ["budget 0.12 MB"]
    assert limits["latency_ms"] == ["budget 1.5 ms (upper bound)"]
    assert limits["params"] == limits["macs"] == limits["memory_bound_mb"] == []


def test_an_expected_latency_that_was_accepted_is_what_the_budget_holds(document):
    accepted = [{**budget, "accept_expected": True} for budget in document["budgets"]]
    _, charts = _charts({**document, "budgets": accepted})
    assert [rule.label for rule in charts["latency_ms"].rules] == ["budget 1.5 ms"]


def test_the_winner_is_marked_in_every_chart(document):
    rows = document["search"]["candidates"]
    noted = next(place for place, row in enumerate(rows) if row["latency_ms"] is not None and row["score"] is not None)
    marked = {**document, "search": {**document["search"], "winner": noted}}
    assert find_winner(marked, rows) == noted
    for chart in _charts(marked)[1].values():
        assert [_number(point) for point in chart.points if point.kind == "winner"] == [noted + 1]
        assert f"Chosen: candidate {noted + 1}," in chart.description


def test_each_device_has_the_budget_that_was_held_there(document):
    rows = [
        {**row, "latencies_ms": {"raspberry-pi-4": 1.0, "jetson-nano": 2.0}} for row in document["search"]["candidates"]
    ]
    budgets = [{**document["budgets"][1], "device": "jetson-nano", "limit": 7.0}]
    costs, charts = _charts({**document, "budgets": budgets, "search": {**document["search"], "candidates": rows}})
    assert costs["latency_ms"].limit is None
    assert set(costs["latency_ms"].values) == {1.0}  # not `latency_ms`, which may be another device's
    assert costs["latency_ms-jetson-nano"].limit == 7.0
    assert set(costs["latency_ms-jetson-nano"].values) == {2.0}
    assert "of unknown origin" in charts["latency_ms-jetson-nano"].source  # the student's latency there isn't told


def test_what_is_predicted_says_so_at_its_axis_and_in_the_table(document):
    rows = document["search"]["candidates"]
    costs, charts = _charts(document)
    assert "predicted" in charts["latency_ms"].x_label
    columns = front_table(rows, list(costs.values()), None).columns
    assert [column for column in columns if "predicted" in column] == ["Latency on raspberry-pi-4, predicted"]


def test_every_chart_says_where_its_figures_come_from(document):
    _, charts = _charts(document)
    assert all("measured on validation images" in chart.source for chart in charts.values())
    assert "predicted from data-sheet figures" in charts["latency_ms"].source
    assert "computed from the file" in charts["size_mb"].source


def test_a_candidate_is_described_with_all_that_is_known(document):
    rows = document["search"]["candidates"]
    costs = known_costs(document, rows)
    place = next(place for place, row in enumerate(rows) if row["feasible"])
    text = describe_candidate(place, costs, rows, "accuracy")
    for part in (f"candidate {place + 1}, stage", "accuracy ", " params; ", "file size ", " MACs; ", "memory bound ",
                 "latency on raspberry-pi-4 ", " ms (predicted)", "reward ", "meets the budgets"):  # fmt: skip
        assert part in text


def test_the_table_holds_the_fronts_of_all_costs_and_the_chosen_one(document):
    rows = document["search"]["candidates"]
    costs = known_costs(document, rows)
    untrained = next(place for place, row in enumerate(rows) if row["score"] is None)
    table = front_table(rows, costs, untrained)
    assert {row.number - 1 for row in table.rows} == {place for cost in costs for place in cost.front} | {untrained}
    assert [row.number for row in table.rows if row.chosen] == [untrained + 1]
    for row in table.rows:
        assert [cell.best for cell in row.cells] == [row.number - 1 in cost.front for cost in costs]


def test_entropy_leaves_out_what_is_not_known(document):
    rows = document["search"]["candidates"]
    texts = [""] * len(rows)
    chart = entropy_chart(rows, texts)
    assert chart is not None
    assert len(chart.points) == sum(row["entropy"] is not None for row in rows)
    assert entropy_chart([{**row, "entropy": None} for row in rows], texts) is None


def test_layers_stand_in_the_order_of_the_graph_with_their_widths(document):
    layers = document["layers"]
    widths, *latencies = network_charts(layers)
    before = [bar for bar in widths.bars if bar.kind == "before"]
    assert [bar.text.split(": ")[1].split(",")[0] for bar in before] == [layer["name"] for layer in layers[:-1]]
    assert [bar.struck for bar in before] == [layer["removed"] for layer in layers[:-1]]
    heights = [bar.height for bar in before]
    assert heights[0] / heights[-1] == pytest.approx(24 / 80, abs=0.01)
    assert [chart.name for chart in latencies] == ["layers-cpu", "layers-raspberry-pi-4"]
    assert "predicted" not in latencies[0].title + latencies[0].source
    assert "predicted" in latencies[1].title
    assert "Predicted from data-sheet figures" in latencies[1].source


def test_rows_of_layers_tell_predictions_from_measurements(document):
    rows = layer_rows(document["layers"])
    assert [row.number for row in rows] == [1, 2, 3, 4, 5, None]
    assert [[cell.predicted for cell in row.cells] for row in rows] == [[False, True]] * 6
    assert rows[2].cells[0].after == "–"


def test_layers_that_nobody_timed_are_drawn_all_the_same(document):
    layers = [{**layer, "latency_ms": {}} for layer in document["layers"][:-1]]
    (chart,) = network_charts(layers)
    assert chart.name == "layers"
    assert network_charts([]) == ()


def test_training_has_a_curve_of_the_loss_and_one_of_the_validation(document):
    validation, loss = training_charts(document["training"], "accuracy")
    assert len(validation.points) == len(loss.points) == len(document["training"]["epochs"])
    assert [sum(point.kind == "winner" for point in chart.points) for chart in (validation, loss)] == [1, 1]
    heights = [y for _, y in loss.lines[0].places]
    assert heights == sorted(heights)  # a falling loss; SVG counts downwards


def test_a_loss_that_is_no_number_is_left_out(document):
    epochs = document["training"]["epochs"]
    broken = {**document["training"], "epochs": [{**epochs[0], "loss": math.nan}, *epochs[1:]]}
    _, loss = training_charts(broken, "accuracy")
    assert len(loss.points) == len(epochs) - 1
    assert "nan" not in loss.lines[0].path
