"""FedAdagrad, FedAdam and FedYogi: Algorithm 2 of Reddi et al. (2021), written down once more in float64."""

import math

import numpy as np
import pytest

from strategies.server_optimizers import FedAdagrad, FedAdam, FedYogi
from strategies.server_optimizers.adaptive import Adaptive

ETA, BETA1, BETA2, TAU = 0.03, 0.8, 0.95, 0.01
OPTIMIZERS = {
    "adagrad": FedAdagrad(ETA, BETA1, TAU),
    "adam": FedAdam(ETA, BETA1, TAU, BETA2),
    "yogi": FedYogi(ETA, BETA1, TAU, BETA2),
}

every = pytest.mark.parametrize("name", OPTIMIZERS)


def algorithm_2(name: str, x: np.ndarray, deltas: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lines 12 to 17 of the paper, parameter by parameter."""
    x, m, v = x.astype(np.float64), np.zeros(x.size), np.full(x.size, TAU**2)
    for delta in deltas:
        for j, d in enumerate(delta.astype(np.float64).tolist()):
            m[j] = BETA1 * m[j] + (1 - BETA1) * d
            if name == "adagrad":
                v[j] = v[j] + d**2
            elif name == "yogi":
                v[j] = v[j] - (1 - BETA2) * d**2 * np.sign(v[j] - d**2)
            else:
                v[j] = BETA2 * v[j] + (1 - BETA2) * d**2
            x[j] = x[j] + ETA * m[j] / (math.sqrt(v[j]) + TAU)
    return x, m, v


def trained(optimizer: Adaptive, weights: np.ndarray, deltas: list[np.ndarray]) -> tuple[np.ndarray, dict]:
    state = optimizer.init(weights.size)
    for delta in deltas:
        weights, state = optimizer.step(weights, delta, state)
    return weights, dict(state)


@every
@pytest.mark.parametrize("scale", [1e-6, 1e-3, 0.1, 10.0])
def test_it_is_algorithm_2(name: str, scale: float) -> None:
    random = np.random.default_rng(3)
    start = random.normal(size=40).astype(np.float32)
    deltas = [(scale * random.standard_t(2, size=40)).astype(np.float32) for _ in range(25)]
    weights, state = trained(OPTIMIZERS[name], start, deltas)
    x, m, v = algorithm_2(name, start, deltas)
    np.testing.assert_allclose(weights, x, rtol=1e-6, atol=2e-6)
    np.testing.assert_allclose(state["m"], m, rtol=1e-5, atol=1e-6 * scale)
    np.testing.assert_allclose(state["v"], v, rtol=1e-5)


@every
def test_the_first_step_by_hand(name: str) -> None:
    """Delta 0.01 = tau: v is tau^2 at first, and doubled by Adagrad; Adam keeps it, and so does Yogi (sign(0) = 0)."""
    delta = np.array([0.01, 0.0], np.float32)
    weights, state = trained(OPTIMIZERS[name], np.ones(2, np.float32), [delta])
    v = 2e-4 if name == "adagrad" else 1e-4
    np.testing.assert_allclose(state["v"], [v, 1e-4 * (BETA2 if name == "adam" else 1)], rtol=1e-6)
    np.testing.assert_allclose(weights, [1 + 0.03 * 0.2 * 0.01 / (math.sqrt(v) + 0.01), 1], rtol=1e-7)


def test_defaults_are_the_papers() -> None:
    """Section 4: tau 1e-3, beta1 0.9 and beta2 0.99, and for Adagrad no momentum."""
    assert (FedAdam().beta1, FedAdam().beta2, FedAdam().epsilon) == (0.9, 0.99, 1e-3)
    assert (FedYogi().beta1, FedYogi().beta2, FedYogi().epsilon) == (0.9, 0.99, 1e-3)
    assert (FedAdagrad().beta1, FedAdagrad().epsilon) == (0.0, 1e-3)


def test_a_large_delta_leaves_yogis_brake_on_for_longer() -> None:
    """After one delta of 1 and 200 of 0.01, Adam's v has fallen by 0.95^200, Yogi's by 200 * 0.05 * 1e-4."""
    deltas = [np.ones(1, np.float32), *[np.full(1, 0.01, np.float32)] * 200]
    v = {name: float(trained(OPTIMIZERS[name], np.ones(1, np.float32), deltas)[1]["v"][0]) for name in OPTIMIZERS}
    assert v["yogi"] == pytest.approx(1e-4 + 0.05 - 200 * 0.05 * 1e-4, rel=1e-3)
    assert v["adam"] == pytest.approx(1e-4, rel=0.05)
    assert v["adagrad"] == pytest.approx(1e-4 + 1 + 200 * 1e-4, rel=1e-3)


@every
def test_no_delta_that_may_be_summed_breaks_it(name: str) -> None:
    """The exact sum holds values below 2^31; neither their squares nor those of the tiniest leave float32."""
    delta = np.array([2.0**31, -(2.0**31), 1e-30, 0.0], np.float32)
    weights, state = trained(OPTIMIZERS[name], np.ones(4, np.float32), [delta] * 5)
    assert all(np.isfinite(array).all() for array in (weights, *state.values()))
    assert (state["v"] > 0).all()
