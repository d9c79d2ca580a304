"""Surrogate of candidate accuracy: a Gaussian process over the candidates that were evaluated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import fsum

import numpy as np
from numpy.typing import NDArray

__all__ = ["Estimate", "Sensitivity", "Surrogate"]

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

_LEAST_RATIO = 0.05
_LEAST_SHARE = 1e-6
_FLOOR = 0.05
"""Sensitivity that even the least sensitive part is given, as a share of the mean: profiles are taken one by one."""

_NOISES = (0.05, 0.15, 0.4)
_LOCALS = (0.1, 0.4, 1.0)
_LENGTHS = (0.5, 1.0, 2.0)
"""Grids of the hyperparameters: noise and local variation in units of the spread of what was observed, length scale."""

_COMPOUNDED = 1.5
"""What the root of the squares of rises by narrowing counts beside the sum of those by removal (docs/method.md)."""

_RISES = 3
"""From this column of the trend on there are rises of the loss."""

_TREND_VARIANCE = 0.3
_SLOPE = 0.5
"""What is expected of the trend before anything is observed: accuracy falls with each rise of the loss, by half of its
spread for each standard deviation; and how far the slopes may depart from that (variance of their mean square)."""

_LEAST_SCALE = 0.1
"""The least that rises are taken to vary by, as a share of the mean of their sum, however alike the observed are."""


@dataclass(frozen=True)
class Estimate:
    """A candidate that was not built: what it cuts, its true costs, and the reward that the surrogate predicts.

    `ratios` names the groups that are narrower than the teacher's, `int8` the regions that are in int8, `linear` the
    layers that are merged with what reads them; shares are of
    the teacher's params and MACs, `cost_ratio` of its cost by the objective. `excess` is the sum of what it misses
    budgets by, `slope` how much the reward grows with the accuracy.
    """

    removed: frozenset[str]
    ratios: Mapping[str, float]
    params_share: float
    macs_share: float
    excess: float = 0.0
    cost_ratio: float = 1.0
    reward: float = 0.0
    slope: float = 0.0
    int8: frozenset[str] = frozenset()
    linear: frozenset[str] = frozenset()

    @property
    def feasible(self) -> bool:
        """Whether it meets every budget."""
        return self.excess <= 0

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for cuts that come out as the same architecture."""
        return self.removed, self.linear, self.int8, tuple(sorted(self.ratios.items()))


@dataclass(frozen=True)
class Sensitivity:
    """The teacher's profile: how much the loss rises when one thing alone is cut and the rest refitted, not trained.

    `layers`: by removable layer; `groups`: by group, the rise at each of `ratios` (ascending, below one); `regions`: by
    region in int8 alone; `linear`: by layer that loses its activation, the rise of its merge divided among them.
    """

    layers: Mapping[str, float] = field(default_factory=dict)
    groups: Mapping[str, Sequence[float]] = field(default_factory=dict)
    ratios: tuple[float, ...] = (0.25, 0.5)
    regions: Mapping[str, float] = field(default_factory=dict)
    linear: Mapping[str, float] = field(default_factory=dict)

    def quantized(self, estimate: Estimate) -> float:
        """Return the summed rises of the regions that `estimate` has in int8."""
        return fsum(max(self.regions.get(name, 0.0), 0.0) for name in estimate.int8)

    def rise(self, estimate: Estimate) -> tuple[float, float]:
        """Return the summed rises of what `estimate` removes or merges, and what its widths cost together."""
        rises = [self.layers.get(name, 0.0) for name in estimate.removed]
        rises += [self.linear.get(name, 0.0) for name in estimate.linear]
        removed = fsum(max(rise, 0.0) for rise in rises)  # exact: sets have no order
        return removed, _COMPOUNDED * float(np.sqrt(self.compounded(estimate.ratios)))

    def compounded(self, ratios: Mapping[str, float]) -> float:
        """Return what widths cost together, for comparing them: rises of cuts made alone, squared and summed.

        Where several parts lose much, what is left of one no longer makes up for another.
        """
        return fsum(self.of_group(name, ratio) ** 2 for name, ratio in ratios.items())

    def of_group(self, name: str, ratio: float) -> float:
        """Return the rise of one group at `ratio`, between what was tried; nought for one that wasn't."""
        if name not in self.groups:
            return 0.0
        rises = [max(rise, 0.0) for rise in self.groups[name]]
        return float(np.interp(ratio, [0.0, *self.ratios, 1.0], [2 * rises[0], *rises, 0.0]))


