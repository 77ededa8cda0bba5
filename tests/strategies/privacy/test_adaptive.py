"""Adaptive clipping against TensorFlow Privacy's query, by its noise, and by where the norm ends up."""

import math
import sys
from collections.abc import Sequence

import numpy as np
import pytest

from strategies.aggregators import WeightedMean
from strategies.errors import StrategyError
from strategies.layout import ModelLayout
from strategies.privacy.adaptive import AdaptiveDPFedAvg
from strategies.privacy.clipping import NORM
from strategies.registry import build
from strategies.samplers import PoissonSampler
from strategies.updates import FloatVector, State, Update

LAYOUT = ModelLayout(("w",), ((3,),), ("float32",))


def one_round(
    rule: AdaptiveDPFedAvg, deltas: Sequence[np.ndarray], state: State, noise: np.random.Generator
) -> tuple[FloatVector, State]:
    fold, metrics = WeightedMean("uniform").start(3), []
    for delta in deltas:
        clipped = rule.clip(Update("a", delta.astype(np.float32), 1.0), rule.config(state), LAYOUT)
        fold.add(clipped)
        metrics.append(clipped.metrics)
    return rule.finish(1, fold, metrics, state, noise)


def norm_of(state: State) -> float:
    return float(state[NORM].item())


def test_without_noise_it_is_the_query_of_tensorflow_privacy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "skip_tf_privacy_import", True, raising=False)
    import tensorflow as tf
    from tensorflow_privacy.privacy.dp_query.quantile_adaptive_clip_sum_query import QuantileAdaptiveClipSumQuery

    generator = np.random.default_rng(4)
    rule = AdaptiveDPFedAvg(8, 0.0, 0.5, quantile=0.7, rate=0.3)
    query = QuantileAdaptiveClipSumQuery(0.5, 0.0, 0.7, 0.3, 0.0, 8.0, geometric_update=True)
    state, theirs = rule.init(3), query.initial_global_state()
    for _ in range(12):
        deltas = generator.normal(size=(generator.integers(0, 12), 3)).astype(np.float32)
        params, sample = query.derive_sample_params(theirs), query.initial_sample_state(tf.zeros(3))
        for delta in deltas:
            sample = query.accumulate_record(params, sample, tf.constant(delta))
        total, theirs, _ = query.get_noised_result(sample, theirs)
        delta, state = one_round(rule, list(deltas), state, generator)
        np.testing.assert_allclose(delta, total.numpy() / 8, rtol=1e-5, atol=1e-6)
        assert norm_of(state) == pytest.approx(float(theirs.sum_state.l2_norm_clip), rel=1e-5)


@pytest.mark.parametrize("start", [0.1, 10.0])
def test_the_norm_is_within_a_fifth_of_the_median_after_60_rounds(start: float) -> None:
    """Norms of exp(N(0, 1/4)), median 1; cohorts of 50 and z = 1. Fixed seeds: the worst of ten is meant."""
    for seed in range(10):
        generator, rule = np.random.default_rng(seed), AdaptiveDPFedAvg(50, 1.0, start)
        state = rule.init(3)
        for _ in range(60):
            directions = generator.normal(size=(50, 3))
            lengths = np.exp(generator.normal(0, 0.5, size=(50, 1)))
            deltas = directions / np.linalg.norm(directions, axis=1, keepdims=True) * lengths
            _, state = one_round(rule, list(deltas), state, generator)
        assert norm_of(state) == pytest.approx(1.0, rel=0.2)


def test_both_releases_together_are_one_mechanism_of_the_noise_multiplier() -> None:
    """The sensitivities are C and 1/2: in units of the noise their squares add up, and to z^-2."""
    rule = AdaptiveDPFedAvg(40, 0.8)
    of_updates, of_bits = 1.0 / rule.update_noise_multiplier, 0.5 / rule.bit_deviation
    assert math.hypot(of_updates, of_bits) == pytest.approx(1 / 0.8, rel=1e-12)
    assert rule.bit_deviation == 2.0 and rule.update_noise_multiplier > 0.8


