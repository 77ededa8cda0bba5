"""What canaries give away: the epsilon that an adversary's success proves, beside the one that accountants allow.

Andrew, Kairouz, Oh, Oprea, McMahan, Suriyakumar: "One-shot Empirical Privacy Estimation for Federated Learning", 2024.
Canaries are clients whose update has a random direction (`strategies.privacy.canaries`). Whoever sees the models
measures the cosine between a canary and the models' movement. Its distribution is known of a canary that took no part:
with d weights nearly N(0, 1/d), and exactly that of the square root of a Beta(1/2, (d - 1)/2), of either sign. From how
the cosines of those that did take part differ follow

- an *estimate*, as in the paper (algorithms 2 and 3): Gaussians are fitted, and epsilon is that of telling them apart.
  It says how much a typical canary gives away, has no confidence, and can lie on either side of the truth;
- a *lower bound* with a confidence, which is not in the paper. For any event E of one canary, differential privacy says
  P(E | in) <= e^epsilon P(E | out) + delta, and the same of its complement and with in and out exchanged. E is "the
  cosine exceeds a threshold". For thresholds fixed beforehand by P(E | out), which is known exactly, P(E | in) has a
  lower confidence limit (Clopper and Pearson, 1934), and Bonferroni's inequality allows several thresholds.

The bound assumes nothing of the shape of anything, but takes the canaries' successes for independent of each other, as
nearly orthogonal directions make them where d is large beside the number of canaries (the paper's section 3).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

Cosines = npt.NDArray[np.float64]
"""One number for each canary, float64 [canaries]: its cosine with a movement, or the largest of several."""

FALSE_ALARMS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-7, 1e-10, 1e-15)
"""P(E | out) of the thresholds that are tried."""

LARGEST = 1e9  # epsilon; beyond, doubles end
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Finding:
    """What canaries say of epsilon: as fitted, and what is proved with the confidence that was asked for."""

    estimate: float
    bound: float


@dataclass(frozen=True)
class Gaussian:
    """The distribution of a canary's score."""

    mean: float
    deviation: float

    @classmethod
    def of_no_canary(cls, size: int) -> Gaussian:
        """Return that of a canary that took no part, in a model of so many weights."""
        return cls(0.0, 1 / math.sqrt(size))

    @classmethod
    def fitted(cls, scores: Cosines) -> Gaussian:
        """Return the one with the mean and deviation of a sample of two or more."""
        return cls(float(scores.mean()), float(scores.std(ddof=1)))


def gaussian_epsilon(one: Gaussian, other: Gaussian, delta: float) -> float:
    """Return the least epsilon of 0 or more for which the two are (epsilon, delta)-indistinguishable, either way."""
    return max(_one_way(one, other, delta), _one_way(other, one, delta))


def _one_way(p: Gaussian, q: Gaussian, delta: float) -> float:
    def excess(epsilon: float) -> float:
        return hockey_stick(p, q, epsilon) - delta

    if excess(0.0) <= 0:
        return 0.0
    high = 1.0
    while excess(high) > 0:
        if high > LARGEST:
            return math.inf
        high *= 2
    return float(optimize.brentq(excess, 0.0, high, xtol=1e-9))


def hockey_stick(p: Gaussian, q: Gaussian, epsilon: float) -> float:
    """Return the divergence max over events of P(E) - e^epsilon Q(E).

    E is where the densities' log ratio exceeds epsilon: a parabola is positive, with q as the unit of x.
    """
    mean, deviation = (p.mean - q.mean) / q.deviation, p.deviation / q.deviation
    curvature = 0.5 - 0.5 / deviation**2
    slope = mean / deviation**2
    constant = -0.5 * slope * mean - math.log(deviation) - epsilon
    of_p = of_q = -math.inf  # logarithms of probabilities
    for low, high in _positive(curvature, slope, constant):
        of_p = np.logaddexp(of_p, _log_probability((low - mean) / deviation, (high - mean) / deviation))
        of_q = np.logaddexp(of_q, _log_probability(low, high))
    return max(0.0, float(np.exp(of_p) - np.exp(epsilon + of_q)))


def _positive(a: float, b: float, c: float) -> Iterator[tuple[float, float]]:
    """Yield the intervals on which a x^2 + b x + c is above 0."""
    if a == 0:
        if b == 0:
            yield from [(-math.inf, math.inf)] if c > 0 else []
        else:
            yield (-c / b, math.inf) if b > 0 else (-math.inf, -c / b)
        return
    discriminant = b * b - 4 * a * c
    if discriminant <= 0:
        yield from [(-math.inf, math.inf)] if a > 0 else []
        return
    half = -0.5 * (b + math.copysign(math.sqrt(discriminant), b))  # without cancellation; not 0, as one root is not
    low, high = sorted((half / a, c / half))
    yield from [(low, high)] if a < 0 else [(-math.inf, low), (high, math.inf)]


def _log_probability(low: float, high: float) -> float:
    """Return log P(low < x < high) of a standard Gaussian, precise in either tail."""
    if low > 0:
        low, high = -high, -low
    above, below = special.log_ndtr(high), special.log_ndtr(low)
    return float(above + np.log1p(-np.exp(below - above)))


def threshold(false_alarms: float, size: int, looks: int = 1) -> float:
    """Return what the cosine of a canary that took no part exceeds with this probability at most.

    With several ``looks`` it is the largest cosine with so many movements, of whatever directions: Boole's inequality
    holds, and the threshold is that for a smaller probability. Of a single movement the probability is exact. Needs a
    model of two weights or more.
    """
    both_sides = min(1.0, 2 * false_alarms / looks)
    return math.sqrt(special.betainccinv(0.5, (size - 1) / 2, both_sides))


def lower_bound(scores: Cosines, size: int, delta: float, looks: int = 1, confidence: float = CONFIDENCE) -> float:
    """Return an epsilon, 0 or more, that is not below the true one with at most the probability 1 - ``confidence``.

    ``scores`` are the cosines of canaries that were there with a movement, or with the most fitting of ``looks``.
    """
    error, bound = (1 - confidence) / len(FALSE_ALARMS), 0.0
    for false_alarms in FALSE_ALARMS:
        hits = int(np.count_nonzero(scores > threshold(false_alarms, size, looks)))
        found = clopper_pearson(hits, len(scores), error)
        bound = max(
            bound,
            _log_ratio(found - delta, false_alarms),
            _log_ratio(1 - false_alarms - delta, 1 - found),
        )
    return bound


def clopper_pearson(hits: int, trials: int, error: float) -> float:
    """Return the lower limit of a probability that holds but with probability ``error``."""
    return float(special.betaincinv(hits, trials - hits + 1, error)) if hits else 0.0


def _log_ratio(above: float, below: float) -> float:
    return math.log(above / below) if above > 0 else -math.inf
