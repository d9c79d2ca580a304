"""Rates from timings that are made up, so that the truth is known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from n2n_edge.calibration import fitting
from n2n_edge.calibration.fitting import Fit, fit_rates, half_width, leave_out

Floats = NDArray[np.float64]

MODELS, TERMS = 40, 6


def made_up(seed: int = 0, noise: float = 0.0, models: int = MODELS) -> tuple[Floats, Floats, Floats]:
    """Terms, times and the true rates; each model has its own mix of terms, over two orders of magnitude."""
    random = np.random.default_rng(seed)
    rates = 10 ** random.uniform(-1, 1, TERMS)
    terms = 10 ** random.uniform(0, 2, (models, TERMS)) / rates  # each term matters somewhere
    return terms, terms @ rates * np.exp(noise * random.standard_normal(models)), rates


def off(found: Floats, truth: Floats) -> Floats:
    return np.abs(np.log(found / truth))


def test_true_rates_are_found_whatever_the_guess() -> None:
    terms, times, rates = made_up()

    for guess in (rates, 7.0 * rates, np.ones(TERMS)):
        fit = fit_rates(terms, times, guess, stiffness=1e-5)
        assert off(fit.rates, rates).max() < 0.02
        assert np.abs(fit.residuals).max() < 0.01


def test_noise_averages_out() -> None:
    terms, times, rates = made_up(noise=0.05)

    fit = fit_rates(terms, times, rates * 3 * np.exp(0.3 * np.random.default_rng(1).standard_normal(TERMS)))

    assert off(fit.rates, rates).max() < 0.15
    assert np.median(np.abs(fit.residuals)) < 0.06


def test_residuals_are_predicted_over_measured() -> None:
    terms, times, rates = made_up(noise=0.3)

    fit = fit_rates(terms, times, rates)

    assert fit.residuals == pytest.approx(np.log(terms @ fit.rates / times))


@pytest.mark.parametrize("factor", [5.0, 0.2])
def test_one_wrong_timing_hardly_matters(factor: float) -> None:
    terms, times, rates = made_up(noise=0.02)
    wrong = times.copy()
    wrong[3] *= factor

    clean, robust = (fit_rates(terms, each, rates) for each in (times, wrong))

    assert off(robust.rates, clean.rates).max() < 0.1
    assert abs(robust.residuals[3]) == pytest.approx(abs(np.log(factor)), rel=0.15)


def test_a_term_that_no_model_has_stays_in_proportion_to_the_rest() -> None:
    terms, times, rates = made_up()
    terms = np.concatenate([terms, np.zeros((MODELS, 1))], axis=1)
    guess = np.concatenate([rates, [5.0]])

    faster = fit_rates(terms, times / 4, guess).rates  # as the guess says, but four times faster as a whole

    assert faster == pytest.approx(guess / 4, rel=0.01)


def test_terms_that_no_model_tells_apart_share_what_the_fit_finds() -> None:
    terms, times, rates = made_up()
    twins = np.concatenate([terms, terms[:, :1]], axis=1)

    found = fit_rates(twins, times, np.concatenate([rates, rates[:1]])).rates

    assert found[-1] == pytest.approx(found[0])
    assert found[0] + found[-1] == pytest.approx(rates[0], rel=0.3)


def test_rates_are_positive_even_where_timings_contradict_each_other() -> None:
    random = np.random.default_rng(0)
    terms = random.uniform(0, 1, (8, 12))
    times = 10 ** random.uniform(-3, 3, 8)

    fit = fit_rates(terms, times, np.ones(12))

    assert np.isfinite(fit.rates).all()
    assert (fit.rates > 0).all()


def test_a_stiffer_fit_stays_nearer_to_the_guess() -> None:
    terms, times, rates = made_up()
    guess = rates * np.array([4.0, 0.25, 1.0, 1.0, 4.0, 0.25])
    strays = []
    for stiffness in (1e-3, 0.02, 1.0, 100.0):
        found = np.log(fit_rates(terms, times, guess, stiffness).rates / guess)
        strays.append(float(np.ptp(found)))

    assert strays == sorted(strays, reverse=True)
    assert strays[-1] < 0.1


def test_what_is_left_out_has_no_say_in_its_own_prediction() -> None:
    terms, times, rates = made_up(noise=0.1)
    changed = times.copy()
    changed[5] *= 100

    errors, again = leave_out(terms, times, rates), leave_out(terms, changed, rates)

    assert again[5] == pytest.approx(errors[5] - np.log(100))
    assert np.abs(np.delete(again - errors, 5)).max() > 0  # of the others' fits it was a part


def test_each_fit_is_given_all_rows_but_those_of_one_family(monkeypatch: pytest.MonkeyPatch) -> None:
    terms, times, rates = made_up(models=9)
    families = np.array([2, 2, 0, 0, 0, 7, 7, 7, 7])
    seen: list[set[float]] = []

    def watched(some_terms: Floats, some_times: Floats, guess: Floats, stiffness: float) -> Fit:
        assert some_terms.shape == (len(some_times), TERMS)
        seen.append(set(some_times.tolist()))
        return fit_rates(some_terms, some_times, guess, stiffness)

    monkeypatch.setattr(fitting, "fit_rates", watched)
    leave_out(terms, times, rates, families)
    by_family, seen = seen, []
    leave_out(terms, times, rates)

    everything = set(times.tolist())
    assert by_family == [everything - set(times[families == family].tolist()) for family in (0, 2, 7)]
    assert seen == [everything - {time} for time in times.tolist()]


def test_a_family_that_is_unlike_the_others_is_predicted_badly_only_when_left_out_whole() -> None:
    terms, times, rates = made_up(models=30)
    terms[:10, 1:] = 0  # nobody else tells the first term apart
    terms[10:, 0] = 0
    times = terms @ rates
    guess = rates * np.array([8.0, 1, 1, 1, 1, 1])
    families = np.repeat([0, 1, 2], 10)

    alone, together = leave_out(terms, times, guess), leave_out(terms, times, guess, families)

    assert np.abs(alone[:10]).max() < 0.1
    assert together[:10] == pytest.approx(np.log(8), abs=0.1)


def test_nine_out_of_ten_new_errors_lie_within_the_half_width() -> None:
    random = np.random.default_rng(0)
    for count in (20, 60):
        held = []
        for _ in range(400):
            width = half_width(random.standard_t(4, count))
            held.append(np.mean(np.abs(random.standard_t(4, 500)) <= width))
        assert 0.9 <= np.mean(held) < 0.93


@pytest.mark.parametrize(("count", "expected"), [(9, 9.0), (10, 10.0), (19, 18.0), (29, 27.0), (99, 90.0)])
def test_the_half_width_is_an_order_statistic_of_sizes(count: int, expected: float) -> None:
    errors = np.arange(1.0, count + 1)
    errors[::2] *= -1

    assert half_width(np.random.default_rng(0).permutation(errors)) == expected


@pytest.mark.parametrize("count", [1, 5, 8])
def test_of_a_few_errors_the_largest_is_stretched(count: int) -> None:
    errors = -np.arange(1.0, count + 1)

    assert half_width(errors) > count


def test_an_interval_from_left_out_errors_holds_for_new_models() -> None:
    """The whole chain: fit, leave out, half-width; then models that no fit has seen."""
    held = []
    for seed in range(12):
        terms, times, rates = made_up(seed, noise=0.15, models=140)
        guess = rates * np.exp(0.5 * np.random.default_rng(seed).standard_normal(TERMS))
        known, new = slice(0, 30), slice(30, None)
        width = half_width(leave_out(terms[known], times[known], guess))
        predicted = terms[new] @ fit_rates(terms[known], times[known], guess).rates
        held.append(np.mean(np.abs(np.log(predicted / times[new])) <= width))

    assert 0.86 < np.mean(held) < 0.97
