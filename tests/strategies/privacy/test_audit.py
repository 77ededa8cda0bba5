"""What canaries prove: Gaussians told apart against accountant and quadrature, exact tails, and a bound that holds."""

import math
from itertools import pairwise, product

import numpy as np
import pytest
from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from strategies.privacy.audit import (
    FALSE_ALARMS,
    Gaussian,
    clopper_pearson,
    gaussian_epsilon,
    hockey_stick,
    lower_bound,
    threshold,
)

STANDARD = Gaussian(0.0, 1.0)
MEANS, DEVIATIONS = st.floats(-5, 5), st.floats(0.2, 5)


def exact_epsilon(noise: float, delta: float) -> float:
    """Of the Gaussian mechanism, by an accountant that bounds it from above within 1e-3."""
    return float(from_gaussian_mechanism(noise).get_epsilon_for_delta(delta))


@pytest.mark.parametrize(("noise", "delta"), product((0.5, 1.0, 4.0), (1e-3, 1e-6)))
def test_of_equal_deviations_it_is_the_gaussian_mechanism(noise: float, delta: float) -> None:
    expected = exact_epsilon(noise, delta)
    for scale in (1.0, 1e-3):
        found = gaussian_epsilon(Gaussian(3.0 * scale, scale), Gaussian((3 + 1 / noise) * scale, scale), delta)
        assert found == pytest.approx(expected, abs=2e-3)


def by_quadrature(p: Gaussian, q: Gaussian, epsilon: float) -> float:
    def excess(x: float) -> float:
        of_p, of_q = stats.norm.pdf(x, p.mean, p.deviation), stats.norm.pdf(x, q.mean, q.deviation)
        return max(0.0, float(of_p - math.exp(epsilon) * of_q))

    places = np.linspace(-20, 20, 41)
    return sum(integrate.quad(excess, low, high)[0] for low, high in pairwise(places))


@pytest.mark.parametrize(
    ("mean", "deviation", "epsilon"),
    [(0.0, 2.0, 0.5), (0.0, 0.4, 0.3), (1.5, 0.7, 1.0), (-2.0, 1.8, 0.0), (2.0, 1.0, 1.0), (0.0, 0.5, 3.0)],
)
def test_of_other_deviations_it_is_the_area_between_the_densities(
    mean: float, deviation: float, epsilon: float
) -> None:
    other = Gaussian(mean, deviation)
    assert hockey_stick(other, STANDARD, epsilon) == pytest.approx(by_quadrature(other, STANDARD, epsilon), abs=1e-7)
    assert hockey_stick(STANDARD, other, epsilon) == pytest.approx(by_quadrature(STANDARD, other, epsilon), abs=1e-7)


@given(MEANS, DEVIATIONS, MEANS, DEVIATIONS, st.floats(1e-6, 0.1))
def test_epsilon_is_where_neither_way_exceeds_delta(
    mean: float, deviation: float, other_mean: float, other_deviation: float, delta: float
) -> None:
    one, other = Gaussian(mean, deviation), Gaussian(other_mean, other_deviation)
    epsilon = gaussian_epsilon(one, other, delta)
    assert epsilon == gaussian_epsilon(other, one, delta) >= 0
    largest = max(hockey_stick(one, other, epsilon), hockey_stick(other, one, epsilon))
    if epsilon > 0:
        assert largest == pytest.approx(delta, rel=1e-4, abs=1e-8)
    else:
        assert largest <= delta


def test_what_cannot_be_told_apart_has_no_epsilon_and_what_is_far_apart_a_large_one() -> None:
    assert gaussian_epsilon(STANDARD, STANDARD, 1e-5) == 0
    far = 1e6 / 2 + 1000 * stats.norm.isf(1e-5)  # where delta is the probability that the privacy loss exceeds epsilon
    assert gaussian_epsilon(STANDARD, Gaussian(1000.0, 1.0), 1e-5) == pytest.approx(far, rel=1e-3)


def test_a_fit_is_the_samples_mean_and_deviation() -> None:
    assert Gaussian.fitted(np.array([1.0, 2.0, 6.0])) == Gaussian(3.0, math.sqrt(7.0))
    assert Gaussian.of_no_canary(400) == Gaussian(0.0, 0.05)


@pytest.mark.parametrize("size", [2, 3, 50, 100_000])
def test_a_false_alarm_has_the_probability_of_a_random_directions_cosine(size: int) -> None:
    """In two dimensions it is an angle, in three uniform, in many Gaussian; in general a beta distribution."""
    for probability in FALSE_ALARMS[:5]:
        found = threshold(probability, size)
        known = {2: math.cos(math.pi * probability), 3: 1 - 2 * probability}
        normal = stats.norm.isf(probability) / math.sqrt(size)
        expected = known.get(size, math.sqrt(stats.beta.isf(2 * probability, 0.5, (size - 1) / 2)))
        assert found == pytest.approx(expected, rel=1e-6)
        assert size < 100_000 or found == pytest.approx(normal, rel=1e-4)


