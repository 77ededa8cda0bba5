"""What a run tells of its privacy: the tighter epsilon, the noise of the round, and what that covers in a sentence."""

import json
import math
from dataclasses import replace

import dp_accounting as dp
import numpy as np
import pytest
from flwr.app import ConfigRecord
from hypothesis import given
from hypothesis import strategies as st

from app import plain_json
from simulation.inline import InlineGrid
from strategies import registry, wire
from strategies.errors import StrategyError
from strategies.federated import FederatedStrategy
from strategies.options import Option
from strategies.privacy.accounting import ACCOUNTANTS, SAMPLINGS, Release
from strategies.privacy.budget import Budget
from strategies.privacy.ledger import Ledger
from strategies.privacy.spending import Spending, warnings
from strategies.records import RoundRecord
from strategies.terms import RoundRules
from strategies.updates import State
from tests.strategies.privacy.test_private_rounds import MODEL, Clients

DELTA = 1e-3
FREE, SIMULATED_ONES = Budget(delta=DELTA), Clients()
NOISE = {"clipping-norm": 0.5, "noise-multiplier": 2.0, "noise-deviation": 0.25}


def ledger(*releases: tuple[Release, int]) -> State:
    state = Ledger()
    for release, rounds in releases:
        state = state.after(release, rounds)
    return state.state()


def spent(*releases: tuple[Release, int], budget: float = 0.0, caveat: str = "") -> Spending:
    found = Spending.of(ledger(*releases), Budget(budget, DELTA), NOISE, caveat)
    assert found is not None
    return found


def test_the_tighter_of_both_accountants_is_told_and_named() -> None:
    """The table's row of 50 of 190 clients: 5.59 by RDP, 4.91 by PLD; of cohorts of a fixed size only RDP is known."""
    poisson = spent((Release("poisson", 50 / 190, 2.0), 100))
    assert poisson.epsilon == pytest.approx(4.908, abs=1e-3) and poisson.accountant == "PLD"
    assert (poisson.adjacency, poisson.sampling, poisson.releases) == ("add or remove one", "poisson", 100)
    fixed = spent((Release("fixed", 50 / 190, 4.0), 100))
    library = dp.rdp.RdpAccountant(neighboring_relation=dp.NeighboringRelation.REPLACE_ONE)
    library.compose(dp.SampledWithoutReplacementDpEvent(190, 50, dp.GaussianDpEvent(2.0)), 100)
    assert fixed.epsilon == pytest.approx(library.get_epsilon(DELTA), rel=1e-6) and fixed.accountant == "RDP"
    assert fixed.adjacency == "replace one"


def test_of_an_empty_ledger_there_is_nothing_to_tell() -> None:
    assert Spending.of({}, Budget(1.0, DELTA), NOISE) is None


def test_what_is_left_of_the_budget() -> None:
    release = Release("poisson", 0.1, 2.0)
    assert spent((release, 3)).left is None
    found = spent((release, 3), budget=2.0)
    assert found.left is not None and found.left + found.epsilon == pytest.approx(2.0)


def test_the_largest_rate_is_told() -> None:
    found = spent(
        (Release("poisson", 0.1, 2.0), 3), (Release("poisson", 0.3, 2.0), 1), (Release("poisson", 0.2, 2.0), 1)
    )
    assert (found.rate, found.releases) == (0.3, 5)
    assert "draws each client with probability at most 0.3, independently" in found.meaning
    assert "the models of all 5 rounds together" in found.meaning


def test_what_a_guarantee_covers_by_the_way_of_sampling() -> None:
    none = spent((Release("none", 1.0, 9.0), 2)).meaning
    assert "assumes nothing of who takes part" in none and "delta 0.001, add or remove one" in none
    fixed, poisson = (spent((Release(kind, 0.2, 9.0), 2)).meaning for kind in ("fixed", "poisson"))
    assert "a fixed number of clients, each with" in fixed and "independently" in poisson
    for sampled in (fixed, poisson):
        assert "that nobody sees whom, and that all may know how many clients there are" in sampled
    local = spent((Release("local", 1.0, 9.0), 2)).meaning
    assert local.startswith("User-level local differential privacy")
    assert "trusts the client, and whoever starts the run" in local


