import math

import pytest

from n2n_edge.errors import InputError
from n2n_edge.figures import Figure
from n2n_edge.gate import compare, gate_document, parse_percent


def _params(value):
    return {"params": Figure(value, "params", "computed")}


@pytest.mark.parametrize(("value", "met"), [(900, True), (1000, True), (1050, True), (1051, False)])
def test_growth_up_to_the_limit_is_allowed(value, met):
    (regression,) = compare(_params(value), _params(1000), 0.05)
    assert regression.met == met
    assert regression.change == pytest.approx(value / 1000 - 1)


def test_growth_from_nothing_fails_and_is_valid_json():
    (regression,) = compare(_params(1), _params(0), 10)
    assert not regression.met
    assert math.isinf(regression.change)
    assert gate_document("m.onnx", (), (regression,))["regressions"][0]["change"] is None


def test_only_costs_that_both_models_have_are_compared():
    assert compare({"macs": Figure(1, "MACs", "computed")}, _params(1), 0) == ()


def test_a_percentage_becomes_a_fraction():
    assert parse_percent("5%", "--max-regression") == 0.05
    assert parse_percent(" 0% ", "--max-regression") == 0


@pytest.mark.parametrize("text", ["5", "0.05", "-1%", "nan%", "inf%", "%", "five%", ""])
def test_anything_else_is_refused_with_an_example(text):
    with pytest.raises(InputError, match=r"--max-regression .*5%"):
        parse_percent(text, "--max-regression")
