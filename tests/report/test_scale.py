import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from n2n_edge.report.scale import fit_scale, without_low_outliers

numbers = st.floats(min_value=-1e9, max_value=1e9).map(lambda value: round(value, 6))


@given(values=st.lists(numbers, min_size=1, max_size=20), may_be_log=st.booleans())
def test_every_value_lies_inside_and_keeps_its_order(values, may_be_log):
    scale = fit_scale(values, 0, 500, may_be_log=may_be_log)
    places = [scale.place(value) for value in sorted(values)]
    assert places == sorted(places)
    assert places[0] >= 0
    assert places[-1] <= 500


@given(low=st.floats(0.001, 1e6), ratio=st.floats(1.01, 1e5), may_be_log=st.booleans())
def test_an_axis_has_a_readable_number_of_ticks_within_it(low, ratio, may_be_log):
    scale = fit_scale([low, low * ratio], 0, 500, may_be_log=may_be_log)
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 7
    slack = 1e-6 * (scale.high - scale.low)
    assert all(scale.low - slack <= tick <= scale.high + slack for tick in ticks)


def test_costs_that_span_decades_get_equal_room_per_factor():
    scale = fit_scale([1e3, 1e4, 1e5], 0, 500, may_be_log=True)
    first, second, third = (scale.place(value) for value in (1e3, 1e4, 1e5))
    assert second - first == pytest.approx(third - second, abs=0.02)


def test_values_that_are_no_numbers_do_not_break_the_axis():
    scale = fit_scale([math.nan, math.inf, 1.0], 0, 500)
    assert 0 < scale.place(1.0) < 500


@pytest.mark.parametrize("bad", [[0.1], [0.1, 0.0]])
def test_a_few_values_far_below_the_others_do_not_stretch_the_axis(bad):
    good = [0.90, 0.91, 0.92, 0.93, 0.94, 0.945, 0.95, 0.955, 0.96]
    scale = fit_scale(without_low_outliers(good + bad), 0, 500)
    assert scale.low > 0.85
    assert [scale.place(value) for value in bad] == [0] * len(bad)
    assert scale.place(0.96) - scale.place(0.90) > 300


def test_values_that_spread_evenly_and_those_that_have_to_be_seen_stay():
    spread = [0.1, 0.3, 0.5, 0.7, 0.9]
    assert without_low_outliers(spread) == spread
    assert 0.2 in without_low_outliers([0.9, 0.91, 0.92, 0.93, 0.94], keep=[0.2])
    assert without_low_outliers([0.1, 0.9]) == [0.1, 0.9]