class Surrogate:
    """Predicts accuracies, with a standard deviation, from those observed so far.

    A trend in the profile's rises and the logarithms of the cost shares, expected to fall with the rises, plus a smooth
    departure from it over which layers go, how narrow groups are and what is in int8, each weighed by its sensitivity:
    a Gaussian process (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, sections 2.2 and 2.7)
    whose noise and scales maximise the marginal likelihood over a small grid. Before the first observation it knows the
    order that the profile suggests, and is very unsure.
    """

    def __init__(
        self,
        layers: Sequence[str],
        groups: Sequence[str],
        profile: Sensitivity,
        regions: Sequence[str] = (),
        linear: Sequence[str] = (),
    ) -> None:
        """`regions` are those whose precision candidates choose, `linear` the layers that they may merge."""
        self._layers, self._groups, self._profile = tuple(layers), tuple(groups), profile
        self._regions, self._linear = tuple(regions), tuple(linear)
        self._weights = np.concatenate(
            [
                _relative([max(profile.layers.get(name, 0.0), 0.0) for name in self._layers]),
                _relative([max([*profile.groups.get(name, (0.0,)), 0.0]) for name in self._groups]),
                _relative([max(profile.regions.get(name, 0.0), 0.0) for name in self._regions]),
                _relative([max(profile.linear.get(name, 0.0), 0.0) for name in self._linear]),
            ]
        )
        self._trends: Matrix = np.zeros((0, _RISES + (3 if self._regions else 2)))
        self._points: Matrix = np.zeros((0, len(self._weights)))
        self._values: Vector = np.zeros(0)
        self._fit: _Fit | None = None

    @property
    def count(self) -> int:
        """Number of observations."""
        return len(self._values)

    def observe(self, estimates: Sequence[Estimate], accuracies: Sequence[float]) -> None:
        """Take in measured accuracies."""
        if not estimates:
            return
        trends, points = self._encoded(estimates)
        self._trends = np.concatenate([self._trends, trends])
        self._points = np.concatenate([self._points, points])
        self._values = np.concatenate([self._values, np.asarray(accuracies, np.float64)])
        self._fit = None

    def predict(self, estimates: Sequence[Estimate]) -> tuple[Vector, Vector]:
        """Return the expected accuracy of each architecture, and its standard deviation, both `(N,)`."""
        trends, points = self._encoded(estimates)
        if not len(self._values):
            return 1.0 / (1.0 + trends[:, _RISES:].sum(axis=1)), np.ones(len(estimates))
        return self._fitted().predict(trends, points)

    def choose(self, estimates: Sequence[Estimate], count: int, exploration: float) -> list[int]:
        """Return the indices of the `count` candidates most worth evaluating, the best first.

        The upper confidence bound of the reward decides, `exploration` standard deviations above what is predicted;
        after each choice the others are as sure as if its outcome were known (Desautels, Krause and Burdick,
        Parallelizing Exploration-Exploitation Tradeoffs, JMLR 2014).
        """
        trends, points = self._encoded(estimates)
        rewards = np.array([estimate.reward for estimate in estimates])
        slopes = np.array([estimate.slope for estimate in estimates])
        taken: list[int] = []
        state = self._fitted() if len(self._values) else None
        for _ in range(min(count, len(estimates))):
            deviation = np.ones(len(estimates)) if state is None else state.predict(trends, points)[1]
            bound = rewards + exploration * slopes * deviation
            bound[taken] = -np.inf
            best = int(np.argmax(bound))
            taken.append(best)
            if state is not None:
                state = state.with_expected(trends[best : best + 1], points[best : best + 1])
        return taken

    def _encoded(self, estimates: Sequence[Estimate]) -> tuple[Matrix, Matrix]:
        trends, points = [], []
        for estimate in estimates:
            removed, narrowed = self._profile.rise(estimate)
            shares = np.maximum([estimate.params_share, estimate.macs_share], _LEAST_SHARE)
            quantized = [np.sqrt(self._profile.quantized(estimate))] if self._regions else []
            trends.append([1.0, *np.log(shares), removed, narrowed, *quantized])
            gone = [float(name in estimate.removed) for name in self._layers]
            narrow = [-np.log(max(estimate.ratios.get(name, 1.0), _LEAST_RATIO)) for name in self._groups]
            coarse = [float(name in estimate.int8) for name in self._regions]
            merged = [float(name in estimate.linear) for name in self._linear]
            points.append(np.array([*gone, *narrow, *coarse, *merged]) * self._weights)
        return np.array(trends), np.array(points)

    def _fitted(self) -> "_Fit":
        if self._fit is None:
            fits = [
                _Fit.of(self._trends, self._points, self._values, noise, local, length)
                for noise, local, length in product(_NOISES, _LOCALS, _LENGTHS)
            ]
            self._fit = max(fits, key=lambda fit: fit.evidence)
        return self._fit


