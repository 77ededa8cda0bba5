"""What every server optimizer keeps to: a pure step on flat vectors, whose state a checkpoint can hold."""

import io
import math

import numpy as np
import pytest

from strategies.errors import StrategyError
from strategies.fixed_point import BLOCK
from strategies.guarantees import Guarantees
from strategies.server_optimizers import (
    FedAdagrad,
    FedAdam,
    FedAvgM,
    FedYogi,
    KerasOptimizer,
    ServerOptimizer,
    ServerSGD,
)

SIZE = 7
OPTIMIZERS = {
    "sgd": ServerSGD(0.5),
    "fedavgm": FedAvgM(0.5),
    "nesterov": FedAvgM(0.5, nesterov=True),
    "fedadagrad": FedAdagrad(0.5),
    "fedadam": FedAdam(0.5),
    "fedyogi": FedYogi(0.5),
    "keras": KerasOptimizer("adam", learning_rate=0.5),
}

every = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)


def frozen(seed: int, size: int = SIZE) -> np.ndarray:
    """A random vector that nothing may write into."""
    vector = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    vector.flags.writeable = False
    return vector


@every
def test_a_step_changes_nothing_that_it_was_given(optimizer: ServerOptimizer) -> None:
    state = {name: array.copy() for name, array in optimizer.init(SIZE).items()}
    for array in state.values():
        array.flags.writeable = False
    weights, delta = frozen(1), frozen(2)
    stepped, after = optimizer.step(weights, delta, state)
    assert all(not np.shares_memory(stepped, array) for array in (weights, delta, *after.values()))
    again, after_again = optimizer.step(weights, delta, state)
    assert stepped.tobytes() == again.tobytes()
    assert {name: array.tobytes() for name, array in after.items()} == {
        name: array.tobytes() for name, array in after_again.items()
    }


@every
def test_weights_and_state_keep_their_shapes_and_dtypes(optimizer: ServerOptimizer) -> None:
    before = optimizer.init(SIZE)
    stepped, after = optimizer.step(frozen(1), frozen(2), before)
    assert (stepped.shape, stepped.dtype) == ((SIZE,), np.float32)
    assert {name: (array.shape, array.dtype) for name, array in before.items()} == {
        name: (array.shape, array.dtype) for name, array in after.items()
    }


@every
def test_a_checkpoint_goes_on_to_the_same_bits(optimizer: ServerOptimizer) -> None:
    weights, state = frozen(0), optimizer.init(SIZE)
    for turn in range(6):
        if turn == 3:
            file = io.BytesIO()
            np.savez(file, weights=weights, **{f"state-{name}": array for name, array in state.items()})
            file.seek(0)
            with np.load(file, allow_pickle=False) as left:
                read = {name: left[name] for name in left.files}
            other = read.pop("weights"), {name.removeprefix("state-"): array for name, array in read.items()}
        if turn >= 3:
            other = optimizer.step(other[0], frozen(10 + turn), other[1])
        weights, state = optimizer.step(weights, frozen(10 + turn), state)
    assert weights.tobytes() == other[0].tobytes()


@every
def test_a_step_goes_along_the_delta_and_zero_leaves_the_weights(optimizer: ServerOptimizer) -> None:
    delta, start = frozen(3), np.zeros(SIZE, np.float32)
    stepped, _ = optimizer.step(start, delta, optimizer.init(SIZE))
    assert (np.sign(stepped) == np.sign(delta)).all()
    still, _ = optimizer.step(frozen(1), start, optimizer.init(SIZE))
    np.testing.assert_array_equal(still, frozen(1))


@every
def test_every_coordinate_is_stepped_alone_whatever_the_length(optimizer: ServerOptimizer) -> None:
    """Blocks of coordinates do not show: a long vector is stepped as its pieces are."""
    size = 2 * BLOCK + 3
    weights, state = frozen(1, size), optimizer.init(size)
    for turn in (2, 3):
        weights, state = optimizer.step(weights, frozen(turn, size), state)
    pieces = []
    for part in (slice(0, 5), slice(5, BLOCK + 1), slice(BLOCK + 1, size)):
        piece, memory = frozen(1, size)[part], optimizer.init(len(range(*part.indices(size))))
        for turn in (2, 3):
            piece, memory = optimizer.step(piece, frozen(turn, size)[part], memory)
        pieces.append(piece)
    np.testing.assert_allclose(weights, np.concatenate(pieces), rtol=3e-7)  # vector instructions round as they like


@every
def test_it_works_with_any_delta(optimizer: ServerOptimizer) -> None:
    assert optimizer.guarantees == Guarantees()


@pytest.mark.parametrize("kind", [ServerSGD, FedAvgM, FedAdagrad, FedAdam, FedYogi])
@pytest.mark.parametrize("rate", [0, -1, math.nan, math.inf])
def test_learning_rates_that_cannot_be_meant_are_refused(kind: type, rate: float) -> None:
    with pytest.raises(StrategyError, match=f"'server-learning-rate' is {rate}, but must be a finite number above 0"):
        kind(learning_rate=rate)


@pytest.mark.parametrize(
    ("kind", "field"), [(FedAvgM, "momentum"), (FedAdam, "beta1"), (FedAdam, "beta2"), (FedYogi, "beta2")]
)
@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5, math.nan])
def test_decays_that_cannot_be_meant_are_refused(kind: type, field: str, value: float) -> None:
    with pytest.raises(StrategyError, match=f"'server-{field}' is {value}, but must be a number from 0 and below 1"):
        kind(**{field: value})


@pytest.mark.parametrize("kind", [FedAdagrad, FedAdam, FedYogi])
@pytest.mark.parametrize("epsilon", [0, -1e-3, math.nan, math.inf])
def test_an_epsilon_that_cannot_be_meant_is_refused(kind: type, epsilon: float) -> None:
    with pytest.raises(StrategyError, match="'server-epsilon' is"):
        kind(epsilon=epsilon)


def test_options_reach_every_part() -> None:
    options = {"server-learning-rate": 0.2, "server-momentum": 0.5, "server-nesterov": True}
    options |= {"server-beta1": 0.6, "server-beta2": 0.7, "server-epsilon": 0.01}
    assert FedAvgM.of(options) == FedAvgM(0.2, 0.5, nesterov=True)
    assert FedAdagrad.of(options) == FedAdagrad(0.2, 0.0, 0.01)
    assert FedAdam.of(options) == FedAdam(0.2, 0.6, 0.01, 0.7)
    assert FedYogi.of(options) == FedYogi(0.2, 0.6, 0.01, 0.7)
    chosen = {"server-optimizer": "keras:sgd", "server-optimizer-args": "momentum=0.5"}
    assert KerasOptimizer.of({**options, **chosen}) == KerasOptimizer("sgd", "momentum=0.5", 0.2)
