import math

import pytest

from n2n_edge.errors import InputError
from n2n_edge.metrics.budget import Budget
from n2n_edge.metrics.costs import COSTS


@pytest.mark.parametrize("limit", [0, -1, math.nan, math.inf])
def test_a_limit_that_is_no_positive_number_is_refused_with_its_option(limit):
    with pytest.raises(InputError, match=r"max_mb .*positive"):
        Budget("size_mb", limit)


def test_a_score_in_percent_is_refused_and_the_fraction_is_named():
    with pytest.raises(InputError, match=r"min_score 92.*give 0\.92"):
        Budget("score", 92)
    with pytest.raises(InputError, match="max_drop 101"):
        Budget("drop", 101)


def test_only_the_score_is_a_lower_limit():
    assert {cost for cost in COSTS if Budget(cost, 0.5).direction == "min"} == {"score"}


def test_the_option_tells_how_the_budget_was_given():
    assert Budget("latency_ms", 20).option == "--max-latency-ms"
    assert Budget("score", 0.9).option == "--min-score"
    assert Budget("accuracy", 0.9) == Budget("score", 0.9)
