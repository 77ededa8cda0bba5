"""The robust rules by the keys of a run: names, keys that do nothing, and what is refused before anything starts."""

import pytest

from app.compose import composition
from app.config import RunConfig
from app.contradictions import ROBUST
from app.errors import ConfigError
from strategies.aggregators import WeightedMean
from strategies.errors import StrategyError
from strategies.registry import AGGREGATORS, STRATEGIES, build
from strategies.robust import (
    Bulyan,
    CenteredClipping,
    CoordinateMedian,
    GeometricMedian,
    Guarded,
    Krum,
    TrimmedMean,
)
from strategies.robust.collected import CollectingAggregator


def test_every_robust_rule_is_an_aggregator_and_a_strategy_of_its_name() -> None:
    collecting = {name for name in AGGREGATORS if isinstance(AGGREGATORS[name]({}), CollectingAggregator)}
    assert collecting == set(ROBUST)
    for name in ROBUST:
        assert STRATEGIES[name] == {"aggregator": name}
        assert build(name, {}).aggregator == build("fedavg", {"aggregator": name}).aggregator == AGGREGATORS[name]({})


@pytest.mark.parametrize(
    ("keys", "aggregator"),
    [
        ({"strategy": "trimmed-mean", "trim-beta": 0.1, "weighting": "examples"}, TrimmedMean(0.1, 0, "examples")),
        ({"strategy": "trimmed-mean"}, TrimmedMean(0.2)),
        ({"aggregator": "median", "attackers-tolerated": 3}, CoordinateMedian(3)),
        ({"strategy": "geometric-median", "rfa-iterations": 5}, GeometricMedian(5)),
        ({"strategy": "krum", "attackers-tolerated": 3}, Krum(3)),
        ({"strategy": "multi-krum", "attackers-tolerated": 3, "krum-selected": 4}, Krum(3, 4)),
        ({"strategy": "multi-krum"}, Krum(0, 0)),
        ({"strategy": "bulyan", "attackers-tolerated": 1}, Bulyan(1)),
        (
            {"strategy": "centered-clipping", "centered-clip-norm": 2.0, "centered-clip-iterations": 3},
            CenteredClipping(2.0, 3),
        ),
        ({"strategy": "fedbuff", "aggregator": "median"}, CoordinateMedian()),
        ({"strategy": "fedadam", "aggregator": "median"}, CoordinateMedian()),
        ({"zeroing": True}, Guarded(WeightedMean(), zeroing=True)),
        ({"clipping": "fixed", "clip-norm": 2.0}, Guarded(WeightedMean(), clipping="fixed", clip_norm=2.0)),
        ({"strategy": "median", "clipping": "adaptive"}, Guarded(CoordinateMedian(), clipping="adaptive")),
    ],
)
def test_from_keys_to_the_rule(keys: dict[str, object], aggregator: object) -> None:
    assert composition(RunConfig.from_run_config(keys)).aggregator == aggregator


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"trim-beta": 0.5}, "The key 'trim-beta' is 0.5, but must be"),
        ({"strategy": "krum", "attackers-tolerated": -1}, "The key 'attackers-tolerated' is -1, but must be"),
        ({"strategy": "trimed-mean"}, "did you mean 'trimmed-mean'?"),
        ({"aggregator": "bulian"}, "did you mean 'bulyan'?"),
        ({"clipping": "norm"}, "The key 'clipping' is 'norm', but must be"),
        ({"attackers-tolerated": 1}, "does nothing with strategy 'fedavg' and aggregator ''"),
        ({"strategy": "median", "trim-beta": 0.1}, "does nothing with strategy 'median'"),
        ({"strategy": "krum", "krum-selected": 3}, "does nothing with strategy 'krum'"),
        ({"clip-norm": 3.0}, "The key 'clip-norm' is 3.0, but does nothing with clipping 'none'"),
    ],
)
def test_mistakes_are_told_in_sentences(keys: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_run_config(keys)
    assert sentence in str(caught.value)


def test_weights_where_the_rule_has_none_are_refused_when_it_is_made() -> None:
    with pytest.raises(StrategyError, match="but Krum counts every client the same"):
        composition(RunConfig.from_run_config({"strategy": "krum", "weighting": "examples"}))


def test_a_strategy_that_names_its_aggregator_takes_no_other() -> None:
    with pytest.raises(StrategyError, match="the strategy 'krum' is made of 'krum'"):
        build("krum", {"aggregator": "median"})
