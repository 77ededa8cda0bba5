"""The rules of rounds: when something is due, and what of them clients are told."""

import math

import pytest

from strategies import registry, wire
from strategies.admission import Limits
from strategies.states import StrategyStates
from strategies.terms import RoundRules, RoundTerms, due


@pytest.mark.parametrize(
    ("every", "rounds"), [(0, []), (1, [1, 2, 3, 4, 5, 6, 7]), (3, [3, 6, 7]), (7, [7]), (100, [7])]
)
def test_every_so_many_rounds_and_after_the_last(every: int, rounds: list[int]) -> None:
    assert [number for number in range(1, 8) if due(number, every, 7)] == rounds


def test_nobody_may_use_up_the_range_of_the_sum() -> None:
    terms = RoundTerms.of(registry.build("fedavg", {}), RoundRules(limits=Limits(100.0)), 8, StrategyStates(), 5, 0)
    assert 8 * terms.limits.max_contribution == 2.0**30  # of 2^31
    assert terms.limits.max_weight == 100.0
    nobody = RoundTerms.of(registry.build("fedavg", {}), RoundRules(), 0, StrategyStates(), 5, 0)
    assert math.isfinite(nobody.limits.max_contribution)


@pytest.mark.parametrize(("strategy", "summed"), [("fedavg", "uniform"), ("fedbuff", "")])
def test_clients_are_told_how_to_answer_and_how_long_they_have(strategy: str, summed: str) -> None:
    composition = registry.build(strategy, {"weighting": "uniform"})
    rules = RoundRules(limits=Limits(100.0, 2.5), round_deadline=60.0)
    settings = RoundTerms.of(composition, rules, 4, StrategyStates(), 5, 0, goal=3).settings()
    assert settings[wire.SUMMED] == summed
    assert settings[wire.DEADLINE] == 60.0 and settings[wire.GOAL] == 3
    assert settings["limit-max_weight"] == 100.0 and settings["limit-max_norm"] == 2.5
