"""A client's training under DP-SGD: plain training where nothing is clipped and no noise put, and the noise alone."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tasks.data import Examples
from tasks.dp_sgd import DpSgd, NoisyBuffers, PoissonBatches
from tasks.errors import TaskError
from tasks.local_training import LocalTraining
from tasks.models import build_model
from tasks.training import Trainer, trainer
from tests.tasks.reference_loop import loss_function
from tests.tasks.streams import MemoryStream
from tests.tasks.test_training import assert_same, difference, examples, start_weights

USER, HERE = "tests.tasks.user_models:", "tests.tasks.private_models:"
SHAPE = (8, 8, 1)
HUGE = DpSgd(clip=1e6, noise_multiplier=0.0)


def private(model: str, dp_sgd: DpSgd, batch_size: int = 8, **keys: object) -> Trainer:
    return trainer(model, SHAPE, 10, LocalTraining(batch_size, dp_sgd=dp_sgd, **keys))


def draws(data: Examples, batch_size: int, steps: int, seed: int) -> list[np.ndarray]:
    """The client's batches once more, as indices."""
    batches = PoissonBatches(
        Examples(np.arange(len(data), dtype=np.float32), data.y), batch_size, steps, seed, HUGE
    )  # fmt: skip
    x, y = np.zeros((steps, batches.rows), np.float32), np.zeros((steps, batches.rows), np.int32)
    batches.fill(NoisyBuffers(x, y, np.zeros((steps, 1), np.float32), np.zeros(2, np.float32)))
    return [own[labels >= 0].astype(int) for own, labels in zip(x, y, strict=True)]


def reference(
    name: str,
    optimizer: keras.optimizers.Optimizer,
    weights: list[np.ndarray],
    data: Examples,
    batches: list[np.ndarray],
    expected: int,
    mu: float = 0.0,
    correction: list[np.ndarray] | None = None,
) -> tuple[list[np.ndarray], float]:
    """Train plainly, on the sum of each batch's losses over the expected size; return the mean loss too."""
    model = build_model(name, SHAPE, 10, seed=0)
    model.set_weights(weights)
    added = correction or [np.zeros(1)] * len(weights)
    variables, total = [v.value for v in model.trainable_variables], 0.0
    for batch in batches:
        with tf.GradientTape() as tape:
            empty = not len(batch)
            mean = 0.0 if empty else loss_function(model)(data.y[batch, None], model(data.x[batch], training=True))
            summed = tf.constant(0.0) + mean * len(batch)
            value = summed / expected + sum(model.losses)
        gradients = tape.gradient(value, variables, unconnected_gradients="zero")
        pulled = [
            g + mu * (v - w) + c for g, v, w, c in zip(gradients, variables, weights, added, strict=True)
        ]  # fmt: skip
        optimizer.apply(pulled, model.trainable_variables)
        total += float(summed)
    return model.get_weights(), total / sum(map(len, batches))


@pytest.mark.parametrize(
    ("model", "optimizer", "args", "rate"),
    [
        ("mlp", keras.optimizers.SGD, {}, 0.1),
        ("mlp", keras.optimizers.SGD, {"momentum": 0.9, "nesterov": True}, 0.05),
        ("cnn-small", keras.optimizers.Adam, {}, 0.001),
        (USER + "tiny", keras.optimizers.SGD, {"clipnorm": 0.1}, 0.1),  # its regularizers pull too
        (USER + "normed", keras.optimizers.AdamW, {"weight_decay": 0.01}, 0.01),
    ],
)
def test_without_noise_and_with_a_huge_clip_it_is_plain_training_on_the_same_batches(model, optimizer, args, rate):
    data, weights = examples(33), start_weights(model)
    text = ",".join(f"{key}={value}" for key, value in args.items())
    own = private(model, HUGE, epochs=2, optimizer=optimizer.__name__.lower(), optimizer_args=text)
    result = own.train(weights, data, rate, seed=7)
    batches = draws(data, 8, 10, seed=7)
    expected, loss = reference(model, optimizer(learning_rate=rate, **args), weights, data, batches, 8)
    assert difference(result.weights, weights) > 1e-3
    assert difference(result.weights, expected) <= 1e-5
    assert result.loss == pytest.approx(loss, abs=1e-5)
    assert (result.num_examples, result.steps) == (33, 10)


