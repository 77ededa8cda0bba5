"""Strategies by name, from the keys of a run config."""

import pytest

from strategies.aggregators import WeightedMean
from strategies.composition import Composition, Dense, NoPrivacy
from strategies.errors import StrategyError
from strategies.options import Option
from strategies.pace import Buffered
from strategies.registry import AGGREGATORS, STRATEGIES, build
from strategies.samplers import (
    CyclicSampler,
    PoissonSampler,
    PowerOfChoice,
    Sampler,
    UniformSampler,
    WeightedSampler,
)
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


@pytest.mark.parametrize(
    ("name", "sampler"),
    [
        ("uniform", UniformSampler(4)),
        ("poisson", PoissonSampler(4)),
        ("weighted", WeightedSampler(4)),
        ("power-of-choice", PowerOfChoice(4, candidates=9)),
        ("cyclic", CyclicSampler(4, 3)),
    ],
)
def test_selection_names_the_sampler(name: str, sampler: Sampler) -> None:
    options = {"selection": name, "clients-per-round": 4, "power-of-choice-candidates": 9, "pass-rounds": 3}
    assert build("fedavg", options).sampler == sampler


def test_over_selection_belongs_to_the_sampler() -> None:
    assert build("fedavg", {"clients-per-round": 10, "over-selection": 1.3}).sampler == UniformSampler(10, 1.3)


def test_fedbuff_from_its_keys() -> None:
    options: dict[str, Option] = {
        "clients-per-round": 7,
        "buffer-size": 3,
        "concurrency": 5,
        "staleness-exponent": 1,
        "max-staleness": 9,
    }
    built = build("fedbuff", options)
    assert built == Composition(
        "fedbuff", UniformSampler(7), Dense(), WeightedMean(), NoPrivacy(), ServerSGD(), Buffered(3, 5, 1.0, 9)
    )
    assert not built.takes_partial_sums


@pytest.mark.parametrize(("per_round", "concurrency", "expected"), [(20, 0, 20), (20, 5, 5), (0, 0, 0)])
def test_fedbuff_trains_as_many_at_a_time_as_a_round_would_have(
    per_round: int, concurrency: int, expected: int
) -> None:
    built = build("fedbuff", {"clients-per-round": per_round, "concurrency": concurrency})
    assert isinstance(built.pace, Buffered) and built.pace.concurrency == expected


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_can_be_built_without_options_and_knows_its_name(name: str) -> None:
    asked: dict[str, Option] = {"clients-per-round": 10, "num-clients": 50} if name.startswith("dp-") else {}
    assert build(name, asked).name == name


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("fedavgg", "The key 'strategy' is 'fedavgg', but must be one of {names}: did you mean 'fedavg'?"),
        ("FedAvg", "The key 'strategy' is 'FedAvg', but must be one of {names}: did you mean 'fedavg'?"),
        ("zzz", "The key 'strategy' is 'zzz', but must be one of {names}."),
    ],
)
def test_unknown_names(name: str, sentence: str) -> None:
    with pytest.raises(StrategyError) as caught:
        build(name, {})
    assert str(caught.value) == sentence.format(names=sorted(STRATEGIES))


def test_a_strategy_and_a_key_that_name_different_parts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AGGREGATORS, "other", WeightedMean.of)
    monkeypatch.setitem(STRATEGIES, "own", {"aggregator": "other"})  # type: ignore[arg-type]
    assert build("own", {"aggregator": "other"}) == build("own", {"aggregator": ""})
    with pytest.raises(StrategyError, match="'aggregator' is 'mean', but the strategy 'own' is made of 'other'"):
        build("own", {"aggregator": "mean"})


@pytest.mark.parametrize(("selection", "weighs"), [("", "examples"), ("weighted", "uniform"), ("uniform", "examples")])
def test_who_is_drawn_by_size_does_not_count_by_size_again(selection: str, weighs: str) -> None:
    options: dict[str, Option] = {"selection": selection, "clients-per-round": 3}
    assert build("fedavg", {**options, "weighting": "auto"}).aggregator == WeightedMean(weighs)
    assert build("fedavg", {**options, "weighting": "examples"}).aggregator == WeightedMean("examples")


def test_a_part_is_chosen_by_its_key() -> None:
    assert build("fedavg", {"aggregator": "mean", "selection": "uniform"}) == build("fedavg", {})
    with pytest.raises(StrategyError, match=r"'aggregator' is 'maen', but must be one of .*: did you mean 'mean'\?"):
        build("fedavg", {"aggregator": "maen"})


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
        ({"over-selection": 0.9, "clients-per-round": 3}, "'over-selection' is 0.9, but must be 1"),
        ({"over-selection": 1.5}, "'over-selection' is 1.5, but every client is asked already"),
        ({"server-learning-rate": 0.0}, "'server-learning-rate' is 0.0, but must be a finite number above 0"),
    ],
)
def test_bad_options_name_their_key(options: dict[str, Option], sentence: str) -> None:
    with pytest.raises(StrategyError, match=sentence):
        build("fedavg", options)
