"""Strategies by name, from the keys of a run config."""

import pytest

from strategies.aggregators import WeightedMean
from strategies.composition import Composition, Dense, NoPrivacy
from strategies.errors import StrategyError
from strategies.registry import STRATEGIES, Option, build
from strategies.samplers import UniformSampler
from strategies.server_optimizers import ServerSGD


def test_fedavg_from_its_keys() -> None:
    options: dict[str, Option] = {
        "clients-per-round": 10,
        "weighting": "uniform",
        "server-learning-rate": 1,
        "model": "cnn",
    }
    assert build("fedavg", options) == Composition(
        "fedavg", UniformSampler(10), Dense(), WeightedMean("uniform"), NoPrivacy(), ServerSGD(1.0)
    )


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_can_be_built_without_options_and_knows_its_name(name: str) -> None:
    assert build(name, {}).name == name


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("fedavgg", "The key 'strategy' is 'fedavgg', but must be one of ['fedavg']: did you mean 'fedavg'?"),
        ("FedAvg", "The key 'strategy' is 'FedAvg', but must be one of ['fedavg']: did you mean 'fedavg'?"),
        ("zzz", "The key 'strategy' is 'zzz', but must be one of ['fedavg']."),
    ],
)
def test_unknown_names(name: str, sentence: str) -> None:
    with pytest.raises(StrategyError) as caught:
        build(name, {})
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"clients-per-round": "10"}, "'clients-per-round' is '10', but must be a whole number"),
        ({"clients-per-round": True}, "'clients-per-round' is True, but must be a whole number"),
        ({"clients-per-round": 1.5}, "'clients-per-round' is 1.5, but must be a whole number"),
        ({"clients-per-round": -1}, "'clients-per-round' is -1"),
        ({"weighting": 3}, "'weighting' is 3, but must be a string"),
        ({"weighting": "size"}, "'weighting' is 'size', but must be one of"),
        ({"server-learning-rate": "fast"}, "'server-learning-rate' is 'fast', but must be a number"),
        ({"server-learning-rate": False}, "'server-learning-rate' is False, but must be a number"),
        ({"server-learning-rate": 0.0}, "'server-learning-rate' is 0.0, but must be a finite number above 0"),
    ],
)
def test_bad_options_name_their_key(options: dict[str, Option], sentence: str) -> None:
    with pytest.raises(StrategyError, match=sentence):
        build("fedavg", options)
