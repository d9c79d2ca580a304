from hypothesis import given
from hypothesis import strategies as st

from n2n_edge.report.front import pareto_front

# few distinct values, so that ties are common
figures = st.one_of(st.none(), st.sampled_from([0.0, 0.25, 0.5, 1.0, float("nan"), float("inf")]))
clouds = st.lists(st.tuples(figures, figures), max_size=12)


def _beats(one, other):
    return one[0] <= other[0] and one[1] >= other[1] and one != other


@given(clouds)
def test_the_front_is_what_nothing_beats(points):
    front = pareto_front(points)
    known = [p for p in points if all(v is not None and abs(v) < float("inf") for v in p)]
    assert {points[place] for place in front} == {p for p in known if not any(_beats(q, p) for q in known)}


@given(clouds)
def test_the_front_goes_from_cheap_to_dear_and_names_equals_once(points):
    chosen = [points[place] for place in pareto_front(points)]
    assert chosen == sorted(chosen)
    assert len(set(chosen)) == len(chosen)
    assert [accuracy for _, accuracy in chosen] == sorted(accuracy for _, accuracy in chosen)


def test_a_front_of_three():
    assert pareto_front([(3, 0.9), (1, 0.5), (2, 0.4), (2, 0.8), (4, 0.9)]) == (1, 3, 0)
