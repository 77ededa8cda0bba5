"""Whom a round draws under privacy: nobody can foresee it in a deployment, and no request betrays it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from flwr.app import Message

from simulation.inline import InlineGrid
from strategies import registry, wire
from strategies.census import Census
from strategies.federated import FederatedStrategy
from strategies.options import Option
from strategies.population import ClientInfo
from strategies.privacy.accounting import Release, epsilons
from strategies.records import RoundRecord
from strategies.terms import RoundRules
from tests.strategies import toy_federation as toy

ROUNDS = 12
CYCLIC: dict[str, Option] = {"selection": "cyclic", "pass-rounds": 3}
Cohorts = list[tuple[str, ...]]


@dataclass
class Listening(InlineGrid):
    """Keeps the settings of each request to train."""

    heard: list[dict[str, Any]] = field(default_factory=list)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        self.heard += [dict(wire.config_of(one)) for one in messages if one.metadata.message_type == "train"]
        return super().push_messages(messages)


def train(name: str, options: dict[str, Option], seed: int = 7) -> tuple[Cohorts, list[dict[str, Any]]]:
    """Return the cohort of each round, and the settings of all requests."""
    records: list[RoundRecord] = []
    composition = registry.build(name, {"clients-per-round": 2, **options})
    rules = RoundRules(limits=toy.LIMITS, max_skipped_rounds=ROUNDS)
    strategy = FederatedStrategy(composition, rules, seed, observers=[records.append])
    grid = Listening(toy.app(), InlineGrid.of(toy.app(), 2).node_configs)
    strategy.start(grid, toy.start_arrays(), num_rounds=ROUNDS)
    return [record.selected for record in records[1:]], grid.heard


def foreseen(name: str, options: dict[str, Option], seed: int = 7) -> Cohorts:
    """What each node can compute, for it knows the run's config, its seed among it, and guesses who is there."""
    sampler = registry.build(name, {"clients-per-round": 2, **options}).sampler
    clients = [ClientInfo(client, 10 * (int(client) + 1)) for client in toy.IDS]
    return [tuple(sampler.sample(number, clients, seed)) for number in range(1, ROUNDS + 1)]


SECRET = [
    ("dp-fedavg", {"selection": "poisson"}),
    ("fedavg", {"selection": "uniform", "privacy": "dp-fedavg"}),
    ("dp-fedavg-adaptive", {"noise-multiplier": 0.1}),
]
FORESEEABLE = [
    ("fedavg", {"selection": "poisson"}),
    ("fedavg", {"selection": "uniform"}),
    ("local-dp", {"selection": "uniform"}),  # pays for who took part
    ("dp-ftrl", CYCLIC),
]


@pytest.mark.parametrize(("name", "options"), SECRET)
def test_in_a_deployment_nobody_can_foresee_whom_privacy_counts_on_to_be_secret(
    name: str, options: dict[str, Option]
) -> None:
    """Two cohorts of 2 of 6 clients, or of 2 on average, agree with at most 1/3: all of 12 rounds with 2e-6."""
    first, _ = train(name, options)
    again, _ = train(name, options)
    assert first != foreseen(name, options) and first != again


@pytest.mark.parametrize(("name", "options"), SECRET)
def test_a_simulation_draws_by_the_seed(name: str, options: dict[str, Option], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Census, "simulated", True)
    assert train(name, options)[0] == foreseen(name, options)


@pytest.mark.parametrize(("name", "options"), FORESEEABLE)
def test_what_need_not_be_secret_can_be_repeated_in_a_deployment_too(name: str, options: dict[str, Option]) -> None:
    assert train(name, options)[0] == foreseen(name, options)


@pytest.mark.parametrize(("name", "options"), SECRET)
def test_the_sampler_draws_as_it_does_by_any_seed(
    name: str, options: dict[str, Option], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So what is proved of the samplers' probabilities holds, as for all seeds."""
    monkeypatch.setattr("strategies.selection.secret_seed", lambda: 2**127 + 5)
    assert train(name, options)[0] == foreseen(name, options, seed=2**127 + 5)


def test_five_releases_of_one_sample_cost_far_more_than_those_of_five() -> None:
    """The same five times is one Gaussian mechanism of sqrt(5) times less noise, on one sample."""
    five = epsilons({Release("poisson", 0.01, 1.0): 5}, 1e-5).tightest
    same = epsilons({Release("poisson", 0.01, 1 / math.sqrt(5)): 1}, 1e-5).tightest
    assert (five, same) == pytest.approx((0.3165, 4.1971), rel=1e-3)


OWN = {wire.ROUND, wire.CLIENTS, wire.SEEDS}


def without_its_own(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in OWN}


def seeds_of(heard: Sequence[dict[str, Any]]) -> dict[tuple[int, str], int]:
    """The seed that each client got in each round."""
    return {
        (settings[wire.ROUND], client): seed
        for settings in heard
        for client, seed in zip(settings[wire.CLIENTS], settings[wire.SEEDS], strict=True)
    }


@pytest.mark.parametrize("simulated", [True, False])
def test_a_request_says_nothing_of_who_else_is_asked_nor_how_many(
    simulated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that a node gets is the same whatever the cohort, and its clients' seeds are what they are in any."""
    monkeypatch.setattr(Census, "simulated", simulated)
    cohorts, heard = train("dp-fedavg", {"selection": "poisson"})
    assert len({len(cohort) for cohort in cohorts if cohort}) > 1
    assert all(without_its_own(settings) == without_its_own(heard[0]) for settings in heard)
    where_all_are_asked = seeds_of(train("fedavg", {"clients-per-round": 0})[1])
    assert seeds_of(heard).items() <= where_all_are_asked.items()
