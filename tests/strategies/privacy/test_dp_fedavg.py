"""DP-FedAvg by hand: what is released of which updates, and the combinations that would not be private."""

import math

import numpy as np
import pytest

from strategies.aggregators import WeightedMean
from strategies.errors import StrategyError
from strategies.layout import ModelLayout
from strategies.options import Option
from strategies.privacy.dp_fedavg import DPFedAvg
from strategies.registry import build
from strategies.robust import CoordinateMedian
from strategies.samplers import PoissonSampler, UniformSampler
from strategies.updates import Update

LAYOUT = ModelLayout(("w",), ((2,),), ("float32",))
PER_ROUND: dict[str, Option] = {"clients-per-round": 4}


def released(rule: DPFedAvg, *deltas: tuple[float, float], seed: int = 0) -> np.ndarray:
    """What a round gives in which these updates have come."""
    fold, state = WeightedMean("uniform").start(2), rule.init(2)
    for delta in deltas:
        update = Update("a", np.array(delta, np.float32), 1000.0)
        fold.add(rule.clip(update, rule.config(state), LAYOUT))
    delta, after = rule.finish(1, fold, [{} for _ in deltas], state, np.random.default_rng(seed))
    assert after == state
    return delta


def check_sum(mechanism: type[DPFedAvg]) -> None:
    """By hand: (3, 4) is shortened to (0.6, 0.8), (0.5, 0) stays; 4 are expected, 2 have come."""
    delta = released(mechanism(4, noise_multiplier=0.0), (3.0, 4.0), (0.5, 0.0))
    assert delta.tolist() == pytest.approx([1.1 / 4, 0.8 / 4], abs=1e-6)


def check_noise(mechanism: type[DPFedAvg], came: int) -> None:
    """Whoever has come, it is z times the norm on the sum."""
    deltas = [(0.25, -0.5)] * came
    noisy, exact = (released(mechanism(4, z, 2.0), *deltas).astype(np.float64) for z in (1.5, 0.0))
    noise = 1.5 * 2.0 * np.random.default_rng(0).standard_normal(2) / 4
    np.testing.assert_allclose(noisy - exact, noise, rtol=1e-6)


def test_the_clipped_sum_is_divided_by_the_expected_number_of_clients() -> None:
    check_sum(DPFedAvg)


@pytest.mark.parametrize("came", [0, 1, 3, 9])
def test_the_noise_is_the_same_however_many_come(came: int) -> None:
    check_noise(DPFedAvg, came)


def test_rounding_in_fixed_point_is_part_of_the_sensitivity() -> None:
    """Of a model so large and a norm so small that it shows: 2^-33 sqrt(10^6) = 1.2e-7 beside 1e-7."""
    size = 10**6
    delta, _ = DPFedAvg(1, 1.0, 1e-7).finish(1, WeightedMean().start(size), [], {}, np.random.default_rng(3))
    expected = 1e-7 + 2**-33 * math.sqrt(size)
    assert np.std(delta.astype(np.float64)) == pytest.approx(expected, rel=0.004)  # of 5.6 deviations


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ((0, 1.0, 1.0), "The key 'clients-per-round' is 0, but differential privacy divides by the number of clients"),
        ((4, -0.5, 1.0), "The key 'noise-multiplier' is -0.5, but must be 0 (no privacy) or more."),
        ((4, math.nan, 1.0), "The key 'noise-multiplier' is nan, but must be 0 (no privacy) or more."),
        ((4, math.inf, 1.0), "The key 'noise-multiplier' is inf, but must be 0 (no privacy) or more."),
        ((4, 1.0, 0.0), "The key 'clipping-norm' is 0.0, but must be a finite number above 0."),
        ((4, 1.0, math.nan), "The key 'clipping-norm' is nan, but must be a finite number above 0."),
    ],
)
def test_what_is_no_mechanism_is_refused(given: tuple[int, float, float], sentence: str) -> None:
    with pytest.raises(StrategyError) as caught:
        DPFedAvg(*given)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(("cohort", "of"), [(0, 10), (1000, 1000)])
def test_the_noise_on_the_mean_is_that_of_the_cohort_that_is_simulated(cohort: int, of: int) -> None:
    """1e5 draws within 1 %, which is 4.5 deviations."""
    rule = DPFedAvg(10, 1.7, 0.5, noise_cohort_size=cohort)
    mean, _ = rule.finish(1, WeightedMean("uniform").start(100_000), [], {}, np.random.default_rng(4))
    deviation = np.std(mean.astype(np.float64))
    assert deviation == pytest.approx(1.7 * 0.5 / of, rel=0.01)
    assert rule.told({}) == {
        "clipping-norm": 0.5,
        "noise-multiplier": 1.7,
        "noise-deviation": pytest.approx(1.7 * 0.5 / of),
    }
    assert rule.scale == of / 10


