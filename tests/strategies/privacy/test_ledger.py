"""The ledger: the same epsilon as beforehand, whatever the order, over a checkpoint, and a stop before the excess."""

from __future__ import annotations

import io
import math
from bisect import bisect_right
from functools import reduce

import dp_accounting as dp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.errors import StrategyError
from strategies.privacy.accounting import Release, epsilons
from strategies.privacy.ledger import COST, RELEASES, Ledger

ROUND = Release("poisson", 0.2, 1.5)
DELTA = 1e-4
KINDS = [ROUND, Release("poisson", 0.25, 1.5), Release("none", 1.0, 8.0)]


def stored(ledger: Ledger) -> Ledger:
    """Write a ledger's arrays to a file, as a checkpoint does, and read them."""
    file = io.BytesIO()
    np.savez(file, **ledger.state())
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        return Ledger.of(dict(arrays))


def test_round_by_round_is_as_planned() -> None:
    ledger = reduce(lambda ledger, _: ledger.after(ROUND), range(40), Ledger())
    planned = epsilons({ROUND: 40}, DELTA)
    assert ledger.epsilon(DELTA) == pytest.approx(planned.rdp, rel=1e-9)
    assert ledger.epsilons(DELTA) == planned
    assert ledger.rounds == 40


def test_rates_that_change_from_round_to_round_as_the_library_composes_them() -> None:
    rates = [0.2, 0.25, 0.2, 0.21]
    ledger, accountant = Ledger(), dp.rdp.RdpAccountant()
    for rate in rates:
        ledger = ledger.after(Release("poisson", rate, 1.5))
        accountant.compose(dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(1.5)))
    assert ledger.epsilon(DELTA) == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-9)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=20), st.data())
def test_order_does_not_matter_and_nor_does_a_restart(releases: list[Release], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(releases))
    at = data.draw(st.integers(0, len(releases)))
    whole = reduce(Ledger.after, releases, Ledger())
    resumed = reduce(Ledger.after, releases[at:], stored(reduce(Ledger.after, releases[:at], Ledger())))
    other = reduce(Ledger.after, shuffled, Ledger())
    assert resumed.releases == whole.releases == other.releases
    assert np.array_equal(resumed.cost, whole.cost)
    assert other.epsilon(DELTA) == pytest.approx(whole.epsilon(DELTA), rel=1e-9)


def test_a_ledger_is_a_value() -> None:
    first = Ledger().after(ROUND)
    cost = first.cost.copy()
    first.after(ROUND)
    assert first.rounds == 1 and np.array_equal(first.cost, cost)


def test_an_empty_ledger() -> None:
    assert Ledger.of({}).rounds == 0
    assert stored(Ledger()).epsilon(DELTA) == 0
    assert Ledger().epsilons(DELTA).tightest == 0


def test_training_stops_before_the_release_that_would_exceed() -> None:
    """As many rounds as a search over plans finds, and more than RDP alone would allow."""
    budget, ledger = 3.0, Ledger()
    while not ledger.would_exceed(ROUND, budget, DELTA):
        ledger = ledger.after(ROUND)
    planned = bisect_right(range(1, 60), budget, key=lambda rounds: epsilons({ROUND: rounds}, DELTA).tightest)
    assert ledger.rounds == planned > 10
    assert ledger.epsilons(DELTA).tightest <= budget < ledger.epsilon(DELTA)


def test_a_budget_that_is_spent_at_resume() -> None:
    spent = stored(Ledger().after(ROUND, 60))
    with pytest.raises(StrategyError, match=r"budget is spent: after 60 releases epsilon is \d.*'budget-epsilon' 2"):
        spent.check(ROUND, 2.0, DELTA)
    spent.check(ROUND, 100.0, DELTA)


def test_no_noise_exceeds_every_budget() -> None:
    silent = Release("poisson", 0.2, 0.0)
    assert Ledger().would_exceed(silent, 1e9, DELTA)
    assert Ledger().after(silent).epsilon(DELTA) == math.inf
    assert stored(Ledger().after(silent)).epsilon(DELTA) == math.inf  # and stays so over a restart


def test_fixed_and_poisson_rounds_do_not_mix() -> None:
    with pytest.raises(StrategyError, match="cannot be accounted together"):
        Ledger().after(ROUND).after(Release("fixed", 0.2, 1.5))


@pytest.mark.parametrize(
    "change",
    [
        {COST: np.zeros(3)},
        {RELEASES: np.array([[0.0, 7.0, 1.0, 1.0]])},
        {RELEASES: np.array([[9.0, 0.5, 1.0, 1.0]])},
        {RELEASES: np.zeros(3)},
        {RELEASES: None},
    ],
)
def test_a_ledger_that_cannot_be_read_is_not_taken_for_an_empty_one(change: dict[str, np.ndarray | None]) -> None:
    state = {**Ledger().after(ROUND).state(), **change}
    with pytest.raises(StrategyError, match="the budget is unknown"):
        Ledger.of({name: array for name, array in state.items() if array is not None})
