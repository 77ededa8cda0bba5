"""FedProx: the adaptive mu of the paper, its loss in any order and packing, and partial work in a closed form."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import ConfigRecord, ConfigRecordValues, Message, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from simulation.inline import InlineGrid
from strategies import registry, wire
from strategies.admission import Limits
from strategies.composition import Composition
from strategies.errors import StrategyError
from strategies.federated import FederatedStrategy
from strategies.fedprox import PATIENCE, AdaptiveMu, FedProx
from strategies.fixed_point import MAX_WEIGHT, FixedPointSum
from strategies.records import RoundRecord
from strategies.updates import PartialSum, State, Update
from tests.strategies.quadratics import THREE, Vector, app, flat, local_sgd, start_arrays

RATE = 0.1


def update(client: str, loss: float, examples: float = 1.0) -> Update:
    return Update(client, np.zeros(3, np.float32), 1.0, {"loss": loss, "num-examples": examples})


def after(rule: FedProx, state: State, *losses: float) -> State:
    """The state after rounds of one client with these losses."""
    for loss in losses:
        observation = rule.start(state, {})
        observation.add(update("a", loss))
        state = observation.state(1)
    return state


def mus(rule: FedProx, *losses: float) -> list[float]:
    """The mu before each of these rounds, and after the last."""
    state = rule.init(3)
    found = [rule.config(state)["proximal-mu"]]
    for loss in losses:
        state = after(rule, state, loss)
        found.append(rule.config(state)["proximal-mu"])
    return found


# Mu.


def test_mu_is_sent_as_it_is_and_nothing_is_remembered() -> None:
    rule = FedProx(0.5)
    assert (rule.config(rule.init(3)), rule.init(3), rule.arrays({})) == ({"proximal-mu": 0.5}, {}, {})
    assert rule.start({}, {}).state(3) == {}


def test_it_rises_with_the_loss_and_falls_after_five_better_rounds() -> None:
    rule = FedProx(0.0, adaptive=True)
    assert mus(rule, 3.0, 4.0, 5.0) == [0.0, 0.0, 0.1, 0.2]
    assert mus(rule, 3.0, 4.0, *(3.9, 3.8, 3.7, 3.6, 3.5)) == [0.0, 0.0, 0.1, 0.1, 0.1, 0.1, 0.1, 0.0]


def test_a_worse_or_an_equal_round_between_better_ones_starts_the_count_again() -> None:
    rule = FedProx(1.0, adaptive=True)
    better = [0.9, 0.8, 0.7, 0.6]
    assert mus(rule, 1.0, *better, 0.6, *(0.5, 0.4, 0.3, 0.2))[-1] == 1.0
    assert mus(rule, 1.0, *better, 0.7, *(0.5, 0.4, 0.3, 0.2))[-1] == 1.1
    assert mus(rule, 1.0, *better, 0.5)[-1] == 0.9


def test_it_never_falls_below_zero() -> None:
    losses = [float(loss) for loss in range(100, 0, -1)]
    assert mus(FedProx(0.15, adaptive=True), *losses)[-1] == 0.0


def test_ten_steps_up_and_ten_down_lead_back_exactly() -> None:
    up = [float(loss) for loss in range(11)]
    down = [10.0 - 0.1 * (count + 1) for count in range(10 * PATIENCE)]
    found = mus(FedProx(0.3, adaptive=True), *up, *down)
    assert (found[11], found[-1]) == (1.3, 0.3)


@pytest.mark.parametrize("loss", [math.nan, math.inf, 1e300])
def test_a_loss_that_is_no_loss_changes_nothing(loss: float) -> None:
    rule = FedProx(1.0, adaptive=True)
    before = after(rule, rule.init(3), 2.0, 1.0)
    assert AdaptiveMu.from_state(after(rule, before, loss)) == AdaptiveMu.from_state(before)


def test_the_state_is_arrays_that_can_be_saved() -> None:
    state = AdaptiveMu(0.3, 1.5, 2).to_state()
    assert all(isinstance(array, np.ndarray) and array.dtype != object for array in state.values())
    assert AdaptiveMu.from_state(state) == AdaptiveMu(0.3, 1.5, 2)


# The loss.


def test_the_loss_is_the_mean_over_the_examples() -> None:
    rule = FedProx(0.0, adaptive=True)
    observation = rule.start(rule.init(3), {})
    for one in (update("a", 1.0, 10), update("b", 4.0, 30), update("c", math.nan, 60), update("d", 9.0, math.nan)):
        observation.check(one)
        observation.add(one)
    assert AdaptiveMu.from_state(observation.state(4)).loss == 3.25


def test_examples_beyond_those_that_are_believed_weigh_nothing() -> None:
    """Under uniform weights a node's sum says 1 of each client, so that admission has not seen what these claim."""
    rule = FedProx(0.0, adaptive=True)
    observation = rule.start(rule.init(3), wire.limits_record(Limits(100.0)))
    total = FixedPointSum(3)
    for _ in range(4):
        total.add(np.zeros(3, np.float32), 1.0)
    claims = {"a": (1.0, 100.0), "b": (9.0, 101.0), "c": (9.0, 1.7e308), "d": (9.0, 1.7e308)}
    metrics = {client: {"loss": loss, "num-examples": examples} for client, (loss, examples) in claims.items()}
    observation.merge(PartialSum(total, dict.fromkeys(claims, 1.0), metrics))
    assert AdaptiveMu.from_state(observation.state(4)).loss == 1.0