@pytest.mark.parametrize("model", ["mlp", "cnn-small"])
def test_each_microbatch_is_clipped_as_it_was_dealt(model):
    """By hand: the mean loss of each microbatch, its gradient, its norm; one program pads and the other cuts."""
    clip, parts, data, weights = 0.5, 3, examples(33), start_weights(model)
    dp_sgd = DpSgd(clip, 0.0, parts)
    batches = PoissonBatches(Examples(np.arange(33, dtype=np.float32), data.y), 12, 1, 7, dp_sgd)
    x, y = np.zeros((1, batches.rows), np.float32), np.zeros((1, batches.rows), np.int32)
    batches.fill(NoisyBuffers(x, y, np.zeros((1, 1), np.float32), np.zeros(2, np.float32)))
    keras_model = build_model(model, SHAPE, 10, seed=0)
    keras_model.set_weights(weights)
    total = [np.zeros(variable.shape) for variable in keras_model.trainable_variables]
    for part in range(parts):
        own = x[0, part::parts][y[0, part::parts] >= 0].astype(int)
        with tf.GradientTape() as tape:
            losses = loss_function(keras_model)(data.y[own, None], keras_model(data.x[own], training=True))
            value = losses * len(own) / (12 / parts)
        gradients = tape.gradient(value, keras_model.trainable_variables)
        factor = min(1.0, clip / float(tf.linalg.global_norm(gradients)))
        assert factor < 1
        total = [before + factor * gradient for before, gradient in zip(total, gradients, strict=True)]
    expected = [weight - 0.1 * summed / parts for weight, summed in zip(weights, total, strict=True)]
    own = private(model, dp_sgd, 12, steps=1).train(weights, data, 0.1, seed=7)
    assert difference(own.weights, expected) <= 1e-6


@pytest.mark.parametrize("model", ["logistic", "mlp"])
def test_a_client_no_larger_than_a_batch_trains_as_without_privacy(model):
    data, weights = examples(6), start_weights(model)
    own = private(model, HUGE, epochs=3).train(weights, data, 0.1, seed=2)
    plain = trainer(model, SHAPE, 10, LocalTraining(8, epochs=3)).train(weights, data, 0.1, seed=2)
    assert difference(own.weights, plain.weights) <= 1e-5
    assert (own.loss, own.accuracy) == (pytest.approx(plain.loss, abs=1e-5), plain.accuracy)


@pytest.mark.parametrize("microbatches", [0, 3])
def test_the_terms_of_an_objective_are_neither_clipped_nor_divided(microbatches):
    data, weights = examples(33), start_weights("mlp")
    correction = [np.full(weight.shape, 0.01, np.float32) for weight in weights]
    own = private("mlp", DpSgd(1e6, 0.0, microbatches)).train(weights, data, 0.1, 7, mu=0.5, correction=correction)
    batches = draws(data, 8, 5, seed=7)
    expected, _ = reference("mlp", keras.optimizers.SGD(0.1), weights, data, batches, 8, 0.5, correction)
    assert difference(own.weights, expected) <= 1e-5
    tiny = private("mlp", DpSgd(1e-9, 0.0, microbatches)).train(weights, data, 0.1, 7, correction=correction)
    assert difference(tiny.weights, [weight - 5 * 0.1 * 0.01 for weight in weights]) <= 1e-6


@pytest.mark.parametrize("dp_sgd", [DpSgd(1e-12, 2e12), DpSgd(1e-12, 1e12, microbatches=4)])
def test_the_noise_of_a_step_has_its_deviation_whoever_is_drawn(dp_sgd):
    weights = start_weights("mlp")  # 55,210 parameters
    for seed, n in enumerate((3, 20, 200)):  # all of them, a few, and many; the clipped gradients are nothing beside it
        data = examples(n, seed=seed)
        one = private("mlp", dp_sgd, batch_size=8, steps=1).train(weights, data, 0.5, seed)
        moved = np.concatenate([(a - b).ravel() for a, b in zip(one.weights, weights, strict=True)]).astype(float)
        divisor = dp_sgd.microbatches or min(8, n)
        drawn = moved / -0.5 * divisor
        assert drawn.std() == pytest.approx(2.0, rel=0.015)  # 5 deviations of its estimate: p < 1e-6
        assert abs(drawn.mean()) < 5 * 2 / math.sqrt(len(drawn))
        assert len(np.unique(drawn)) > 0.99 * len(drawn)


def test_the_noise_on_the_sum_has_sd_z_times_clip_within_a_hundredth_over_1e5_draws():
    weights = start_weights("mlp")
    own = private("mlp", DpSgd(clip=0.5, noise_multiplier=1.2), steps=1)
    silent = private("mlp", DpSgd(clip=0.5, noise_multiplier=0.0), steps=1)
    data, noise = examples(30), []
    for seed in range(2):  # x 55,210 parameters
        pair = (model.train(weights, data, 1.0, seed).weights for model in (own, silent))
        noise += [8 * (a - b).ravel() for a, b in zip(*pair, strict=True)]
    drawn = np.concatenate(noise).astype(float)
    assert len(drawn) > 1e5
    assert drawn.std() == pytest.approx(0.6, rel=0.01)  # 4.5 deviations of its estimate
    assert abs(drawn.mean()) < 5 * 0.6 / math.sqrt(len(drawn))