def test_neither_no_noise_nor_the_noise_of_others_is_called_privacy() -> None:
    free = spent((Release("poisson", 0.1, 0.0), 1), caveat="simulates the noise of a cohort of 9")
    assert free.epsilon == math.inf and free.meaning.startswith("No privacy")
    assert json.loads(plain_json.dumps(free.to_json()))["caveat"] == "has no privacy"
    other = spent((Release("poisson", 0.1, 1.0), 1), caveat="simulates the noise of a cohort of 9; this run is none")
    assert other.meaning.startswith(
        "The run simulates the noise of a cohort of 9; this run is none. Of that cohort it "
    )


@given(
    st.builds(
        Spending,
        epsilon=st.floats(0) | st.just(math.inf),
        delta=st.floats(1e-12, 0.5),
        accountant=st.sampled_from(ACCOUNTANTS),
        adjacency=st.sampled_from(("add or remove one", "replace one")),
        sampling=st.sampled_from(SAMPLINGS),
        rate=st.floats(0, 1),
        releases=st.integers(1, 10**6),
        left=st.none() | st.floats(0, 1e3),
        noise=st.dictionaries(st.sampled_from(sorted(NOISE)), st.floats(0, 1e6)),
        caveat=st.sampled_from(("", "has no privacy")),
    )
)
def test_a_line_of_metrics_can_be_read_back(found: Spending) -> None:
    assert Spending.from_json(json.loads(plain_json.dumps(found.to_json()))) == found


@pytest.mark.parametrize("change", [{"epsilon": "much"}, {"accountant": "mine"}, {"sampling": 3}, {"releases": None}])
def test_a_line_that_is_none_is_refused(change: dict[str, object]) -> None:
    line = {**spent((Release("poisson", 0.1, 1.0), 1)).to_json(), **change}
    with pytest.raises((ValueError, TypeError)):
        Spending.from_json(line)


def test_warnings_by_hand() -> None:
    assert list(warnings(1.0, 1e-5, 1000)) == []
    assert next(warnings(1.0, 1e-3, 1000)).startswith("The key 'budget-delta' is 0.001, not below 1 / population = 0.0")
    assert next(warnings(0.0, 1e-5, 1000)).startswith("No privacy: the key 'noise-multiplier' is 0")


# In a run.


def run(
    options: dict[str, Option], budget: Budget = FREE, clients: Clients = SIMULATED_ONES, rounds: int = 3
) -> list[RoundRecord]:
    records: list[RoundRecord] = []
    built = registry.build("dp-fedavg", {"clients-per-round": 4, "clipping-norm": 0.5, **options})
    strategy = FederatedStrategy(built, RoundRules(budget=budget), 7, observers=[records.append])
    strategy.start(InlineGrid.of(clients.app(), 2), wire.array_record(dict(MODEL)), num_rounds=rounds)
    return records


def test_each_round_tells_what_was_spent_and_its_noise() -> None:
    first, *records = run({"noise-multiplier": 3.0}, Budget(20.0, DELTA))
    assert first.privacy is None
    for number, record in enumerate(records, start=1):
        told = record.privacy
        assert told is not None and told.accountant == "PLD" and told.releases == number and told.rate == 0.5
        assert told == replace(spent((Release("poisson", 0.5, 3.0), number), budget=20.0), noise=told.noise)
        assert told.noise == {"clipping-norm": 0.5, "noise-multiplier": 3.0, "noise-deviation": 3.0 * 0.5 / 4}


def test_the_adapted_norm_is_that_of_the_round() -> None:
    """Without noise: all updates are shorter than 10, so that it falls by exp(-0.2 / 2) from round to round."""
    records: list[RoundRecord] = []
    options: dict[str, Option] = {"clients-per-round": 8, "clipping-norm": 10.0, "noise-multiplier": 0.0}
    strategy = FederatedStrategy(registry.build("dp-fedavg-adaptive", options), observers=[records.append])
    strategy.start(InlineGrid.of(Clients().app(), 2), wire.array_record(dict(MODEL)), num_rounds=3)
    norms = [record.privacy.noise["clipping-norm"] for record in records if record.privacy]
    assert norms == pytest.approx([10 * math.exp(-0.1 * number) for number in range(3)])
    assert {record.privacy.caveat for record in records if record.privacy} == {"has no privacy"}