@pytest.mark.parametrize("settings", [{}, wire.limits_record(Limits(MAX_WEIGHT))])
def test_no_claim_of_examples_ends_the_run(settings: dict[str, ConfigRecordValues]) -> None:
    rule = FedProx(0.0, adaptive=True)
    observation = rule.start(rule.init(3), settings)
    for client in "abc":
        observation.add(update(client, 2.0, 1.7e308))
        observation.add(update(client, 2.0, MAX_WEIGHT))
    assert AdaptiveMu.from_state(observation.state(3)).loss == 2.0


numbers = st.tuples(st.floats(0, 100), st.integers(1, 10**6))


@given(st.lists(numbers, min_size=1, max_size=9), st.integers(0, 9), st.randoms())
def test_in_any_order_and_packing_the_loss_is_the_same_to_the_bit(
    clients: list[tuple[float, int]], packed: int, chance: random.Random
) -> None:
    rule = FedProx(0.0, adaptive=True)
    updates = [update(str(place), *client) for place, client in enumerate(clients)]
    singly, mixed = rule.start(rule.init(3), {}), rule.start(rule.init(3), {})
    for one in updates:
        singly.add(one)
    chance.shuffle(updates)
    total = FixedPointSum(3)
    for one in updates[:packed]:
        total.add(one.delta, 1.0)  # as under uniform weighting
    part = {one.client: one.metrics for one in updates[:packed]}
    mixed.merge(PartialSum(total, dict.fromkeys(part, 1.0), part))
    for one in updates[packed:]:
        mixed.add(one)
    assert mixed.state(9)["loss"].tobytes() == singly.state(9)["loss"].tobytes()


# The options.


def test_the_options() -> None:
    assert FedProx.of({}) == FedProx(0.01, adaptive=False)
    assert FedProx.of({"proximal-mu": 1, "adaptive-mu": True}) == FedProx(1.0, adaptive=True)


@pytest.mark.parametrize("mu", [-0.1, -1e-300, math.inf, math.nan])
def test_a_mu_that_cannot_be_is_refused(mu: float) -> None:
    with pytest.raises(StrategyError, match=f"The key 'proximal-mu' is {mu}, but must be a finite number, 0 or more"):
        FedProx(mu)


# In a federation.