def test_of_random_directions_as_many_exceed_it() -> None:
    """Of 200,000, with a fixed seed; four deviations of a count."""
    drawn = np.random.default_rng(3).normal(size=(200_000, 6))
    cosines = drawn[:, 0] / np.linalg.norm(drawn, axis=1)
    for probability in (0.1, 0.01, 0.001):
        share = np.mean(cosines > threshold(probability, 6))
        assert abs(share - probability) < 4 * math.sqrt(probability / 200_000)


def test_the_largest_of_several_looks_exceeds_it_no_more_often() -> None:
    drawn = np.random.default_rng(4).normal(size=(50_000, 40))
    largest = (drawn[:, :9] / np.linalg.norm(drawn, axis=1, keepdims=True)).max(axis=1)  # nine orthogonal movements
    assert 0.08 < np.mean(largest > threshold(0.1, 40, looks=9)) < 0.1


@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (1, 10), (10, 10), (37, 200)])
def test_a_lower_limit_of_a_probability_is_scipys(hits: int, trials: int) -> None:
    test = stats.binomtest(hits, trials, alternative="greater")
    assert clopper_pearson(hits, trials, 0.01) == pytest.approx(test.proportion_ci(0.99, method="exact").low, abs=1e-12)


def scores_of(noise: float, count: int, size: int, generator: np.random.Generator) -> np.ndarray:
    """Cosines of canaries of length 1, each with its own release of noise; what is beside them is rotated away."""
    along = 1 + noise * generator.standard_normal(count)
    across = noise**2 * generator.chisquare(size - 1, count)
    return along / np.sqrt(along**2 + across)


@pytest.mark.parametrize("noise", [0.5, 1.0, 3.0])
def test_the_bound_exceeds_the_truth_as_rarely_as_it_says(noise: float) -> None:
    """At a confidence of one half, 400 audits: were the error really above 1/2, 230 would be exceeded in one of 600."""
    generator, truth = np.random.default_rng(8), exact_epsilon(noise, 1e-5)
    bounds = [lower_bound(scores_of(noise, 300, 500, generator), 500, 1e-5, confidence=0.5) for _ in range(400)]
    assert sum(bound > truth for bound in bounds) < 230
    strict = [lower_bound(scores_of(noise, 300, 500, generator), 500, 1e-5) for _ in range(400)]
    assert sum(bound > truth for bound in strict) <= 20


def scores_of_one_release(noise: float, count: int, size: int, generator: np.random.Generator) -> np.ndarray:
    """Cosines of canaries that are all in one sum, with one noise: what an audit really sees."""
    directions = generator.normal(size=(count, size))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    release = directions.sum(axis=0) + noise * generator.normal(size=size)
    return np.asarray(directions @ release / np.linalg.norm(release))


def test_that_canaries_share_one_release_makes_it_exceed_the_truth_no_more_often() -> None:
    """What the bound assumes, of 200 audits of 100 canaries; at one half, 120 would be exceeded in one of 500."""
    generator, truth = np.random.default_rng(10), exact_epsilon(1.0, 1e-5)
    scores = [scores_of_one_release(1.0, 100, 1000, generator) for _ in range(200)]
    assert sum(lower_bound(of_one, 1000, 1e-5, confidence=0.5) > truth for of_one in scores) < 120
    assert sum(lower_bound(of_one, 1000, 1e-5) > truth for of_one in scores) <= 10


def test_the_bound_is_worth_something() -> None:
    """The median of 20: more than half of the truth with 2000 canaries, less with fewer."""
    generator = np.random.default_rng(9)
    truth = exact_epsilon(1.0, 1e-5)
    medians = [
        float(np.median([lower_bound(scores_of(1.0, count, 5000, generator), 5000, 1e-5) for _ in range(20)]))
        for count in (100, 500, 2000)
    ]
    assert medians == sorted(medians) and medians[-1] > truth / 2 and medians[0] > 0.5


def test_without_noise_it_is_large_and_without_canaries_among_the_clients_nothing() -> None:
    assert lower_bound(np.ones(100), 1000, 1e-5) > 30
    absent = np.random.default_rng(2).normal(size=(100, 1000))
    assert lower_bound(absent[:, 0] / np.linalg.norm(absent, axis=1), 1000, 1e-5) == 0


def test_that_canaries_are_missing_proves_as_much() -> None:
    """Nobody below the lowest threshold: P(below | out) = 0.9 against almost nothing of those that were there."""
    scores = np.full(5000, threshold(0.05, 1000))
    assert lower_bound(scores, 1000, 1e-5) > math.log(0.9 / 0.002)
