"""DP-FTRL: what a round and a pass release and cost, in a federation too, and what it must not be combined with."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pytest

from simulation.inline import InlineGrid
from strategies import registry, wire
from strategies.aggregators import WeightedMean
from strategies.errors import StrategyError
from strategies.federated import FederatedStrategy
from strategies.layout import ModelLayout
from strategies.options import Option
from strategies.privacy.budget import Budget, BudgetSpentError
from strategies.privacy.dp_ftrl import DPFTRL
from strategies.privacy.ledger import Ledger
from strategies.privacy.matrix_factorization import BandedNoise
from strategies.privacy.tree import TreeNoise
from strategies.records import RoundRecord
from strategies.registry import STRATEGIES, build
from strategies.samplers import CyclicSampler, PoissonSampler
from strategies.server_model import ServerModel
from strategies.terms import RoundRules
from strategies.updates import FloatVector, State, Update
from tests.strategies.privacy.test_accounting import gaussian_epsilon
from tests.strategies.privacy.test_private_rounds import LOST, MODEL, Clients

LAYOUT = ModelLayout(("w",), ((2,),), ("float32",))
KEYS: dict[str, Option] = {"clients-per-round": 2, "pass-rounds": 4}
FREE, ALL = Budget(), Clients()
KINDS = [TreeNoise(4), BandedNoise(4), BandedNoise(4, 2)]


def released(
    rule: DPFTRL, round: int, deltas: list[tuple[float, float]], state: State, seed: int = 0
) -> tuple[FloatVector, State]:
    fold = WeightedMean("uniform").start(2)
    for delta in deltas:
        fold.add(rule.clip(Update("a", np.array(delta, np.float32), 1000.0), rule.config(state), LAYOUT))
    return rule.finish(round, fold, [{} for _ in deltas], state, np.random.default_rng([seed, round]))


@pytest.mark.parametrize("kind", KINDS)
def test_without_noise_it_is_the_clipped_sum_by_the_expected_number_of_clients(kind: TreeNoise | BandedNoise) -> None:
    """By hand: (3, 4) is shortened to (0.6, 0.8), (0.5, 0) stays; 4 are expected, 2 have come."""
    rule, state = DPFTRL(4, 0.0, correlated=kind), {}
    for round in range(1, 7):
        delta, state = released(rule, round, [(3.0, 4.0), (0.5, 0.0)], state)
        assert delta.tolist() == pytest.approx([1.1 / 4, 0.8 / 4], abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("came", [0, 1, 9])
def test_the_noise_is_that_of_the_correlation_however_many_come(kind: TreeNoise | BandedNoise, came: int) -> None:
    rule, state, theirs = DPFTRL(4, 1.5, 2.0, correlated=kind), {}, {}
    for round in range(1, 7):
        delta, state = released(rule, round, [(0.25, -0.5)] * came, state)
        noise, theirs = kind.next(round, 2, theirs, np.random.default_rng([0, round]))
        expected = (came * np.array([0.25, -0.5]) + 1.5 * 2.0 * noise) / 4
        np.testing.assert_allclose(delta, expected, rtol=1e-6, atol=1e-7)


def test_much_memory_is_told_before_it_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        DPFTRL(4, correlated=BandedNoise(1000, 80)).init(1_663_370)
        assert not caplog.messages
        DPFTRL(4, correlated=BandedNoise(1000)).init(1_663_370)
    assert caplog.messages[0].startswith("The noise that is remembered takes up to 13.3 GB of the server's memory")


@pytest.mark.parametrize("kind", KINDS)
def test_the_noise_of_a_larger_cohort_is_as_many_times_less(kind: TreeNoise | BandedNoise) -> None:
    own, larger = (DPFTRL(4, 1.5, correlated=kind, noise_cohort_size=size) for size in (0, 12))
    (noise, _), (less, _) = (released(rule, 1, [], {}) for rule in (own, larger))
    np.testing.assert_allclose(less, noise / 3, rtol=1e-6)
    assert larger.told({})["noise-deviation"] == pytest.approx(own.told({})["noise-deviation"] / 3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_noise_on_prefix_sums_has_the_deviation_that_is_accounted(kind: TreeNoise | BandedNoise) -> None:
    """Of 1e5 numbers; a fixed seed, three deviations of the estimate being 0.7 %."""
    rule, state, model = DPFTRL(4, 1.5, 2.0, correlated=kind), {}, np.zeros(100_000)
    for round in range(1, 4):
        told = rule.told(state)["noise-deviation"]
        delta, state = rule.finish(
            round, WeightedMean("uniform").start(100_000), [], state, np.random.default_rng([5, round])
        )
        model += delta
        assert np.std(delta) == pytest.approx(told, rel=0.01)
    if isinstance(kind, TreeNoise):  # 3 = 11 in binary: two nodes
        assert np.std(model) == pytest.approx(math.sqrt(2) * 1.5 * 2.0 / 4, rel=0.01)


def check_passes(rule: DPFTRL, multiplier: float) -> None:
    """Each of three passes is paid as one Gaussian mechanism of this multiplier, when it begins."""
    rounds = rule.correlated.rounds
    for round in range(1, 3 * rounds + 1):
        release = rule.release(round, CyclicSampler(2, rounds), round % 2 * 10)
        if (round - 1) % rounds:
            assert release is None
        else:
            assert release is not None and (release.sampling, release.rate) == ("cyclic", 1.0)
            assert release.noise_multiplier == pytest.approx(multiplier)


@pytest.mark.parametrize(
    ("kind", "multiplier"),
    [
        (TreeNoise(1), 2.0),
        (TreeNoise(4), 2.0 / math.sqrt(3)),
        (TreeNoise(7), 2.0 / math.sqrt(3)),
        (BandedNoise(7), 2.0),
    ],
)
def test_a_pass_is_paid_in_its_first_round_whoever_is_there(kind: TreeNoise | BandedNoise, multiplier: float) -> None:
    check_passes(DPFTRL(2, 2.0, correlated=kind), multiplier)


@pytest.mark.parametrize("sampler", [PoissonSampler(2), CyclicSampler(2, 5)])
def test_no_pass_is_paid_of_a_sampler_that_keeps_none(sampler: PoissonSampler | CyclicSampler) -> None:
    with pytest.raises(StrategyError, match="asks a client only once in a pass of 4 rounds"):
        DPFTRL(2, 1.0, correlated=TreeNoise(4)).release(1, sampler, 8)


def run(
    strategy: str,
    options: Mapping[str, Option] = KEYS,
    budget: Budget = FREE,
    clients: Clients = ALL,
    **how: int,
) -> tuple[np.ndarray, list[RoundRecord], ServerModel]:
    records: list[RoundRecord] = []
    rules = RoundRules(clients_per_message=how.get("packed", 0), budget=budget, max_skipped_rounds=100)
    built = FederatedStrategy(registry.build(strategy, options), rules, 7, observers=[records.append])
    grid = InlineGrid.of(clients.app(), how.get("nodes", 2))
    result = built.start(grid, wire.array_record(dict(MODEL)), num_rounds=how.get("rounds", 10))
    return wire.read_weights(result.arrays).flat, records[1:], built.model


@pytest.mark.parametrize("strategy", ["dp-ftrl", "dp-mf"])
def test_packing_and_nodes_change_no_bit_and_nobody_is_asked_twice_in_a_pass(strategy: str) -> None:
    packed, records, model = run(strategy)
    single, others, other = run(strategy, nodes=3, packed=1)
    assert packed.tobytes() == single.tobytes()
    assert [record.accepted for record in records] == [record.accepted for record in others]
    assert {name: array.tolist() for name, array in model.states.privacy.items()} == {
        name: array.tolist() for name, array in other.states.privacy.items()
    }
    for start in (0, 4):
        asked = [client for record in records[start : start + 4] for client in record.selected]
        assert sorted(asked) == sorted(set(asked)) == list("01234567")


@pytest.mark.parametrize("strategy", ["dp-ftrl", "dp-mf"])
def test_rounds_of_which_nothing_good_came_release_noise_alone(strategy: str) -> None:
    failed, records, _ = run(strategy, clients=Clients(broken=LOST))
    assert len(records) == 10 and not any(record.accepted or record.skipped for record in records)
    assert np.all(failed != 0)


def test_a_run_pays_its_passes_as_gaussian_mechanisms_and_ends_before_the_one_that_would_exceed() -> None:
    """Three passes of multiplier 6 / sqrt(3) each, by the closed form; 14 rounds are three passes and a half."""
    delta, multiplier = 1e-5, 6 / math.sqrt(3)
    options = {**KEYS, "noise-multiplier": 6.0}
    after = [gaussian_epsilon(math.sqrt(passes) / multiplier, delta) for passes in (1, 2, 3, 4)]
    _, records, model = run("dp-ftrl", options, Budget(delta=delta), rounds=14)
    ledger = Ledger.of(model.states.ledger)
    assert len(records) == 14 and ledger.rounds == 4
    assert ledger.epsilons(delta).pld == pytest.approx(after[3], rel=1e-3)
    _, records, model = run("dp-ftrl", options, Budget(after[1] * 1.001, delta), rounds=14)
    assert len(records) == 8 and Ledger.of(model.states.ledger).rounds == 2
    with pytest.raises(BudgetSpentError, match="budget is spent"):
        run("dp-ftrl", options, Budget(after[0] * 0.999, delta))


def test_the_same_noise_multiplier_costs_less_where_a_pass_is_one_column() -> None:
    tree, banded = (run(strategy, {**KEYS, "noise-multiplier": 6.0}, rounds=4)[2] for strategy in ("dp-ftrl", "dp-mf"))
    costs = [Ledger.of(model.states.ledger).epsilons(1e-5).pld for model in (tree, banded)]
    assert costs == pytest.approx([gaussian_epsilon(math.sqrt(3) / 6, 1e-5), gaussian_epsilon(1 / 6, 1e-5)], rel=1e-3)


def test_a_deployment_takes_its_noise_from_the_system_and_remembers_it() -> None:
    deployed = Clients(properties={})
    first, second = (run("dp-ftrl", clients=deployed, rounds=3) for _ in range(2))
    assert not np.any(first[0] == second[0])
    assert {"round", "node-0", "node-1"} == set(first[2].states.privacy)


def test_the_strategies_from_their_keys() -> None:
    options: dict[str, Option] = {
        **{"clients-per-round": 10, "num-clients": 50, "noise-multiplier": 1.1, "clipping-norm": 0.3},
        **{"per-layer-clipping": True, "mf-bands": 3},
    }
    tree, banded = (build(name, options) for name in ("dp-ftrl", "dp-mf"))
    assert tree.sampler == banded.sampler == CyclicSampler(10, 5)
    assert tree.privacy == DPFTRL(10, 1.1, 0.3, per_layer=True, correlated=TreeNoise(5))
    assert banded.privacy == DPFTRL(10, 1.1, 0.3, per_layer=True, correlated=BandedNoise(5, 3))
    assert tree.takes_partial_sums and tree.privacy.unconditional
    momentum = build("fedavgm", {**KEYS, "privacy": "dp-mf", "selection": "cyclic"})
    assert momentum.privacy == DPFTRL(2, correlated=BandedNoise(4)) and momentum.aggregator == WeightedMean("uniform")


UNSOUND: list[tuple[str, dict[str, Option], str]] = [
    ("fedavg", {}, "DPFTRL needs a cohort in which each client takes part at most once in a pass"),
    ("fedavg", {"selection": "poisson"}, "DPFTRL needs a cohort in which each client takes part at most once"),
    ("fedavg", {"selection": "weighted"}, "DPFTRL needs a cohort in which each client takes part at most once"),
    ("fedbuff", {"selection": "cyclic"}, "DPFTRL needs a cohort .* which Buffered takes away"),
    ("fedavg", {"selection": "cyclic", "weighting": "examples"}, "DPFTRL needs every client to count the same"),
    ("median", {"selection": "cyclic"}, "DPFTRL needs an aggregate that is a weighted sum"),
    ("scaffold", {"selection": "cyclic"}, "DPFTRL needs a round of which the server learns nothing but"),
]


@pytest.mark.parametrize("privacy", ["dp-ftrl", "dp-mf"])
@pytest.mark.parametrize(("strategy", "options", "sentence"), UNSOUND)
def test_unsound_combinations_are_refused_with_the_reason(
    privacy: str, strategy: str, options: dict[str, Option], sentence: str
) -> None:
    build(strategy, {**KEYS, **options})  # is fine by itself
    with pytest.raises(StrategyError, match=sentence):
        build(strategy, {**KEYS, **options, "privacy": privacy})


@pytest.mark.parametrize("name", sorted(name for name in STRATEGIES if name.startswith("dp-fedavg")))
def test_mechanisms_that_count_on_sampling_refuse_cyclic_selection(name: str) -> None:
    with pytest.raises(StrategyError, match=r"needs a cohort whose sampling probabilities are known.*'uniform'"):
        build("fedavg", {**KEYS, "clients-per-round": 20, "privacy": name, "selection": "cyclic"})


def test_who_is_asked_for_too_many_is_refused() -> None:
    with pytest.raises(StrategyError, match=r"'over-selection' is 1\.5, but with 'selection' 'cyclic'"):
        build("dp-ftrl", {**KEYS, "over-selection": 1.5})


@pytest.mark.parametrize("kind", KINDS)
def test_a_release_can_be_repeated_from_its_state(kind: TreeNoise | BandedNoise) -> None:
    """As a resumed simulation does: the state before round 6, as arrays, and the same noise."""
    rule, deltas = DPFTRL(4, 1.5, correlated=kind), []
    states: list[State] = [{}]
    for round in range(1, 9):
        delta, state = released(rule, round, [(0.5, 0.5)], states[-1])
        deltas.append(delta.tobytes())
        states.append(state)
    copied = {name: array.copy() for name, array in states[5].items()}
    again, _ = released(rule, 6, [(0.5, 0.5)], copied)
    assert again.tobytes() == deltas[5]
    assert all(later != earlier for earlier, later in pairwise(deltas))
