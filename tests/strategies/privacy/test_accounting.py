"""Epsilon against the literature's figures, closed forms, and integrals over the densities themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution
from dp_accounting.rdp.rdp_privacy_accountant import DEFAULT_RDP_ORDERS
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from strategies.errors import StrategyError
from strategies.privacy import accounting
from strategies.privacy.accounting import ORDERS, Epsilons, Release, epsilons, renyi

# sampling rate, z, rounds, delta, RDP, PLD; the figures with six digits and more are TensorFlow Privacy's own
POISSON = [
    (256 / 60000, 1.1, 14063, 1e-5, 2.597, 2.382),
    (256 / 60000, 1.3, 3516, 1e-5, 0.955, 0.865),
    (256 / 60000, 0.7, 10547, 1e-5, 6.32, 5.640),
    (150 / 60000, 1.3, 6000, 1e-5, 0.7242234, 0.640),
    (1e-3, 1.0, 30000, 1e-7, 1.4154988, 1.098),
    (120 / 3383, 1.2, 100, 1e-5, 1.986, 1.708),
    (50 / 190, 2.0, 100, 1e-3, 5.585, 4.908),
]
# population, cohort, z by dp-accounting's measure, rounds, delta, RDP
FIXED = [
    (60000, 256, 1.1, 14063, 1e-5, 5.243),
    (3383, 120, 1.2, 100, 1e-5, 3.556),
    (190, 50, 2.0, 100, 1e-3, 13.095),
]


def gaussian_epsilon(sensitivity_over_deviation: float, delta: float) -> float:
    """Balle and Wang, "Improving the Gaussian Mechanism for Differential Privacy", 2018, theorem 8."""
    s = sensitivity_over_deviation

    def excess(epsilon: float) -> float:
        inside, outside = norm.cdf(s / 2 - epsilon / s), norm.logcdf(-s / 2 - epsilon / s)
        return float(inside - math.exp(epsilon + outside) - delta)

    return float(brentq(excess, 0, 200)) if excess(0) > 0 else 0.0


def integrated_epsilon(rate: float, noise: float, delta: float) -> float:
    """One round in which a client's update is added with probability ``rate``, by integrating max(P - e^eps Q, 0)."""
    x = np.linspace(-12 * noise, 1 + 12 * noise, 400_001)
    without = norm.pdf(x, 0, noise)
    with_it = (1 - rate) * without + rate * norm.pdf(x, 1, noise)

    def excess(epsilon: float) -> float:
        sides = ((with_it, without), (without, with_it))
        return max(float(np.maximum(p - math.exp(epsilon) * q, 0).sum() * (x[1] - x[0])) for p, q in sides) - delta

    return float(brentq(excess, 0, 50))


@pytest.mark.parametrize(("rate", "noise", "rounds", "delta", "rdp", "pld"), POISSON)
def test_poisson_sampling_as_published(
    rate: float, noise: float, rounds: int, delta: float, rdp: float, pld: float
) -> None:
    found = epsilons({Release("poisson", rate, noise): rounds}, delta)
    assert found.rdp == pytest.approx(rdp, abs=1e-3)
    assert found.pld == pytest.approx(pld, abs=1e-3)
    assert found.tightest == found.pld


@pytest.mark.parametrize(("population", "cohort", "noise", "rounds", "delta", "rdp"), FIXED)
def test_cohorts_of_a_fixed_size(
    population: int, cohort: int, noise: float, rounds: int, delta: float, rdp: float
) -> None:
    """dp-accounting measures noise by what replacing a client moves, 2 S, and so half as large as we do."""
    found = epsilons({Release("fixed", cohort / population, 2 * noise): rounds}, delta)
    assert found.rdp == pytest.approx(rdp, abs=1e-3)
    assert found.pld is None


def test_a_fixed_size_is_not_accounted_below_what_a_worst_case_attains() -> None:
    """One client has the update +S or -S, all others have -S: then the two releases differ like Poisson's at z / 2.

    The sum is -m S, or with probability m / n higher by 2 S: a sampled Gaussian mechanism, whose PLD rounded downwards
    no true bound may undercut. 5.24, which z in the place of z / 2 would give, does.
    """
    population, cohort, noise, rounds, delta, as_if = FIXED[0][0], FIXED[0][1], *FIXED[0][2:]
    attained = (
        privacy_loss_distribution.from_gaussian_mechanism(
            noise / 2, sampling_prob=cohort / population, pessimistic_estimate=False, use_connect_dots=False
        )
        .self_compose(rounds)
        .get_epsilon_for_delta(delta)
    )
    claimed = epsilons({Release("fixed", cohort / population, noise): rounds}, delta).tightest
    assert as_if < 6 < 13 < attained < claimed


@pytest.mark.parametrize(("noise", "rounds", "delta"), [(20.0, 100, 1e-3), (5.0, 1, 1e-5), (1.0, 3, 1e-6)])
def test_without_sampling_it_is_the_closed_form_of_one_gaussian(noise: float, rounds: int, delta: float) -> None:
    """Rounds compose like one mechanism of so much less noise; a client replaced moves twice as far."""
    alone = gaussian_epsilon(math.sqrt(rounds) / noise, delta)
    found = epsilons({Release("none", 1.0, noise): rounds}, delta)
    assert found.pld == pytest.approx(alone, rel=1e-4)
    assert alone <= found.rdp < 1.3 * alone
    replaced = gaussian_epsilon(2 * math.sqrt(rounds) / noise, delta)
    assert replaced <= epsilons({Release("fixed", 1.0, noise): rounds}, delta).rdp < 1.3 * replaced