@dataclass(frozen=True, eq=False)
class _Fit:
    """A Gaussian process with chosen hyperparameters, conditioned on observations."""

    trends: Matrix
    points: Matrix
    values: Vector
    centre: Vector
    scale: Vector
    mean: float
    spread: float
    noise: float
    local: float
    length: float
    inverse: Matrix
    evidence: float

    @classmethod
    def of(cls, trends: Matrix, points: Matrix, values: Vector, noise: float, local: float, length: float) -> "_Fit":
        """Condition on `values`; figures are in units of their spread."""
        centre, scale = trends.mean(axis=0), np.maximum(trends.std(axis=0), 1e-3)
        scale[_RISES:] = np.maximum(scale[_RISES:], _LEAST_SCALE * centre[_RISES:].sum())
        centre[0], scale[0] = 0.0, 1.0
        mean, spread = float(values.mean()), max(float(values.std()), 0.01)
        bare = cls(trends, points, values, centre, scale, mean, spread, noise, local, length, np.zeros((0, 0)), -np.inf)
        covariance = bare._kernel(trends, points, trends, points) + noise**2 * np.eye(len(values))
        factor = np.linalg.cholesky(covariance)
        half = np.linalg.solve(factor, bare._departures())
        evidence = -0.5 * float(half @ half) - float(np.log(np.diag(factor)).sum())
        inverse: Matrix = np.linalg.inv(covariance).astype(np.float64)
        return cls(trends, points, values, centre, scale, mean, spread, noise, local, length, inverse, evidence)

    def predict(self, trends: Matrix, points: Matrix) -> tuple[Vector, Vector]:
        """Return mean and standard deviation of the accuracy itself, without the noise of its evaluation."""
        across = self._kernel(trends, points, self.trends, self.points)
        mean = self.mean + self.spread * (self._expected(trends) + across @ self.inverse @ self._departures())
        prior = _TREND_VARIANCE * (self._scaled(trends) ** 2).sum(axis=1) / trends.shape[1] + self.local**2
        variance = prior - np.einsum("ij,jk,ik->i", across, self.inverse, across)
        return mean, self.spread * np.sqrt(np.maximum(variance, 1e-9))

    def with_expected(self, trends: Matrix, points: Matrix) -> "_Fit":
        """Return the process given its own expectation at one more point: only its variance changes."""
        across = self._kernel(trends, points, self.trends, self.points)[0]
        own = self._kernel(trends, points, trends, points)[0, 0] + self.noise**2
        passed = self.inverse @ across
        left = max(float(own - across @ passed), 1e-9)
        corner = np.concatenate([-passed, [1.0]])[:, None]
        size = len(self.inverse)
        inverse = np.zeros((size + 1, size + 1))
        inverse[:size, :size] = self.inverse
        inverse += corner @ corner.T / left
        expected = self.predict(trends, points)[0]
        return _Fit(
            np.concatenate([self.trends, trends]), np.concatenate([self.points, points]),
            np.concatenate([self.values, expected]), self.centre, self.scale, self.mean, self.spread,
            self.noise, self.local, self.length, inverse, self.evidence,
        )  # fmt: skip

    def _expected(self, trends: Matrix) -> Vector:
        """Return what is expected of accuracies before any is observed, in units of their spread around their mean."""
        fall: Vector = self._scaled(trends)[:, _RISES:].sum(axis=1)
        return -_SLOPE * fall

    def _departures(self) -> Vector:
        """Return how far what was observed is from what was expected."""
        return (self.values - self.mean) / self.spread - self._expected(self.trends)

    def _scaled(self, trends: Matrix) -> Matrix:
        scaled: Matrix = (trends - self.centre) / self.scale
        return scaled

    def _kernel(self, trends: Matrix, points: Matrix, other_trends: Matrix, other_points: Matrix) -> Matrix:
        linear = _TREND_VARIANCE * self._scaled(trends) @ self._scaled(other_trends).T / trends.shape[1]
        squares = (points**2).sum(axis=1)[:, None] + (other_points**2).sum(axis=1)[None]
        distance = np.maximum(squares - 2 * points @ other_points.T, 0.0)
        kernel: Matrix = linear + self.local**2 * np.exp(-0.5 * distance / self.length**2)
        return kernel


def _relative(rises: Sequence[float]) -> Vector:
    """Return square roots of sensitivities in units of their mean, with a floor: weights of the distance."""
    values = np.asarray(rises, np.float64)
    if not len(values):
        return values
    mean = values.mean()
    weights: Vector = np.sqrt(values / mean + _FLOOR) if mean > 0 else np.ones(len(values))
    return weights
