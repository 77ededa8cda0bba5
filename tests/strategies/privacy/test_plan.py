"""Plans: noise for a budget is what accounting turns back into it; what cannot be is said in a sentence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from strategies.errors import StrategyError
from strategies.privacy.plan import LEAST_NOISE, Plan, with_least_noise

FEMNIST = Plan(190, 50, "poisson", 100, 2.0, 1e-3)


def test_a_plan_says_what_each_round_releases() -> None:
    assert FEMNIST.release.rate == 50 / 190
    assert FEMNIST.after(100).rdp == pytest.approx(5.585, abs=1e-3)
    assert FEMNIST.after(50).rdp < FEMNIST.after(100).rdp
    assert replace(FEMNIST, sampling="none").release.rate == 1
    assert replace(FEMNIST, sampling="fixed", clients_per_round=0).release.rate == 1
    assert FEMNIST.adjacency == "add or remove one"
    assert replace(FEMNIST, sampling="fixed").adjacency == "replace one"


@pytest.mark.parametrize(
    ("plan", "epsilon"),
    [
        (FEMNIST, 2.0),
        (Plan(60000, 256, "poisson", 500, 1.0, 1e-5), 1.0),
        (Plan(190, 50, "fixed", 100, 1.0, 1e-3), 8.0),
        (Plan(10, 0, "none", 20, 1.0, 1e-2), 0.5),
    ],
)
def test_calibration_inverts_accounting(plan: Plan, epsilon: float) -> None:
    found = with_least_noise(plan, epsilon)
    assert epsilon - 1e-3 < found.after(plan.rounds).tightest <= epsilon
    less = replace(found, noise_multiplier=found.noise_multiplier * 0.999)
    assert less.after(plan.rounds).tightest > epsilon


def test_calibration_uses_the_tighter_accountant() -> None:
    assert with_least_noise(FEMNIST, 2.0).after(100).rdp > 2.0


def test_adaptive_clipping_needs_the_same_noise_on_both_releases_together() -> None:
    adaptive = replace(FEMNIST, adaptive=True)
    assert adaptive.after(100) == FEMNIST.after(100)
    with pytest.raises(StrategyError, match=r"'noise-multiplier' is 5.*must be below 5"):
        replace(adaptive, noise_multiplier=5.0)
    with pytest.raises(StrategyError, match="must be below 5"):
        with_least_noise(adaptive, 0.5)


def test_rounds_within_a_budget() -> None:
    rounds = FEMNIST.rounds_within(2.0)
    assert FEMNIST.after(rounds).tightest <= 2.0 < FEMNIST.after(rounds + 1).tightest
    assert FEMNIST.rounds_within(100.0) == 100
    assert replace(FEMNIST, noise_multiplier=0.0).rounds_within(100.0) == 0


def test_hardly_any_noise_is_enough() -> None:
    assert with_least_noise(Plan(10**9, 1, "poisson", 1, 1.0, 0.5), 50.0).noise_multiplier == LEAST_NOISE


@pytest.mark.parametrize("epsilon", [0.0, -1.0, 51.0, float("nan"), float("inf")])
def test_an_epsilon_that_is_none(epsilon: float) -> None:
    with pytest.raises(StrategyError, match="must be above 0 and at most 50"):
        with_least_noise(FEMNIST, epsilon)


def test_what_a_guarantee_covers() -> None:
    poisson = FEMNIST.meaning(4.908)
    assert "epsilon 4.908 and delta 0.001, add or remove one" in poisson
    assert "each client with probability 0.2632, independently" in poisson
    fixed = replace(FEMNIST, sampling="fixed").meaning(40.0)
    assert "replace one" in fixed and "a fixed number of clients, each with probability 0.2632" in fixed
    assert "assumes nothing of who takes part" in replace(FEMNIST, sampling="none").meaning(40.0)
    assert FEMNIST.meaning(float("inf")).startswith("No privacy")


def test_warnings() -> None:
    assert list(replace(FEMNIST, delta=1e-4).warnings()) == []
    assert "1 / population = 0.00526316" in next(replace(FEMNIST, delta=0.1).warnings())
    assert next(replace(FEMNIST, noise_multiplier=0.0).warnings()).startswith("No privacy")
    assert next(replace(FEMNIST, noise_multiplier=0.0, adaptive=True).warnings()).startswith("No privacy")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"clients_per_round": 191}, "sampling rate would be above 1"),
        ({"population": 0, "clients_per_round": 0}, "needs one of each"),
        ({"rounds": 0}, "0 rounds"),
        ({"delta": 1.0}, "'budget-delta' is 1.0"),
        ({"noise_multiplier": -1.0}, "'noise-multiplier' is -1.0"),
    ],
)
def test_what_is_no_plan(change: dict[str, float], says: str) -> None:
    with pytest.raises(StrategyError, match=says):
        replace(FEMNIST, **change)  # type: ignore[arg-type]


def test_a_pass_is_one_release() -> None:
    """Passes of 8 rounds: 20 rounds begin three of them, each a Gaussian mechanism of half the noise multiplier."""
    plan = Plan(80, 10, "cyclic", 20, 4.0, 1e-4, pass_rounds=8, sensitivity=2.0)
    assert (plan.cohort, plan.adjacency) == (10, "add or remove one")
    assert [plan.releases(rounds) for rounds in (1, 8, 9, 16, 17, 20)] == [1, 1, 2, 2, 3, 3]
    assert plan.after(20) == plan.after(17) == Plan(80, 0, "none", 3, 2.0, 1e-4).after(3)
    assert plan.rounds_within(plan.after(16).tightest) == 16
    found = with_least_noise(plan, 1.5)
    assert 1.5 - 1e-3 < found.after(20).tightest <= 1.5
    said = plan.meaning(1.5)
    assert "the models of all 3 passes together" in said and "no client takes part twice in a pass" in said


def test_the_plan_of_a_simulated_cohort_is_that_of_the_same_sampling_rate_and_says_so() -> None:
    plan = replace(FEMNIST, noise_cohort_size=5000)
    assert plan.after(100) == FEMNIST.after(100)
    said = plan.meaning(4.908)
    assert said.startswith("The run simulates the noise of a cohort of 5000; this run itself is not private. Of that ")
    assert FEMNIST.meaning(4.908) in said
    assert plan.meaning(float("inf")) == FEMNIST.meaning(float("inf"))
    assert list(FEMNIST.warnings()) == [] and "1 / population = 5.26316e-05" in next(plan.warnings())
    assert replace(plan, adaptive=True, noise_multiplier=499.0).release.noise_multiplier == 499.0
    with pytest.raises(StrategyError, match="'noise-cohort-size' 5000 it must be below 500"):
        replace(plan, adaptive=True, noise_multiplier=500.0)
