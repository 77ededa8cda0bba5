"""Power-of-choice: candidates by size, and of these the ones with the highest losses."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

import pytest
from scipy.stats import chisquare

from strategies.aggregators import WeightedMean
from strategies.composition import Composition, Dense, NoPrivacy
from strategies.errors import StrategyError
from strategies.pace import Buffered, Synchronous
from strategies.population import ClientInfo
from strategies.samplers import PowerOfChoice
from strategies.samplers.power_of_choice import highest
from strategies.server_optimizers import ServerSGD
from tests.strategies.test_samplers_drawing import orders

CLIENTS = [ClientInfo(str(number), 10) for number in range(8)]


class Asked:
    """Answers with these losses, and remembers who was asked."""

    def __init__(self, losses: Mapping[str, float]) -> None:
        self.losses, self.candidates = losses, [list[str]()]

    def __call__(self, clients: Sequence[str]) -> Mapping[str, float]:
        self.candidates.append(list(clients))
        return {client: self.losses[client] for client in clients if client in self.losses}


def test_the_highest_losses_of_all_are_chosen_where_all_are_candidates() -> None:
    losses = dict(zip("01234567", [0.1, 3.0, 0.2, 2.0, 0.3, 1.0, 0.4, 0.0], strict=True))
    for round in range(20):
        assert PowerOfChoice(3, candidates=8).sample(round, CLIENTS, 1, Asked(losses)) == ["1", "3", "5"]


@pytest.mark.parametrize("candidates", [4, 6, 0])
def test_they_are_the_highest_of_the_candidates(candidates: int) -> None:
    asked = Asked({client.id: math.sin(int(client.id)) for client in CLIENTS})
    for round in range(30):
        cohort = PowerOfChoice(3, candidates=candidates).sample(round, CLIENTS, 2, asked)
        drawn = asked.candidates[-1]
        assert len(drawn) == (candidates or 6)
        best = max(combinations(drawn, 3), key=lambda three: sum(asked.losses[client] for client in three))
        assert cohort == sorted(best)


def test_candidates_are_drawn_by_size() -> None:
    """Cho et al. 2022, section 4, step 1. Fails one right sampler in 10,000."""
    asked, rounds = Asked({}), 2000
    clients = [ClientInfo(str(place), size) for place, size in enumerate([1, 2, 3, 6])]
    for round in range(rounds):
        PowerOfChoice(1, candidates=2).sample(round, clients, 3, asked)
    drawn = Counter(frozenset(map(int, candidates)) for candidates in asked.candidates[1:])
    expected = orders([1.0, 2.0, 3.0, 6.0], 2)
    assert chisquare([drawn[one] for one in expected], [rounds * p for p in expected.values()]).pvalue > 1e-4


def test_who_does_not_answer_comes_last_and_ties_go_by_id() -> None:
    losses = {"a": math.nan, "b": -5.0, "c": 0.5, "d": 0.5, "e": math.inf}
    assert highest("fedcba", losses, 1) == ["c"]
    assert highest("fedcba", losses, 3) == ["b", "c", "d"]
    assert highest("fedcba", losses, 5) == ["a", "b", "c", "d", "e"]


def test_nobody_is_asked_where_there_is_nothing_to_choose() -> None:
    asked = Asked({})
    assert PowerOfChoice(8).sample(1, CLIENTS, 0, asked) == [client.id for client in CLIENTS]
    assert len(PowerOfChoice(3, candidates=3).sample(1, CLIENTS, 0, asked)) == 3
    assert asked.candidates == [[]]


def test_impossible_numbers_of_candidates_are_refused() -> None:
    PowerOfChoice(3, 1.5, 5).check(5)
    PowerOfChoice(5).check(5)  # twice as many are wanted, and all are taken
    with pytest.raises(StrategyError, match="'power-of-choice-candidates' is 4, but 5 clients are chosen from them"):
        PowerOfChoice(3, 1.5, 4)
    with pytest.raises(StrategyError, match="'power-of-choice-candidates' is 9, but there are only 8 clients"):
        PowerOfChoice(3, candidates=9).check(8)
    with pytest.raises(StrategyError, match="'power-of-choice-candidates' is -1"):
        PowerOfChoice(3, candidates=-1)


def test_options_are_read() -> None:
    options = {"clients-per-round": 4, "over-selection": 1.5, "power-of-choice-candidates": 9}
    assert PowerOfChoice.of(options) == PowerOfChoice(4, 1.5, 9)


def test_it_needs_rounds_that_begin_from_one_model() -> None:
    parts = (PowerOfChoice(3), Dense(), WeightedMean(), NoPrivacy(), ServerSGD())
    Composition("fedavg", *parts, Synchronous())
    with pytest.raises(
        StrategyError, match=r"PowerOfChoice needs clients that all begin from one model.*which Buffered does not give"
    ):
        Composition("fedbuff", *parts, Buffered())