def test_steps_and_parameters_have_noise_of_their_own():
    dp_sgd, weights, data = DpSgd(1e-12, 1e12), start_weights("logistic"), examples(40)
    steps = [private("logistic", dp_sgd, steps=n).train(weights, data, 1.0, seed=4).weights for n in (1, 2)]
    first = np.concatenate([(a - b).ravel() for a, b in zip(steps[0], weights, strict=True)])
    second = np.concatenate([(a - b).ravel() for a, b in zip(steps[1], steps[0], strict=True)])
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / math.sqrt(650)
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 5 / math.sqrt(650)


@pytest.mark.parametrize("model", ["mlp", HERE + "dropout", HERE + "dropout_and_norm", "cnn-small"])
def test_a_seed_gives_the_same_bits_alone_and_after_others(model):
    own = private(model, DpSgd(1.0, 1.1), epochs=2, optimizer="adam")
    weights, data = start_weights(model), examples(21, seed=2)
    alone = own.train(weights, data, 0.01, seed=5)
    own.train([w + 0.5 for w in weights], examples(50, seed=3), 0.3, seed=6)
    after = own.train(weights, data, 0.01, seed=5)
    assert_same(alone.weights, after.weights)
    assert (alone.loss, alone.accuracy) == (after.loss, after.accuracy)
    assert difference(own.train(weights, data, 0.01, seed=2**127).weights, alone.weights) > 0  # as a system's entropy


@pytest.mark.parametrize("model", ["mlp", "cnn-small", USER + "normed"])
def test_a_long_training_in_several_calls_gives_the_same(model, monkeypatch):
    weights, data = start_weights(model), examples(40)
    own = private(model, DpSgd(1.0, 1.1), epochs=2, optimizer="sgd", optimizer_args="momentum=0.9")
    expected = own.train(weights, data, 0.1, seed=5)
    own.private.program.cache_clear()
    monkeypatch.setattr("tasks.private_training.MAX_STEPS", 3)
    try:
        result = own.train(weights, data, 0.1, seed=5)
        assert difference(result.weights, expected.weights) <= 1e-6
        assert result.loss == pytest.approx(expected.loss, abs=1e-6)
    finally:
        own.private.program.cache_clear()


@pytest.mark.parametrize("model", ["mlp", "cnn-small", USER + "normed"])
def test_steps_that_draw_nobody_release_noise_alone(model):
    weights, data, own = start_weights(model), examples(50), private(model, DpSgd(1.0, 1.0), batch_size=1, steps=1)
    seed = next(seed for seed in range(100) if not len(draws(data, 1, 1, seed)[0]))
    result = own.train(weights, data, 0.1, seed)
    assert math.isnan(result.loss)
    assert math.isnan(result.accuracy)
    moved = np.concatenate([(a - b).ravel() for a, b in zip(result.weights, weights, strict=True)]) / 0.1
    assert moved.std() == pytest.approx(1.0, rel=5 / math.sqrt(2 * len(moved)))


@pytest.mark.parametrize("bad", [math.nan, math.inf, 3e38])
def test_an_example_that_is_not_finite_leaves_the_model_finite(bad):
    data = examples(12)
    data.x[3] = bad
    result = private("mlp", DpSgd(1.0, 0.5), batch_size=12).train(start_weights("mlp"), data, 0.1, seed=1)
    assert all(np.isfinite(weight).all() for weight in result.weights)


def test_clients_named_together_train_as_each_alone():
    own, weights = private("logistic", DpSgd(1.0, 1.0)), start_weights("logistic")
    data, seeds = [examples(n, seed=n) for n in (5, 20, 33)], [1, 2, 3]
    for result, part, seed in zip(
        own.train_together(weights, data, 0.1, seeds, [1.0] * 3), data, seeds, strict=True
    ):  # fmt: skip
        assert_same(result.weights, own.train(weights, part, 0.1, seed).weights)
    assert own.stacked is None


def test_streams_and_batch_normalisation_are_refused():
    own = private("mlp", HUGE)
    with pytest.raises(TaskError, match="it takes no streams, only data in memory"):
        own.train(start_weights("mlp"), MemoryStream(examples(20)), 0.1, seed=1)
    with pytest.raises(TaskError, match="keeps statistics of its examples"):
        private(USER + "batch_norm", HUGE)