def test_told_epsilon_and_the_stop_agree(caplog: pytest.LogCaptureFixture) -> None:
    """The budget lies between PLD and RDP of the fourth round, which by RDP alone would not begin."""
    release = Release("poisson", 0.5, 3.0)
    fourth, by_rdp = spent((release, 4)).epsilon, Ledger().after(release, 4).epsilon(DELTA)
    budget = Budget((fourth + by_rdp) / 2, DELTA)
    caplog.set_level("INFO")
    records = run({"noise-multiplier": 3.0}, budget, rounds=50)
    told = [record.privacy for record in records if record.privacy]
    assert len(told) >= 4 and told[-1].left is not None and told[-1].left >= 0
    assert spent((release, len(told) + 1)).epsilon > budget.epsilon
    assert f"epsilon is {told[-1].epsilon:.4g} at delta" in caplog.text  # the sentence with which the run ends
    assert caplog.messages[-1] == told[-1].meaning


def test_the_noise_of_a_cohort_that_is_not_there_is_labelled_and_refused_where_clients_are_real() -> None:
    options: dict[str, Option] = {"noise-multiplier": 3.0, "noise-cohort-size": 400}
    told = run(options)[-1].privacy
    assert told is not None and told.epsilon == run({"noise-multiplier": 3.0})[-1].privacy.epsilon  # type: ignore[union-attr]
    assert told.caveat == "simulates the noise of a cohort of 400; this run itself is not private"
    assert told.noise["noise-deviation"] == pytest.approx(3.0 * 0.5 / 400)
    with pytest.raises(StrategyError) as caught:
        run(options, clients=Clients(properties={}))
    assert str(caught.value) == (
        "The noise is that of 100 times as many clients as take part ('noise-cohort-size'), so that the run is refused "
        "where clients are real, who need all of their own: leave it at 0, or simulate."
    )


def test_a_single_round_of_real_clients_with_the_noise_of_others_is_refused_too() -> None:
    built = registry.build("dp-fedavg", {"clients-per-round": 4, "noise-multiplier": 3.0, "noise-cohort-size": 400})
    arrays, grid = wire.array_record(dict(MODEL)), InlineGrid.of(Clients(properties={}).app(), 2)
    with pytest.raises(StrategyError, match="100 times as many clients"):
        FederatedStrategy(built).configure_train(1, arrays, ConfigRecord(), grid)


@pytest.mark.parametrize(
    ("options", "delta", "warned"),
    [
        ({"noise-multiplier": 3.0}, 1e-3, ""),
        ({"noise-multiplier": 3.0}, 0.2, "The key 'budget-delta' is 0.2, not below 1 / population = 0.125"),
        ({"noise-multiplier": 3.0, "noise-cohort-size": 400}, 0.01, "not below 1 / population = 0.00125"),
        ({"noise-multiplier": 0.0}, 1e-3, "No privacy: the key 'noise-multiplier' is 0"),
    ],
)
def test_what_is_no_privacy_is_said_at_the_start(
    options: dict[str, Option], delta: float, warned: str, caplog: pytest.LogCaptureFixture
) -> None:
    run(options, Budget(delta=delta), rounds=1)
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert (not said) if not warned else (len(said) == 1 and warned in said[0])


def test_the_simulated_noise_of_the_mean_in_a_run() -> None:
    """1e5 draws within 1 %, which is 4.5 deviations: what comes out of the server, not what is told."""
    built = registry.build(
        "dp-fedavg", {"clients-per-round": 4, "clipping-norm": 0.5, "noise-multiplier": 1.7, "noise-cohort-size": 400}
    )
    still = Clients(lambda client, weights: weights)
    strategy = FederatedStrategy(built, seed=3)
    model = wire.array_record({"w": np.zeros(100_000, np.float32)})
    result = strategy.start(InlineGrid.of(still.app(), 2), model, num_rounds=1)
    noise = wire.read_weights(result.arrays).flat.astype(np.float64)
    assert np.std(noise) == pytest.approx(1.7 * 0.5 / 400, rel=0.01)