@pytest.mark.parametrize(("rate", "noise", "delta"), [(0.3, 1.0, 1e-4), (0.05, 0.8, 1e-5), (0.9, 3.0, 1e-5)])
def test_a_single_sampled_round_by_integration(rate: float, noise: float, delta: float) -> None:
    exact = integrated_epsilon(rate, noise, delta)
    found = epsilons({Release("poisson", rate, noise): 1}, delta)
    assert found.pld == pytest.approx(exact, abs=1e-3)
    assert found.rdp >= exact


def test_poisson_sampling_of_everybody_is_no_sampling() -> None:
    all_of_them, sampled = (epsilons({Release(how, 1.0, 4.0): 7}, 1e-5) for how in ("none", "poisson"))
    assert sampled.rdp == pytest.approx(all_of_them.rdp)
    assert sampled.pld == pytest.approx(all_of_them.pld, abs=1e-3)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    st.sampled_from(["poisson", "fixed"]), st.sampled_from([0.02, 0.1, 0.5]), st.floats(0.6, 5.0), st.integers(1, 500)
)
def test_more_rounds_cost_more_and_more_noise_costs_less(
    sampling: accounting.Sampling, rate: float, noise: float, rounds: int
) -> None:
    def rdp(noise: float, rounds: int) -> float:
        return accounting.rdp_epsilon(accounting.total({Release(sampling, rate, noise): rounds}), 1e-5)

    assert rdp(noise, rounds + 1) >= rdp(noise, rounds) >= rdp(1.1 * noise, rounds) > 0


def test_different_releases_add_up() -> None:
    """The costs over all orders do; epsilons together are less than their sum."""
    one, other = {Release("poisson", 0.1, 1.0): 10}, {Release("poisson", 0.2, 2.0): 30}
    both = epsilons({**one, **other}, 1e-5)
    apart = [epsilons(releases, 1e-5) for releases in (one, other)]
    assert max(found.rdp for found in apart) < both.rdp < sum(found.rdp for found in apart)
    assert both.pld is not None and both.pld < both.rdp


def test_no_noise_is_no_privacy_and_no_release_costs_nothing() -> None:
    assert epsilons({Release("poisson", 0.1, 0.0): 1}, 1e-5) == Epsilons(math.inf, None)
    assert epsilons({Release("fixed", 0.1, 0.0): 1}, 0.1).tightest == math.inf
    assert epsilons({Release("poisson", 0.0, 0.0): 9}, 1e-5).tightest == 0
    assert epsilons({Release("poisson", 0.1, 0.0): 0}, 1e-5).tightest == 0
    assert epsilons({}, 1e-5).tightest == 0


def test_little_noise_is_left_to_rdp() -> None:
    assert epsilons({Release("poisson", 0.3, 0.25): 100}, 1e-3).pld is None
    assert epsilons({Release("poisson", 0.3, 1.0 + k / 100): 1 for k in range(9)}, 1e-3).pld is None


def test_the_cost_is_not_to_be_written_to_and_the_orders_are_the_librarys() -> None:
    assert not renyi(Release("poisson", 0.1, 1.0)).flags.writeable
    assert list(ORDERS) == list(DEFAULT_RDP_ORDERS)


def test_orders_left_out_are_not_listed_in_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    renyi(Release("poisson", 0.263158, 2.0))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("sampling", "rate", "noise", "says"),
    [
        ("poisson", 1.5, 1.0, "sampling rate is 1.5.*must not be more than there are clients"),
        ("fixed", -0.1, 1.0, "sampling rate"),
        ("none", 0.5, 1.0, "every client takes part"),
        ("poisson", 0.5, -1.0, "'noise-multiplier' is -1.0"),
        ("poisson", 0.5, math.nan, "'noise-multiplier' is nan"),
        ("shuffled", 0.5, 1.0, "must be one of poisson, fixed, none"),
    ],
)
def test_what_is_no_mechanism(sampling: accounting.Sampling, rate: float, noise: float, says: str) -> None:
    with pytest.raises(StrategyError, match=says):
        Release(sampling, rate, noise)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
def test_a_delta_that_is_none(delta: float) -> None:
    with pytest.raises(StrategyError, match="'budget-delta'"):
        epsilons({Release("none", 1.0, 1.0): 1}, delta)


def test_two_adjacencies_are_not_accounted_together() -> None:
    with pytest.raises(StrategyError, match="one client replaced, one client more or less"):
        epsilons({Release("fixed", 0.1, 1.0): 1, Release("poisson", 0.1, 1.0): 1}, 1e-5)


@pytest.mark.parametrize(
    ("rate", "noise", "rounds"), [(256 / 60000, 1.1, 14063), (50 / 190, 2.0, 100), (0.05, 5.0, 10_000)]
)
def test_the_grid_of_pld_costs_next_to_nothing_and_never_less(rate: float, noise: float, rounds: int) -> None:
    """Beside dp-accounting's own grid, of 1e-4."""
    fine = privacy_loss_distribution.from_gaussian_mechanism(noise, sampling_prob=rate)
    exact = fine.self_compose(rounds).get_epsilon_for_delta(1e-5)
    found = accounting.pld_epsilon({Release("poisson", rate, noise): rounds}, 1e-5)
    assert exact * (1 - 1e-9) <= found <= exact * (1 + 2e-4)
