"""Keras optimizers on the server: as Keras steps, as other libraries do, and refused where they make no sense."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from strategies.errors import StrategyError
from strategies.server_optimizers import FedAvgM, KerasOptimizer, ServerSGD
from strategies.server_optimizers.keras_optimizer import LEFT_OUT, NAMES

SIZE = 6


def deltas(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(4).normal(size=(count, SIZE)).astype(np.float32))


def start() -> np.ndarray:
    return np.random.default_rng(1).normal(size=SIZE).astype(np.float32)


def trained(optimizer: KerasOptimizer | FedAvgM | ServerSGD, count: int) -> np.ndarray:
    weights, state = start(), optimizer.init(SIZE)
    for delta in deltas(count):
        weights, state = optimizer.step(weights, delta, state)
    return weights


@pytest.mark.parametrize("name", NAMES)
def test_many_steps_are_those_of_one_optimizer_that_is_kept(name: str) -> None:
    kept = keras.optimizers.get({"class_name": name, "config": {"learning_rate": 0.1}})
    variable = keras.Variable(start())
    for delta in deltas(7):
        kept.apply([tf.constant(-delta)], [variable])
    assert trained(KerasOptimizer(name, learning_rate=0.1), 7).tobytes() == variable.numpy().tobytes()


def test_adam_by_the_book() -> None:
    """Kingma and Ba (2015), algorithm 1, in float64."""
    x, m, v = start().astype(np.float64), np.zeros(SIZE), np.zeros(SIZE)
    for t, delta in enumerate(deltas(9), 1):
        g = -delta.astype(np.float64)
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        x -= 0.05 * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.9**t)) + 1e-12)
    ours = trained(KerasOptimizer("adam", "beta_1=0.8, beta_2=0.9, epsilon=1e-12", 0.05), 9)
    np.testing.assert_allclose(ours, x, rtol=1e-5, atol=1e-6)


def test_its_sgd_is_ours() -> None:
    np.testing.assert_allclose(trained(KerasOptimizer("sgd"), 5), trained(ServerSGD(), 5), rtol=1e-6)
    plain = KerasOptimizer("sgd", "momentum=0.9", 0.5)
    np.testing.assert_allclose(trained(plain, 9), trained(FedAvgM(0.5, 0.9), 9), rtol=1e-5)
    nesterov = KerasOptimizer("sgd", "momentum=0.9,nesterov=true", 0.5)
    np.testing.assert_allclose(trained(nesterov, 9), trained(FedAvgM(0.5, 0.9, nesterov=True), 9), rtol=1e-5)


def test_arguments_reach_keras() -> None:
    """AdamW's decay shrinks weights that no delta moves, by 1 - rate * decay."""
    optimizer = KerasOptimizer("adamw", "weight_decay=0.5", 0.1)
    still, _ = optimizer.step(start(), np.zeros(SIZE, np.float32), optimizer.init(SIZE))
    np.testing.assert_allclose(still, 0.95 * start(), rtol=1e-6)


def test_the_names_in_its_state_do_not_depend_on_what_else_keras_has_made() -> None:
    optimizer = KerasOptimizer("nadam")
    before = optimizer.init(SIZE)
    keras.Variable(0.0)
    _, after = optimizer.step(start(), start(), before)
    assert list(before) == list(after) == ["slot-0", "slot-1", "slot-2", "slot-3"]


def test_the_learning_rate_is_the_configs_and_not_the_states() -> None:
    state = KerasOptimizer("sgd", learning_rate=0.1).init(SIZE)
    stepped, _ = KerasOptimizer("sgd", learning_rate=0.5).step(start(), start(), state)
    np.testing.assert_allclose(stepped, 1.5 * start(), rtol=1e-6)


def test_every_optimizer_of_keras_is_offered_or_left_out_for_a_reason() -> None:
    """Beside them Keras has the class of all and three that are made of others."""
    offered = {
        name.lower()
        for name, value in vars(keras.optimizers).items()
        if isinstance(value, type) and issubclass(value, keras.optimizers.Optimizer)
    }
    others = {"optimizer", "lossscaleoptimizer", "multioptimizer", "optimizermap"}
    assert offered - others == {*NAMES, *LEFT_OUT}


def test_ftrl_does_forget_the_weights() -> None:
    variable = keras.Variable(np.ones(SIZE, np.float32))
    keras.optimizers.Ftrl(0.1).apply([tf.zeros(SIZE)], [variable])
    assert variable.numpy().tolist() == [0.0] * SIZE


@pytest.mark.parametrize("name", ["adm", "Adam", "lamb", ""])
def test_unknown_names(name: str) -> None:
    with pytest.raises(StrategyError, match=f"'server-optimizer' is 'keras:{name}', but after 'keras:' must stand one"):
        KerasOptimizer(name)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ("momentum", "'momentum', but must be NAME=VALUE pairs with commas between them"),
        ("momentum=", "NAME=VALUE pairs"),
        ("momentum=nan", "NAME=VALUE pairs"),
        ("momentum=0.9,momentum=0.8", "NAME=VALUE pairs"),
        ("momentum=0.9,learning_rate=2", "set the learning rate with 'server-learning-rate'"),
        ("momentum=2", "Keras refuses this for 'sgd'"),
        ("beta=0.9", "Keras refuses this for 'sgd'"),
    ],
)
def test_bad_arguments(args: str, sentence: str) -> None:
    with pytest.raises(StrategyError, match=f"'server-optimizer-args' is .*{sentence}"):
        KerasOptimizer("sgd", args)


def test_a_bad_learning_rate() -> None:
    with pytest.raises(StrategyError, match="'server-learning-rate' is 0"):
        KerasOptimizer("sgd", learning_rate=0)


def test_the_other_strategies_do_without_keras() -> None:
    """Somebody who trains with another framework imports the strategies alone."""
    code = (
        "import sys; sys.modules['keras'] = sys.modules['tensorflow'] = None\n"
        "from strategies.server_optimizers import FedAdam, KerasOptimizer\n"
        "FedAdam()\n"
        "try: KerasOptimizer('adam')\n"
        "except Exception as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "needs the package keras, which is not installed" in done.stdout
