"""Stagnation: what is told of a model that does not learn, and nothing of one that has converged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.alerts.learning import MOST, NEAR, Learning
from tests.app.scripted_lines import engine, events, record

CHANCE = 0.1


def line(number: int, accuracy: float | None, federated: float | None = None) -> dict[str, Any]:
    """A good round with this central accuracy, and this one of the clients; None = not measured."""
    told = record(number, central=None if accuracy is None else {"loss": 1.0, "accuracy": accuracy}).to_json()
    return {**told, "federated": None if federated is None else {"loss": 1.0, "accuracy": federated}}


def told(accuracies: Sequence[float | None]) -> list[tuple[int, str]]:
    lines = [line(number, accuracy) for number, accuracy in enumerate(accuracies)]
    return [(round, state) for round, alert, _, state in events(lines) if alert == "stagnation"]


def rise(rounds: int, best: float) -> list[float]:
    """From chance in a straight line to the best, which is that of the last of so many rounds after round 0."""
    return [CHANCE + (best - CHANCE) * number / rounds for number in range(rounds + 1)]


@pytest.mark.parametrize("accuracy", [0.0, CHANCE, 0.5, 0.85, 0.99, math.nan])
def test_a_model_that_never_moves_fires_in_round_twenty(accuracy: float) -> None:
    assert told([accuracy] * 40) == [(20, "firing")]


@pytest.mark.parametrize("best", [0.3, 0.6, 0.8, 0.95])
@pytest.mark.parametrize("down", [CHANCE, 0.2, math.nan])
def test_a_model_that_falls_and_stays_down_fires_after_twenty_rounds_and_clears_once_it_is_back(
    best: float, down: float
) -> None:
    """The last good round is 30, the twentieth bad one 50."""
    fallen = [*rise(30, best), *[down] * 25]
    assert told(fallen[:50]) == []
    assert told([*fallen, best + 0.001]) == [(50, "firing"), (56, "resolved")]


def test_a_model_that_is_back_near_a_high_best_is_as_good_as_before() -> None:
    assert told([*rise(30, 0.95), *[CHANCE] * 25, 0.93]) == [(50, "firing"), (56, "resolved")]


def test_a_fall_of_nineteen_rounds_is_none() -> None:
    assert told([*rise(30, 0.95), *[CHANCE] * 19, *[0.95] * 30]) == []


def test_a_model_that_is_stuck_half_way_fires() -> None:
    assert told([*rise(30, 0.6), *[0.6] * 30]) == [(50, "firing")]


def test_most_is_learnt_at_four_fifths_of_the_way_from_the_untrained_model_to_the_ceiling() -> None:
    threshold = CHANCE + MOST * (1 - CHANCE)
    assert told([*rise(30, threshold + 1e-9), *[threshold] * 100]) == []
    assert told([*rise(30, threshold - 1e-9), *[threshold - 2e-9] * 30]) == [(50, "firing")]
    assert told([0.85, *[0.95] * 30]) == [(21, "firing")]  # two thirds of what the untrained model got wrong


def test_near_is_within_a_twentieth_of_what_was_learnt() -> None:
    best = 0.9
    lowest = best - NEAR * (best - CHANCE)
    assert told([*rise(30, best), *[lowest + 1e-9] * 100]) == []
    assert told([*rise(30, best), *[lowest - 1e-9] * 30]) == [(50, "firing")]


@given(st.lists(st.floats(0.91, 0.95), max_size=120))
def test_a_run_that_has_converged_raises_none_whatever_the_clients_that_are_drawn(plateau: list[float]) -> None:
    assert told([*rise(15, 0.95), *plateau]) == []


@given(st.lists(st.floats(0, 1) | st.just(math.nan), min_size=1, max_size=80))
def test_a_round_is_bad_only_if_none_of_the_twenty_before_it_was_a_record(accuracies: list[float]) -> None:
    for round, state in told(accuracies):
        records = {
            number for number, value in enumerate(accuracies)
            if all(value > earlier or math.isnan(earlier) for earlier in accuracies[:number])
        }  # fmt: skip
        assert state == "resolved" or not records & set(range(max(1, round - 19), round + 1))


def test_what_was_not_measured_says_nothing() -> None:
    every_ten = [CHANCE if number % 10 == 0 else None for number in range(61)]
    assert told(every_ten) == [(20, "firing")]
    assert told([*rise(5, 0.3), *[None] * 50]) == []


def test_the_clients_accuracy_counts_only_where_there_is_no_central_one() -> None:
    mixed = [line(n, 0.1 + n / 100 if n % 10 == 0 else None, 0.99) for n in range(61)]
    alone = [line(n, None, CHANCE if n % 5 == 0 else None) for n in range(61)]
    assert [event for event in events(mixed) if event[1] == "stagnation"] == []
    assert [event[0] for event in events(alone) if event[1] == "stagnation"] == [20]


def federated(accuracies: Sequence[float], first: int = 1) -> list[tuple[int, str]]:
    """What is told where only the clients evaluate, from that round on."""
    lines = [*(line(number, None) for number in range(first)), *(
        line(number, None, accuracy) for number, accuracy in enumerate(accuracies, first))]  # fmt: skip
    return [(round, state) for round, alert, _, state in events(lines) if alert == "stagnation"]


@pytest.mark.parametrize("accuracy", [CHANCE, 0.5, 0.85, 0.99])
@pytest.mark.parametrize("first", [1, 5])
def test_where_only_clients_evaluate_a_model_that_never_moves_fires_after_twenty_rounds(
    accuracy: float, first: int
) -> None:
    """As one that always answers what most examples are: however often that is right, nothing was learnt."""
    assert federated([accuracy] * 200, first) == [(first + 20, "firing")]


@pytest.mark.parametrize("seed", range(5))
def test_of_the_majority_class_other_clients_have_another_share_and_it_fires_all_the_same(seed: int) -> None:
    """Ten clients of a hundred examples in each round, of which 85 % are of one class: by chance 0.85 +- 0.011."""
    shares = np.random.default_rng(seed).binomial(1000, 0.85, 200) / 1000
    round, state = federated(list(shares))[0]
    assert state == "firing" and round <= 60


@pytest.mark.parametrize("first", [CHANCE, 0.3, 0.6, 0.85, 0.9])
def test_a_federated_run_that_has_converged_raises_none_in_five_hundred_rounds(first: float) -> None:
    """What the first round came to may be high already: half of what it got wrong is learnt since."""
    rising = [first + (0.955 - first) * number / 15 for number in range(16)]
    plateau = np.random.default_rng(0).uniform(0.92, 0.955, 485)
    assert federated([*rising, *plateau]) == []


def test_what_the_first_measured_model_got_wrong_must_be_halved_where_there_is_no_untrained_one() -> None:
    assert federated([0.85, 0.9251, *[0.92] * 50]) == []
    assert federated([0.85, 0.9249, *[0.92] * 50]) == [(22, "firing")]
    assert federated([0.5, 0.78, *[0.78] * 50]) == [(22, "firing")]  # and most of all there is to learn be learnt


def test_a_first_accuracy_that_is_no_number_is_not_the_first() -> None:
    assert federated([math.nan, 0.85, 0.9251, *[0.92] * 50]) == []
    assert federated([math.nan, 0.9, *[0.9] * 50]) == [(22, "firing")]


def test_the_number_of_rounds_is_the_key_of_the_rule() -> None:
    lines = [line(number, CHANCE) for number in range(30)]
    assert [event[0] for event in events(lines, engine({"alert-stagnation-rounds": 7}))] == [7]
    assert events(lines, engine({"alert-stagnation-rounds": 0})) == []


@pytest.mark.parametrize(
    ("accuracies", "text"),
    [
        ([*rise(30, 0.8), *[0.2] * 20], "The accuracy is 20.0 %, the best 80.0 % of round 30."),
        ([math.nan] * 21, "The accuracy is NaN, and has never been a number."),
    ],
)
def test_what_is_told_is_a_sentence(accuracies: list[float], text: str) -> None:
    watching = engine()
    found = [event for number, value in enumerate(accuracies) for event in watching.round(line(number, value))]
    assert [event.text for event in found if event.alert == "stagnation"] == [text]


def test_it_goes_on_from_the_lines_of_before() -> None:
    whole = Learning()
    for number, accuracy in enumerate(rise(30, 0.8)):
        whole = whole.after(line(number, accuracy))
    assert whole == Learning("central", 0.8, CHANCE, CHANCE, 0.8, 30, 30)
