"""What becomes of the keys that say how rounds are run and who is asked."""

from __future__ import annotations

import pytest

from app.compose import composition, round_rules
from app.config import RunConfig
from strategies.pace import Buffered, Synchronous
from strategies.samplers import UniformSampler


def config(**values: object) -> RunConfig:
    return RunConfig.from_run_config({key.replace("_", "-"): value for key, value in values.items()})


def test_the_rules_of_rounds_are_the_keys_of_the_same_names() -> None:
    values = {
        "min_replies": 2,
        "max_skipped_rounds": 7,
        "clients_per_message": 3,
        "evaluate_every": 4,
        "federated_evaluate_every": 6,
        "federated_evaluate_clients": 5,
        "round_deadline": 30.0,
    }
    rules = round_rules(config(**values, max_update_norm=8.0, max_client_examples=99, example_seconds=1.0))
    assert {name: getattr(rules, name) for name in values} == values
    assert (rules.limits.max_norm, rules.limits.max_weight) == (8.0, 99.0)


def test_over_selection_is_the_samplers() -> None:
    sampler = composition(config(over_selection=1.5, clients_per_round=10)).sampler
    assert sampler == UniformSampler(10, 1.5)
    assert (sampler.goal, composition(config()).sampler.goal) == (10, 0)


@pytest.mark.parametrize(("concurrency", "at_work"), [(0, 8), (20, 20)])
def test_the_keys_of_fedbuff_are_its_pace(concurrency: int, at_work: int) -> None:
    keys = {"buffer_size": 4, "staleness_exponent": 1.0, "max_staleness": 3, "concurrency": concurrency}
    assert composition(config(strategy="fedbuff", clients_per_round=8, **keys)).pace == Buffered(4, at_work, 1.0, 3)
    assert composition(config()).pace == Synchronous()
