"""Cyclic selection: once in a pass, always as many rounds apart, whoever else is there."""

from __future__ import annotations

import logging
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from strategies.errors import StrategyError
from strategies.guarantees import Guarantees, Property
from strategies.options import Option
from strategies.population import ClientInfo
from strategies.samplers import CyclicSampler, KnownSampler, pass_rounds

CLIENTS = [ClientInfo(f"{number:02d}") for number in range(20)]
PINNED = [
    ["00", "07", "08", "09", "10", "15", "16", "18"],
    ["03", "06", "12", "13"],
    ["01", "02", "04", "05", "14", "19"],
    ["11", "17"],
]
present = st.lists(st.sets(st.integers(0, 19)), min_size=1, max_size=30)


def test_a_pass_is_pinned() -> None:
    """Another hash would move clients within a pass, and a run that resumes would ask some of them twice."""
    cohorts = [CyclicSampler(5, 4).sample(round, CLIENTS, 7) for round in range(1, 6)]
    assert cohorts[4] == cohorts[0]
    assert cohorts[:4] == PINNED
    assert sorted(client for cohort in cohorts[:4] for client in cohort) == [client.id for client in CLIENTS]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 9), st.integers(0, 2**63), present)
def test_a_client_takes_part_once_in_a_pass_at_most_and_always_a_pass_apart(
    rounds: int, seed: int, online: list[set[int]]
) -> None:
    """Whoever is there in a round: others that come and go move nobody."""
    sampler, taken = CyclicSampler(3, rounds), {}
    for round, here in enumerate(online, start=1):
        clients = [client for place, client in enumerate(CLIENTS) if place in here]
        cohort = sampler.sample(round, clients, seed)
        assert cohort == sorted(set(cohort)) and set(cohort) <= {client.id for client in clients}
        for client in cohort:
            taken.setdefault(client, []).append(round)
    for held in taken.values():
        assert len({round % rounds for round in held}) == 1
        assert all(later - earlier >= rounds for earlier, later in pairwise(held))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 9), st.integers(1, 40), st.sets(st.integers(0, 19)))
def test_who_takes_part_does_not_depend_on_who_else_is_there(rounds: int, round: int, here: set[int]) -> None:
    sampler = CyclicSampler(3, rounds)
    whole, some = (
        sampler.sample(round, clients, 5) for clients in (CLIENTS, [CLIENTS[place] for place in sorted(here)])
    )
    assert some == [client for client in whole if int(client) in here]


def test_slots_are_as_likely_and_differ_by_seed() -> None:
    """Of 10,000 clients in 8 slots; a right hash fails with a probability of 1e-4, and the seed is fixed."""
    many = [ClientInfo(f"client-{number}") for number in range(10_000)]
    ones, others = ([set(CyclicSampler(1, 8).sample(round, many, seed)) for round in range(1, 9)] for seed in (1, 2))
    for slots in (ones, others):
        sizes = [len(slot) for slot in slots]
        assert sum(sizes) == 10_000 and chisquare(sizes).pvalue > 1e-4
    both = [len(one & other) for one in ones for other in others]
    assert all(both) and chisquare(both).pvalue > 1e-4


def test_it_gives_bounded_participation_and_no_known_sampling() -> None:
    sampler = CyclicSampler(3, 4)
    assert sampler.guarantees == Guarantees(gives=frozenset({Property.BOUNDED_PARTICIPATION}))
    assert not isinstance(sampler, KnownSampler)
    assert (sampler.goal, sampler.cohort_size(12), sampler.cohort_size(13)) == (0, 3, 4)


@pytest.mark.parametrize(
    ("options", "rounds"),
    [
        ({"clients-per-round": 10, "num-clients": 50}, 5),
        ({"clients-per-round": 10, "num-clients": 51}, 6),
        ({"clients-per-round": 10, "num-clients": 50, "pass-rounds": 7}, 7),
        ({"clients-per-round": 10, "pass-rounds": 7}, 7),
        ({"clients-per-round": 50, "num-clients": 50}, 1),
    ],
)
def test_the_length_of_a_pass(options: dict[str, Option], rounds: int) -> None:
    assert pass_rounds(options) == rounds
    assert CyclicSampler.of(options) == CyclicSampler(int(options["clients-per-round"]), rounds)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"clients-per-round": 10}, "'pass-rounds' is 0, but nothing says how many clients there are"),
        ({"clients-per-round": 10, "pass-rounds": -2}, "'pass-rounds' is -2, but a pass has 1 round or more"),
        ({"clients-per-round": 10, "pass-rounds": 2.5}, "'pass-rounds' is 2.5, but must be a whole number"),
        ({"clients-per-round": 0, "pass-rounds": 2}, "'selection' is 'cyclic', but 'clients-per-round' 0 asks every"),
        ({"clients-per-round": -3, "pass-rounds": 2}, "'clients-per-round' is -3, but must be 1 or more"),
        (
            {"clients-per-round": 10, "pass-rounds": 2, "over-selection": 1.5},
            "'over-selection' is 1.5, but with 'selection' 'cyclic' all clients of a slot",
        ),
    ],
)
def test_mistakes_are_told(options: dict[str, Option], sentence: str) -> None:
    with pytest.raises(StrategyError) as caught:
        CyclicSampler.of(options)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(("clients", "warns"), [(20, False), (23, False), (26, True), (12, True), (5, True)])
def test_cohorts_of_another_size_than_is_meant_are_told(
    clients: int, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        CyclicSampler(5, 4).check(clients)
    assert bool(caplog.messages) == warns
    if warns:
        assert caplog.messages[0].startswith(
            f"A pass of 4 rounds ('pass-rounds') has {clients / 4:.3g} of the {clients}"
        )


def test_impossible_cohorts_are_refused() -> None:
    with pytest.raises(StrategyError, match="population is empty"):
        CyclicSampler(5, 4).check(0)
    with pytest.raises(StrategyError, match="'clients-per-round' is 5, but there are only 4 clients"):
        CyclicSampler(5, 4).check(4)
