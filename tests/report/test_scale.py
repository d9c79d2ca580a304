import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from n2n_edge.report.scale import fit_scale

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
