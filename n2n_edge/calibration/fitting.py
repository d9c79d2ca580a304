"""Rates of a device from timed models: a robust fit that stays near what is already known.

Latencies differ by factors, so errors are those of the logarithm; rates are positive, so their logarithms are what is
fitted. With a prior guess ``g`` of the rates (from a relative, or a data sheet), rates are ``g * exp(s + d)``: ``s``,
how much slower the device is as a whole, is free, and the deviations ``d`` of single terms are held near nought by a
penalty. So twenty models can settle two dozen rates: those that the models don't tell apart stay as the guess has them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Fit", "fit_rates", "half_width", "interval", "leave_out", "penalised_fit"]

Floats = NDArray[np.float64]
Jacobian = Callable[[], Floats]

_HUBER = 1.5
"""Where a residual, in units of the typical one, stops to count by its square (Huber 1964)."""

_ROUNDS = 60

_COVERAGE = 0.9
_LEAST = 0.02
"""Half-width, as a logarithm, that an interval has at least."""

_FEW = 1.5
"""By how much the largest error is stretched where there are too few to take a ninth decile of."""


@dataclass(frozen=True)
class Fit:
    """Fitted rates `(terms,)`, and predicted over measured time of each model, `(models,)`, as logarithms."""

    rates: Floats
    residuals: Floats


def fit_rates(
    terms: Floats, times: Floats, guess: Floats, stiffness: float = 0.02, scale_stiffness: float = 1e-4
) -> Fit:
    """Fit rates to `times` `(models,)` of models with these `terms` `(models, terms)`.

    `guess` `(terms,)` are positive prior rates. `stiffness` is the squared error in logarithms that a deviation by a
    factor of e costs; `scale_stiffness` that of the common factor. Iteratively reweighted Gauss-Newton steps with
    damping: the derivative of a predicted logarithm by that of a rate is the term's share of the prediction.
    """
    count = terms.shape[1]
    measured = np.log(times)
    parameters = np.zeros(count + 1)  # the common factor, then the deviations
    penalty = np.concatenate([[scale_stiffness], np.full(count, stiffness)])
    parameters[0] = np.median(measured - np.log(terms @ guess))

    def residuals_at(at: Floats) -> tuple[Floats, Jacobian]:
        parts = terms * (guess * np.exp(at[0] + at[1:]))
        predicted = parts.sum(axis=1)
        return (
            np.log(predicted) - measured,
            lambda: np.concatenate([np.ones((len(times), 1)), parts / predicted[:, None]], axis=1),
        )

    parameters, residuals = penalised_fit(residuals_at, parameters, penalty)
    return Fit(guess * np.exp(parameters[0] + parameters[1:]), residuals)


def penalised_fit(
    residuals_at: Callable[[Floats], tuple[Floats, Jacobian]],
    start: Floats,
    penalty: Floats,
    *,
    typical: float | None = None,
    rounds: int = _ROUNDS,
    tries: int = 12,
    growth: float = 4.0,
    tolerance: float = 1e-9,
) -> tuple[Floats, Floats]:
    """Return parameters `(parameters,)` of least robust error and penalty, and the residuals there.

    Reweighted Gauss-Newton steps with damping: outliers count by their size (Huber 1964) beyond 1.5 times a `typical`
    residual, by default what the residuals themselves say. `residuals_at` gives residuals and what works out their
    derivatives `(residuals, parameters)`, `penalty` `(parameters,)` is what a parameter's square costs. A step that
    doesn't help is tried again with `growth` times the damping, `tries` times at most.
    """
    at, damping = start, 1e-3
    residuals, jacobian_at = residuals_at(at)
    for _ in range(rounds):
        unit = max(1.4826 * float(np.median(np.abs(residuals))), 0.02) if typical is None else typical
        weights = 1.0 / np.maximum(np.abs(residuals) / (unit * _HUBER), 1.0)
        jacobian = jacobian_at()
        normal = jacobian.T @ (weights[:, None] * jacobian) + np.diag(penalty)
        slope = jacobian.T @ (weights * residuals) + penalty * at
        before = float(weights @ residuals**2 + penalty @ at**2)
        for _ in range(tries):
            step = np.clip(np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -slope), -1.0, 1.0)
            tried, tried_jacobian = residuals_at(at + step)
            after = float(weights @ tried**2 + penalty @ (at + step) ** 2)
            if after < before:
                break
            damping *= growth
        else:
            break
        at, residuals, jacobian_at = at + step, tried, tried_jacobian
        damping = max(damping / 10, 1e-9)
        if before - after < tolerance * before:
            break
    return at, residuals


def leave_out(
    terms: Floats, times: Floats, guess: Floats, families: NDArray[np.int64] | None = None, stiffness: float = 0.02
) -> Floats:
    """Return predicted over measured time of each model, as logarithms, by a fit that hasn't seen it.

    `families` `(models,)` name what is left out together; each model by itself unless given.
    """
    families = np.arange(len(times)) if families is None else families
    errors = np.zeros(len(times))
    for family in np.unique(families):
        out = families == family
        fit = fit_rates(terms[~out], times[~out], guess, stiffness)
        errors[out] = np.log(terms[out] @ fit.rates) - np.log(times[out])
    return errors


def half_width(errors: Floats) -> float:
    """Return the half-width, as a logarithm, of an interval that holds nine out of ten new models.

    `errors` are those of models that their fits hadn't seen: the split-conformal quantile (Vovk et al. 2005; Lei et al.
    2018), the ceil(0.9 (n + 1))-th least of n; with fewer than nine it doesn't exist, and the largest is stretched.
    """
    ordered = np.sort(np.abs(errors))
    rank = int(np.ceil(_COVERAGE * (len(ordered) + 1)))
    return float(ordered[rank - 1]) if rank <= len(ordered) else _FEW * float(ordered[-1])


def interval(errors: Floats) -> tuple[float, float]:
    """Return measured over predicted, low and high, for nine out of ten new models: a twentieth on either side.

    `errors` are predicted over measured, as logarithms, of models that their fits hadn't seen. Both sides are told
    apart, since a single network that is unlike all others would else widen both; ranks are those of n + 1, as for new
    models they have to be (Vovk et al. 2005). Of fewer than nine models the largest
    error, stretched, stands for both.
    """
    if len(errors) < 9:
        width = half_width(errors)
        return float(np.exp(-width)), float(np.exp(width))
    low, high = np.quantile(-errors, [(1 - _COVERAGE) / 2, (1 + _COVERAGE) / 2], method="weibull")
    return float(np.exp(min(low, -_LEAST))), float(np.exp(max(high, _LEAST)))
