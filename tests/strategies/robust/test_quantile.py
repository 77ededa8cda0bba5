"""The running quantile: one step by hand, the fixed point, any scale, and the bounds of a step."""

import math
import sys

import numpy as np
import pytest

from strategies.robust.quantile import NormCount, QuantileEstimate


def counted(estimate: float, *norms: float) -> NormCount:
    count = NormCount(estimate)
    for norm in norms:
        count.add(norm)
    return count


def test_a_step_by_hand() -> None:
    # b = 3/4; 1 exp(-0.2 (0.75 - 0.8))
    assert QuantileEstimate(0.8, 0.2).next(counted(1.0, 0.5, 1.0, 0.9, 7.0)) == pytest.approx(math.exp(0.01))
    assert QuantileEstimate(0.98, math.log(10)).next(counted(10.0, 50, 60)) == pytest.approx(10 * 10**0.98)
    assert QuantileEstimate(0.98, math.log(10)).next(counted(10.0, 1, 2)) == pytest.approx(10 * 10**-0.02)


def test_a_round_without_norms_changes_nothing() -> None:
    assert QuantileEstimate(0.8, 0.2).next(NormCount(3.0)) == 3.0


@pytest.mark.parametrize("start", [0.1, 10.0])
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_it_settles_at_the_quantile(start: float, scale: float) -> None:
    norms = np.random.default_rng(1).lognormal(size=500) * scale
    rule, estimate = QuantileEstimate(0.8, 0.2), start
    for _ in range(400):
        estimate = rule.next(counted(estimate, *norms))
    assert estimate == pytest.approx(np.quantile(norms, 0.8), rel=0.05)


def test_it_goes_the_right_way_where_flwr_goes_the_wrong_one() -> None:
    """flwr's adaptive clipping runs off: with norms near 1 from 0.1 to 4.5e-6, and from 5 to 1e5, in 100 rounds."""
    for start in (0.1, 5.0):
        estimate = start
        for number in range(100):
            norms = np.random.default_rng(number).uniform(0.9, 1.1, size=20)
            estimate = QuantileEstimate(0.5, 0.2).next(counted(estimate, *norms))
        assert 0.8 < estimate < 1.2


@pytest.mark.slow
@pytest.mark.parametrize("rule", [QuantileEstimate(0.98, math.log(10.0)), QuantileEstimate(0.8, 0.2)])
def test_it_is_the_estimate_of_tensorflow_privacy(rule: QuantileEstimate, monkeypatch: pytest.MonkeyPatch) -> None:
    """On which the estimates of TensorFlow Federated rest."""
    monkeypatch.setattr(sys, "skip_tf_privacy_import", True, raising=False)
    import tensorflow as tf
    from tensorflow_privacy.privacy.dp_query import quantile_estimator_query as queries

    query = queries.NoPrivacyQuantileEstimatorQuery(3.0, rule.quantile, rule.rate, geometric_update=True)
    state, estimate = query.initial_global_state(), 3.0
    for number in range(20):
        norms = np.random.default_rng(number).lognormal(size=7).astype(np.float32)
        params, total = query.derive_sample_params(state), query.initial_sample_state(tf.TensorSpec([]))
        for norm in norms:
            total = query.accumulate_record(params, total, tf.constant(norm))
        _, state, _ = query.get_noised_result(total, state)
        estimate = rule.next(counted(estimate, *norms))
        assert estimate == pytest.approx(float(state.current_estimate), rel=1e-4)
