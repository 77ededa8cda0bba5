"""Server SGD and FedAvgM: closed forms on three parameters."""

import numpy as np
import pytest

from strategies.server_optimizers import FedAvgM, ServerSGD

WEIGHTS = np.array([1, 2, 3], dtype=np.float32)
DELTA = np.array([4, -2, 0.5], dtype=np.float32)


@pytest.mark.parametrize(("rate", "expected"), [(1.0, [5.0, 0.0, 3.5]), (0.5, [3.0, 1.0, 3.25]), (2, [9.0, -2.0, 4.0])])
def test_a_step_of_sgd_by_hand(rate: float, expected: list[float]) -> None:
    optimizer = ServerSGD(rate)
    weights, state = optimizer.step(WEIGHTS, DELTA, optimizer.init(3))
    assert weights.tolist() == expected
    assert state == {}


def test_constant_deltas_add_up() -> None:
    optimizer, weights = ServerSGD(0.25), WEIGHTS
    state = optimizer.init(3)
    for _ in range(8):
        weights, state = optimizer.step(weights, DELTA, state)
    assert weights.tolist() == (WEIGHTS + 2 * DELTA).tolist()


def test_two_steps_of_momentum_by_hand() -> None:
    """beta 1/2, lr 1: v = d, then d / 2 + d = 3/2 d; together 5/2 d."""
    optimizer = FedAvgM(1.0, 0.5)
    first, state = optimizer.step(WEIGHTS, DELTA, optimizer.init(3))
    second, state = optimizer.step(first, DELTA, state)
    assert first.tolist() == (WEIGHTS + DELTA).tolist()
    assert second.tolist() == (WEIGHTS + 2.5 * DELTA).tolist()
    assert state["momentum"].tolist() == (1.5 * DELTA).tolist()


def test_two_steps_of_nesterov_by_hand() -> None:
    """beta 1/2, lr 1/4: steps (d + v / 2) / 4 with v = d, then 3/2 d: 3/8 d, then 7/16 d."""
    optimizer = FedAvgM(0.25, 0.5, nesterov=True)
    first, state = optimizer.step(WEIGHTS, DELTA, optimizer.init(3))
    second, state = optimizer.step(first, DELTA, state)
    assert first.tolist() == (WEIGHTS + 0.375 * DELTA).tolist()
    assert second.tolist() == (WEIGHTS + (0.375 + 0.4375) * DELTA).tolist()
    assert state["momentum"].tolist() == (1.5 * DELTA).tolist()


@pytest.mark.parametrize("nesterov", [False, True])
def test_without_momentum_it_is_fedavg_to_the_bit(nesterov: bool) -> None:
    weights = other = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    optimizer, plain = FedAvgM(1.0, 0.0, nesterov), ServerSGD(1.0)
    state = optimizer.init(1000)
    for turn in range(1, 5):
        delta = np.random.default_rng(turn).normal(size=1000).astype(np.float32)
        weights, state = optimizer.step(weights, delta, state)
        other, _ = plain.step(other, delta, {})
        assert weights.tobytes() == other.tobytes()


@pytest.mark.parametrize("steps", [1, 2, 10, 60])
@pytest.mark.parametrize("beta", [0.5, 0.9])
def test_constant_deltas_make_a_geometric_sum(beta: float, steps: int) -> None:
    optimizer, weights = FedAvgM(1.0, beta), WEIGHTS
    state = optimizer.init(3)
    for _ in range(steps):
        weights, state = optimizer.step(weights, DELTA, state)
    np.testing.assert_allclose(state["momentum"], DELTA * (1 - beta**steps) / (1 - beta), rtol=1e-5)
    moved = (steps - beta * (1 - beta**steps) / (1 - beta)) / (1 - beta)  # the sum of those sums
    np.testing.assert_allclose(weights, WEIGHTS + DELTA * moved, rtol=1e-5)


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_paper_in_float64(nesterov: bool) -> None:
    """Hsu et al. write the pseudo-gradient d = w - mean and step against it."""
    random = np.random.default_rng(5)
    optimizer, weights = FedAvgM(0.3, 0.9, nesterov), random.normal(size=50).astype(np.float32)
    state, w, v = optimizer.init(50), weights.astype(np.float64), np.zeros(50)
    for _ in range(20):
        delta = random.normal(size=50).astype(np.float32)
        weights, state = optimizer.step(weights, delta, state)
        d = -delta.astype(np.float64)
        v = 0.9 * v + d
        w = w - 0.3 * (d + 0.9 * v if nesterov else v)
    np.testing.assert_allclose(weights, w, atol=1e-5)