def check_noise_of_both(mechanism: type[AdaptiveDPFedAvg]) -> None:
    """20,000 rounds that nobody came to; a fixed seed, 3 sigma of an estimated deviation being 1.5 %.

    As in the test above, but as measured: both together are one mechanism of the noise multiplier.
    """
    rule, generator = mechanism(40, 0.8, 2.0, quantile=0.5, rate=0.2), np.random.default_rng(6)
    releases, shares = [], []
    for _ in range(20_000):
        delta, state = one_round(rule, [], rule.init(3), generator)
        releases.append(delta)
        shares.append(0.5 - math.log(norm_of(state) / 2.0) / 0.2)
    of_updates, of_bits = float(np.std(releases)) * 40, float(np.std(shares)) * 40
    assert of_updates == pytest.approx(rule.update_noise_multiplier * 2.0, rel=0.009)
    assert of_bits == pytest.approx(rule.bit_deviation, rel=0.015)
    assert math.hypot(2.0 / of_updates, 0.5 / of_bits) == pytest.approx(1 / 0.8, rel=0.015)
    assert abs(np.mean(shares) - 0.5) < 5 * rule.bit_deviation / 40 / math.sqrt(20_000)


def test_the_noise_on_updates_and_on_the_count_is_what_is_accounted() -> None:
    check_noise_of_both(AdaptiveDPFedAvg)


def test_a_bit_moves_the_count_by_half_and_whoever_lies_by_no_more() -> None:
    rule, fold = AdaptiveDPFedAvg(4, 0.0, 1.0), WeightedMean("uniform").start(3)

    def after(*told: float) -> float:
        metrics = [{"within-clipping-norm": bit} for bit in told]
        return norm_of(rule.finish(1, fold, metrics, rule.init(3), np.random.default_rng(0))[1])

    assert after() == 1.0  # a share of one half
    assert after(1.0) == pytest.approx(math.exp(-0.2 * 0.5 / 4)) == after(1e12)
    assert after(0.0) == pytest.approx(math.exp(0.2 * 0.5 / 4)) == after(-1e12) == after(math.nan)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"noise_multiplier": 1.0},
            "The key 'noise-multiplier' is 1, but with adaptive clipping and 'clients-per-round'",
        ),
        ({"quantile": 1.5}, "The key 'adaptive-clipping-quantile' is 1.5, but must be from 0 to 1."),
        ({"rate": 0.0}, "The key 'adaptive-clipping-rate' is 0.0, but must be a number above 0."),
        ({"clipping_norm": 0.0}, "The key 'clipping-norm' is 0.0, but must be a finite number above 0."),
    ],
)
def test_what_is_no_mechanism_is_refused(given: dict[str, float], sentence: str) -> None:
    with pytest.raises(StrategyError) as caught:
        AdaptiveDPFedAvg(10, **given)  # type: ignore[arg-type]
    assert str(caught.value).startswith(sentence)


def test_the_strategy_from_its_keys() -> None:
    built = build("dp-fedavg-adaptive", {"clients-per-round": 30, "noise-multiplier": 1, "adaptive-clipping-rate": 0.4})
    assert built.privacy == AdaptiveDPFedAvg(30, 1.0, 1.0, 0.5, 0.4) and built.sampler == PoissonSampler(30)
    assert built.takes_partial_sums and built.privacy.unconditional


def test_beside_the_noise_of_a_large_cohort_the_quantile_has_that_of_its_own_and_the_split_changes() -> None:
    """Of N = 1000: sigma_b = 50, of which 40 / 1000 stay on a sum of 40 bits. 1e4 draws within 4 %: 5.6 deviations."""
    rule = AdaptiveDPFedAvg(40, 0.8, 2.0, noise_cohort_size=1000)
    assert rule.update_noise_multiplier == pytest.approx((0.8**-2 - (2 * 50) ** -2) ** -0.5, rel=1e-12)
    told = rule.told(rule.init(3))
    assert told["noise-deviation"] == pytest.approx(rule.update_noise_multiplier * 2.0 / 1000)
    generator, fold = np.random.default_rng(8), WeightedMean("uniform").start(1)
    moves = [rule.finish(1, fold, [], rule.init(1), generator)[1]["clipping-norm"].item() for _ in range(10_000)]
    shares = np.log(np.array(moves) / 2.0) / -0.2
    assert np.std(shares) == pytest.approx(50 * 40 / 1000 / 40, rel=0.04)


def test_more_noise_fits_a_larger_cohort() -> None:
    with pytest.raises(StrategyError, match="'clients-per-round' 10 it must be below 1,"):
        AdaptiveDPFedAvg(10, 1.0)
    assert AdaptiveDPFedAvg(10, 1.0, noise_cohort_size=100).update_noise_multiplier > 1.0
    with pytest.raises(StrategyError, match=r"'noise-cohort-size' 100 it must be below 10,.*Raise 'noise-c"):
        AdaptiveDPFedAvg(10, 10.0, noise_cohort_size=100)
