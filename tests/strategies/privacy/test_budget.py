"""What is sampled is what is accounted, and no round begins that would exceed the budget."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping

import dp_accounting as dp
import numpy as np
import pytest
from scipy import stats

from simulation.inline import InlineGrid
from strategies import registry, wire
from strategies.composition import Composition
from strategies.errors import StrategyError
from strategies.federated import FederatedStrategy
from strategies.options import Option
from strategies.population import ClientInfo
from strategies.privacy.budget import Budget, BudgetSpentError, account
from strategies.privacy.ledger import Ledger
from strategies.records import RoundRecord
from strategies.terms import RoundRules
from strategies.updates import State
from tests.strategies.privacy.test_private_rounds import CLIENTS, LOST, MODEL, Clients

DELTA = 1e-5
FREE = Budget(delta=DELTA)


def private(selection: str = "poisson", noise: float = 2.0, per_round: int = 4) -> Composition:
    options: dict[str, Option] = {"selection": selection, "noise-multiplier": noise, "clients-per-round": per_round}
    return registry.build("fedavg", {"privacy": "dp-fedavg", **options})


def by_the_library(rounds: int, rate: float, noise: float) -> float:
    accountant = dp.rdp.RdpAccountant()
    accountant.compose(dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(noise)), rounds)
    return float(accountant.get_epsilon(DELTA))


def epsilon_of(ledger: State) -> float:
    return Ledger.of(ledger).epsilon(DELTA)


def check_costs(accounted: Callable[[int, Composition, Budget, State, int, Collection[str]], State]) -> None:
    ledger: State = {}
    for number in range(1, 6):
        ledger = accounted(number, private(), FREE, ledger, 40, ())
        assert epsilon_of(ledger) == pytest.approx(by_the_library(number, 0.1, 2.0), rel=1e-9)


def test_rounds_cost_what_dp_accounting_says() -> None:
    check_costs(account)


def test_each_round_has_the_rate_of_those_who_could_be_drawn_in_it() -> None:
    """Fewer online, so that each takes part with a larger probability; nobody online costs nothing."""
    ledger: State = {}
    for clients in (40, 20, 0, 4, 2):
        ledger = account(1, private(), FREE, ledger, clients, {})
    assert {release.rate: count for release, count in Ledger.of(ledger).releases.items()} == {0.1: 1, 0.2: 1, 1.0: 2}


def test_cohorts_of_a_fixed_size_are_accounted_as_such() -> None:
    ledger = account(1, private("uniform"), FREE, {}, 40, {})
    (release,) = Ledger.of(ledger).releases
    assert (release.sampling, release.rate, release.noise_multiplier) == ("fixed", 0.1, 2.0)
    all_of_them = account(1, private("uniform"), FREE, {}, 3, {})
    assert math.isfinite(epsilon_of(all_of_them)) and epsilon_of(all_of_them) > epsilon_of(ledger)


def test_adaptive_clipping_is_accounted_with_the_noise_of_both_releases() -> None:
    options: dict[str, Option] = {"clients-per-round": 40, "noise-multiplier": 1.5}
    ledgers = [
        account(1, registry.build(name, options), FREE, {}, 400, {}) for name in ("dp-fedavg", "dp-fedavg-adaptive")
    ]
    assert epsilon_of(ledgers[0]) == epsilon_of(ledgers[1])


def test_without_a_mechanism_nothing_is_accounted_and_without_noise_there_is_no_privacy() -> None:
    plain = registry.build("fedavg", {"clients-per-round": 4})
    assert account(1, plain, FREE, {}, 40, {}) == {}
    assert epsilon_of(account(1, private(noise=0.0), FREE, {}, 40, {})) == math.inf


def test_the_round_that_would_exceed_the_budget_does_not_begin() -> None:
    budget = Budget(by_the_library(3, 0.1, 2.0), DELTA)
    ledger: State = {}
    rounds = 0
    with pytest.raises(BudgetSpentError, match="budget is spent"):
        for _ in range(100):
            ledger = account(1, private(), budget, ledger, 40, {})
            rounds += 1
    assert rounds >= 3  # PLD, being tighter, may allow more than RDP does
    assert Ledger.of(ledger).epsilons(DELTA).tightest <= budget.epsilon
    longer = account(1, private(), FREE, ledger, 40, {})
    assert Ledger.of(longer).epsilons(DELTA).tightest > budget.epsilon


@pytest.mark.parametrize(
    ("epsilon", "delta", "sentence"),
    [
        (-1.0, 1e-5, "The key 'budget-epsilon' is -1.0, but must be 0 (no limit) or more."),
        (math.nan, 1e-5, "The key 'budget-epsilon' is nan, but must be 0 (no limit) or more."),
        (1.0, 0.0, "The key 'budget-delta' is 0.0, but must lie between 0 and 1."),
        (1.0, 1.0, "The key 'budget-delta' is 1.0, but must lie between 0 and 1."),
    ],
)
def test_what_is_no_budget_is_refused(epsilon: float, delta: float, sentence: str) -> None:
    with pytest.raises(StrategyError) as caught:
        Budget(epsilon, delta)
    assert str(caught.value) == sentence


def check_sampling(composition: Composition) -> None:
    """The indices of 10,000 rounds of 3 of 12: each client's count, and for each pair how often both took part.

    With a fixed seed; for another, some count would be beyond its bound with a probability of 1e-4.
    """
    rounds, size = 10_000, 12
    clients = [ClientInfo(f"{number:02d}", 1) for number in range(size)]
    (release,) = Ledger.of(account(1, composition, FREE, {}, size, {})).releases
    single: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for number in range(rounds):
        cohort = composition.sampler.sample(number, clients, 5)
        assert release.sampling == "poisson" or len(cohort) == 3
        single.update(cohort)
        pairs.update(itertools.combinations(cohort, 2))
    both = release.rate**2 if release.sampling == "poisson" else release.rate * 2 / 11
    level = 1e-4 / (size + size * (size - 1) / 2)
    for counts, probability in ((single, release.rate), (pairs, both)):
        low, high = stats.binom.interval(1 - level, rounds, probability)
        assert all(low <= count <= high for count in counts.values())
    assert (len(single), len(pairs)) == (12, 66)


@pytest.mark.parametrize("selection", ["poisson", "uniform"])
def test_clients_are_drawn_with_the_probability_that_is_accounted(selection: str) -> None:
    check_sampling(private(selection, per_round=3))


def run(options: Mapping[str, Option], budget: Budget) -> list[RoundRecord]:
    """Run at most 20 rounds and return those that were run."""
    records: list[RoundRecord] = []
    built = registry.build("dp-fedavg", {"clients-per-round": 2, **options})
    strategy = FederatedStrategy(built, RoundRules(budget=budget), 7, observers=[records.append])
    strategy.start(InlineGrid.of(Clients().app(), 2), wire.array_record(dict(MODEL)), num_rounds=20)
    return records[1:]


def test_a_run_tells_what_it_has_cost_and_ends_before_the_budget_is_exceeded() -> None:
    budget = Budget(by_the_library(5, 2 / len(CLIENTS), 3.0), DELTA)
    records = run({"noise-multiplier": 3}, budget)
    assert 5 <= len(records) < 20
    told = [record.privacy.epsilon for record in records if record.privacy]
    by_rdp = [by_the_library(number, 0.25, 3.0) for number in range(1, len(records) + 1)]
    assert all(0.8 * rdp < epsilon < rdp for epsilon, rdp in zip(told, by_rdp, strict=True))  # PLD, which is tighter
    assert told[-1] <= budget.epsilon
    assert all(np.diff(told) > 0)


def test_a_budget_that_is_too_small_for_one_round_is_refused_before_anybody_is_asked() -> None:
    with pytest.raises(BudgetSpentError, match="'budget-epsilon'"):
        run({"noise-multiplier": 0.5}, Budget(0.01, DELTA))


def test_rounds_in_which_everybody_fails_are_accounted_too() -> None:
    records: list[RoundRecord] = []
    built = registry.build("dp-fedavg", {"clients-per-round": 8, "noise-multiplier": 3})
    strategy = FederatedStrategy(built, RoundRules(), 7, observers=[records.append])
    with pytest.raises(StrategyError, match="no client gave a good reply"):
        strategy.start(InlineGrid.of(Clients(broken=LOST).app(), 2), wire.array_record(dict(MODEL)), num_rounds=9)
    assert Ledger.of(strategy.model.states.ledger).rounds == len(records) - 1 == 3
