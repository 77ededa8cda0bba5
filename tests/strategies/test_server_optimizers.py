"""Server SGD: closed forms on three parameters."""

import math

import numpy as np
import pytest

from strategies.errors import StrategyError
from strategies.guarantees import Guarantees
from strategies.server_optimizers import ServerSGD

WEIGHTS = np.array([1, 2, 3], dtype=np.float32)
DELTA = np.array([4, -2, 0.5], dtype=np.float32)


@pytest.mark.parametrize(("rate", "expected"), [(1.0, [5.0, 0.0, 3.5]), (0.5, [3.0, 1.0, 3.25]), (2, [9.0, -2.0, 4.0])])
def test_a_step_by_hand(rate: float, expected: list[float]) -> None:
    optimizer = ServerSGD(rate)
    weights, state = optimizer.step(WEIGHTS, DELTA, optimizer.init(3))
    assert weights.tolist() == expected
    assert weights.dtype == np.float32
    assert state == {}


def test_nothing_is_changed_in_place() -> None:
    weights, delta = WEIGHTS.copy(), DELTA.copy()
    weights.flags.writeable = delta.flags.writeable = False
    ServerSGD().step(weights, delta, {})
    assert weights.tolist() == WEIGHTS.tolist()


def test_constant_deltas_add_up() -> None:
    optimizer, weights = ServerSGD(0.25), WEIGHTS
    state = optimizer.init(3)
    for _ in range(8):
        weights, state = optimizer.step(weights, DELTA, state)
    assert weights.tolist() == (WEIGHTS + 2 * DELTA).tolist()


@pytest.mark.parametrize("rate", [0, -1, math.nan, math.inf])
def test_learning_rates_that_cannot_be_meant_are_refused(rate: float) -> None:
    with pytest.raises(StrategyError, match="'server-learning-rate' is"):
        ServerSGD(rate)


def test_it_works_with_any_delta() -> None:
    assert ServerSGD().guarantees == Guarantees()