class PartialWork(InlineGrid):
    """Nodes whose clients are asked for a share of their steps, as a simulated world with stragglers does."""

    shares: Mapping[str, float] = {}

    def _execute(self, message: Message) -> Message:
        config = wire.config_of(message)
        if wire.CLIENTS in config and message.metadata.message_type == "train":
            shares = [self.shares.get(client, 1.0) for client in wire.text_list(config, wire.CLIENTS)]
            content = {**message.content, wire.CONFIG: ConfigRecord({**config, wire.SHARES: shares})}
            message.content = RecordDict(content)
        return super()._execute(message)


def trained(
    composition: Composition,
    rounds: int = 3,
    shares: Mapping[str, float] | None = None,
    nodes: int = 2,
    rate: float = RATE,
) -> tuple[Vector, list[RoundRecord], FederatedStrategy]:
    records: list[RoundRecord] = []
    grid = PartialWork.of(app(THREE), nodes)
    grid.shares = shares or {}  # type: ignore[attr-defined]
    strategy = FederatedStrategy(
        composition, round_config=lambda number: {"learning-rate": rate}, observers=[records.append]
    )
    arrays = strategy.start(grid, wire.array_record(start_arrays()), num_rounds=rounds).arrays
    return flat(arrays.to_numpy_ndarrays()), records, strategy


def fedprox(**options: float | bool) -> Composition:
    return registry.build("fedprox", {key.replace("_", "-"): value for key, value in options.items()})


def by_hand(mu: float, rounds: int, shares: Mapping[str, float]) -> Vector:
    w, total = np.zeros(3), sum(one.examples for one in THREE.values())
    for _ in range(rounds):
        steps = {name: max(1, math.floor(one.steps * shares.get(name, 1.0))) for name, one in THREE.items()}
        local = {name: local_sgd(one, w, RATE, steps[name], mu) for name, one in THREE.items()}
        w = sum((THREE[name].examples / total * local[name] for name in THREE), np.zeros(3))
    return w


@pytest.mark.parametrize("shares", [{}, {"b": 0.5, "c": 0.1}])
@pytest.mark.parametrize("mu", [0.0, 0.5, 5.0])
def test_partial_work_counts_as_it_is(mu: float, shares: Mapping[str, float]) -> None:
    found, records, _ = trained(fedprox(proximal_mu=mu), shares=shares)
    np.testing.assert_allclose(found, by_hand(mu, 3, shares), atol=1e-6)
    assert [record.accepted for record in records[1:]] == [("a", "b", "c")] * 3
    assert all(not record.rejected for record in records)


def test_without_mu_it_is_fedavg_to_the_bit() -> None:
    plain, _, _ = trained(registry.build("fedavg", {}))
    assert trained(fedprox(proximal_mu=0.0))[0].tobytes() == plain.tobytes()
    assert trained(fedprox(proximal_mu=0.1))[0].tobytes() != plain.tobytes()


def test_mu_adapts_to_what_the_clients_report() -> None:
    """A small learning rate makes the loss fall in every round; after five falls mu is 0.1 lower."""
    _, records, strategy = trained(fedprox(proximal_mu=1.0, adaptive_mu=True), rounds=7, rate=0.01)
    losses = [record.train["loss"] for record in records[1:]]
    assert losses == sorted(losses, reverse=True)
    found = AdaptiveMu.from_state(strategy.model.states.objective)
    assert (found.mu, found.falls) == (0.9, 1)
    assert found.loss == pytest.approx(losses[-1])


def test_a_packed_round_of_uniform_weights_adapts_as_an_unpacked_one() -> None:
    rule = fedprox(proximal_mu=1.0, adaptive_mu=True)
    uniform = replace(rule, aggregator=replace(rule.aggregator, weighting="uniform"))  # type: ignore[type-var]
    ends = [trained(uniform, nodes=nodes)[2].model.states.objective for nodes in (1, 3)]
    assert ends[0]["loss"].tobytes() == ends[1]["loss"].tobytes()