def test_a_simulated_cohort_costs_what_it_costs_at_the_same_sampling_rate() -> None:
    small, large = DPFedAvg(10, 1.7, noise_cohort_size=1000), DPFedAvg(1000, 1.7)
    assert small.release(1, PoissonSampler(10), 40) == large.release(1, PoissonSampler(1000), 4000)
    assert (
        small.caveat == "simulates the noise of a cohort of 1000; this run itself is not private" and not large.caveat
    )


@pytest.mark.parametrize("cohort", [-1, 9, 10])
def test_a_cohort_that_is_not_larger_is_refused(cohort: int) -> None:
    with pytest.raises(StrategyError, match=f"'noise-cohort-size' is {cohort}, but must be 0 .* 10: it is the larger"):
        DPFedAvg(10, noise_cohort_size=cohort)


def test_only_the_noise_is_scaled() -> None:
    """What is there of real updates stays: 3 of 10 expected clients, each at the norm."""
    deltas = [(0.6, 0.8)] * 3
    exact = released(DPFedAvg(10, 0.0, noise_cohort_size=1000), *deltas)
    np.testing.assert_allclose(exact, [0.18, 0.24], rtol=1e-5)


def test_noise_without_a_sum_is_refused() -> None:
    with pytest.raises(StrategyError, match="belongs on a sum"):
        DPFedAvg(4).finish(1, CoordinateMedian().start(2, {}), [], {}, np.random.default_rng(0))


def test_the_strategy_draws_by_chance_and_lets_all_count_the_same() -> None:
    options = {**PER_ROUND, "noise-multiplier": 1.1, "clipping-norm": 0.3, "per-layer-clipping": True}
    built = build("dp-fedavg", options)
    assert built.sampler == PoissonSampler(4) and built.aggregator == WeightedMean("uniform")
    assert built.privacy == DPFedAvg(4, 1.1, 0.3, per_layer=True)
    assert build("dp-fedavg", {**options, "noise-cohort-size": 90}).privacy.scale == 90 / 4
    assert built.takes_partial_sums and built.privacy.unconditional


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "fedprox"])
@pytest.mark.parametrize("selection", ["", "uniform", "poisson"])
def test_the_key_makes_other_strategies_private_with_equal_weights(strategy: str, selection: str) -> None:
    built = build(strategy, {**PER_ROUND, "privacy": "dp-fedavg", "selection": selection})
    assert built.aggregator == WeightedMean("uniform") and built.privacy == DPFedAvg(4)
    assert built.sampler == (PoissonSampler(4) if selection == "poisson" else UniformSampler(4))


UNSOUND: list[tuple[str, dict[str, Option], str]] = [
    ("fedavg", {"weighting": "examples"}, "DPFedAvg needs every client to count the same"),
    ("trimmed-mean", {}, "DPFedAvg needs an aggregate that is a weighted sum"),
    ("krum", {}, "DPFedAvg needs an aggregate that is a weighted sum"),
    ("geometric-median", {}, "DPFedAvg needs an aggregate that is a weighted sum"),
    ("fednova", {}, "DPFedAvg needs an aggregate that is a weighted sum"),
    ("fedavg", {"zeroing": True}, "DPFedAvg needs an aggregate that is a weighted sum"),
    ("fedavg", {"clipping": "adaptive"}, "DPFedAvg needs an aggregate that is a weighted sum"),
    ("fedbuff", {}, "DPFedAvg needs a cohort whose sampling probabilities are known"),
    ("fedavg", {"selection": "weighted"}, "DPFedAvg needs a cohort whose sampling probabilities are known"),
    ("fedavg", {"selection": "power-of-choice"}, "DPFedAvg needs a cohort whose sampling probabilities are known"),
    ("fedavg", {"over-selection": 1.5}, "DPFedAvg needs a cohort whose sampling probabilities are known"),
    ("scaffold", {}, "DPFedAvg needs a round of which the server learns nothing but the noised sum"),
    ("fedprox", {"adaptive-mu": True}, "DPFedAvg needs a round of which the server learns nothing but the noised sum"),
]


@pytest.mark.parametrize(("strategy", "options", "sentence"), UNSOUND)
def test_unsound_combinations_are_refused_with_the_reason(
    strategy: str, options: dict[str, Option], sentence: str
) -> None:
    build(strategy, {**PER_ROUND, **options})  # is fine by itself
    with pytest.raises(StrategyError) as caught:
        build(strategy, {**PER_ROUND, **options, "privacy": "dp-fedavg"})
    assert sentence in str(caught.value)


def test_all_clients_at_once_have_no_expected_number() -> None:
    with pytest.raises(StrategyError, match="'clients-per-round' is 0"):
        build("fedavg", {"privacy": "dp-fedavg"})
