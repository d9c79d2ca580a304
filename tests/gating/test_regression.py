import math
from pathlib import Path

import pytest

from n2n_edge.errors import InputError
from n2n_edge.gating.check import Gated
from n2n_edge.gating.json_document import gates_document
from n2n_edge.gating.regression import compare, parse_percent
from n2n_edge.gating.settings import parse_regressions
from n2n_edge.metrics.figures import Figure


def _params(value):
    return {"params": Figure(value, "params", "computed")}


@pytest.mark.parametrize(("value", "met"), [(900, True), (1000, True), (1050, True), (1051, False)])
def test_growth_up_to_the_limit_is_allowed(value, met):
    (regression,) = compare(_params(value), _params(1000), lambda cost: 0.05)
    assert regression.met == met
    assert regression.change == pytest.approx(value / 1000 - 1)


def test_growth_from_nothing_fails_and_is_valid_json():
    (regression,) = compare(_params(1), _params(0), lambda cost: 10)
    assert not regression.met
    assert math.isinf(regression.change)
    assert gates_document([Gated(Path("m.onnx"), (regression,))])["regressions"][0]["change"] is None


def test_only_costs_that_both_models_have_are_compared():
    assert compare({"macs": Figure(1, "MACs", "computed")}, _params(1), lambda cost: 0) == ()


def test_a_percentage_becomes_a_fraction():
    assert parse_percent("5%", "--max-regression") == 0.05
    assert parse_percent(" 0% ", "--max-regression") == 0


@pytest.mark.parametrize("text", ["5", "0.05", "-1%", "nan%", "inf%", "%", "five%", ""])
def test_anything_else_is_refused_with_an_example(text):
    with pytest.raises(InputError, match=r"--max-regression .*5%"):
        parse_percent(text, "--max-regression")


def test_a_loss_of_score_is_held_against_the_limit_and_a_gain_never():
    def score(value):
        return {"score": Figure(value, "fraction", "measured", n=1000)}

    outcomes = [compare(score(new), score(0.9), lambda cost: 0.01)[0].outcome for new in (0.95, 0.891, 0.89)]
    assert outcomes == ["pass", "pass", "fail"]
    assert "at least -1%" in compare(score(0.89), score(0.9), lambda cost: 0.01, "map")[0].reason


def test_costs_may_have_limits_of_their_own():
    allowed = parse_regressions(["accuracy=1%", "3%", "latency_ms=10%", "score=2%"])
    assert (allowed.of("macs"), allowed.of("latency_ms"), allowed.of("score")) == (0.03, 0.1, 0.02)
    assert parse_regressions([]).of("macs") == 0.05


@pytest.mark.parametrize("word", ["speed=5%", "drop=5%", "accuracy=5", "=5%"])
def test_a_cost_that_does_not_exist_is_refused(word):
    with pytest.raises(InputError, match="max_regression"):
        parse_regressions([word])
