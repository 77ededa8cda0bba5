"""Clients that train in groups: each as if it were alone, by the reference, by the one-by-one path, and bit by bit."""

import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tasks.data import ClientData, Examples
from tasks.errors import TaskError
from tasks.local_training import LocalTraining
from tasks.models import build_model
from tasks.optimizers import make_optimizer
from tasks.stacking import GROUP, trains_stacked
from tasks.together import Job, groups
from tasks.training import Trainer, TrainResult, trainer
from tests.tasks.reference_loop import epochs_of_batches, reference_train
from tests.tasks.streams import MemoryStream

USER = "tests.tasks.user_models:"
SHAPE = (4, 4, 1)
SIZES = (20, 5, 33, 8, 1, 17, 40, 9, 26, 3, 12)  # more than one group; clients of 1 to 5 steps
REPOSITORY = Path(__file__).resolve().parents[2]
NO_SEEDS = np.zeros((0, 2), np.int64)


def client(n: int, classes: int = 10, seed: int = 0) -> Examples:
    generator = np.random.default_rng((n, seed))
    x = generator.normal(size=(n, *SHAPE)).astype(np.float32)
    return Examples(x, generator.integers(0, classes, n).astype(np.int32))


def weights_of(own: Trainer) -> list[np.ndarray]:
    generator = np.random.default_rng(3)
    return [generator.normal(0, 0.3, weight.shape).astype(np.float32) for weight in own.compiled.model.weights]


def together(
    own: Trainer, data: Sequence[ClientData], rate: float = 0.1, seeds: Sequence[int] = ()
) -> list[TrainResult]:
    return own.train_together(weights_of(own), data, rate, seeds or range(len(data)), [1.0] * len(data))


def one_by_one(own: Trainer) -> Trainer:
    return replace(own, stacked=None)


def difference(one: TrainResult, two: list[np.ndarray]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(one.weights, two, strict=True))


def assert_same(one: TrainResult, two: TrainResult) -> None:
    for a, b in zip(one.weights, two.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (one.loss, one.accuracy, one.steps, one.num_examples) == (
        two.loss,
        two.accuracy,
        two.steps,
        two.num_examples,
    )


@pytest.mark.parametrize(
    ("model", "classes", "optimizer", "args", "rate"),
    [
        ("logistic", 10, "SGD", {}, 0.1),
        ("logistic", 2, "SGD", {"momentum": 0.9}, 0.1),
        (USER + "tiny", 10, "SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}, 0.05),
        (USER + "tiny", 10, "Adam", {}, 0.01),
        (USER + "tiny", 2, "Adam", {"amsgrad": True, "clipvalue": 0.1}, 0.01),
        (USER + "softmax", 10, "AdamW", {}, 0.01),
        (USER + "sigmoid", 2, "Adamax", {}, 0.01),
        (USER + "shared", 10, "SGD", {}, 0.1),
        ("logistic", 10, "Nadam", {}, 0.01),
        ("logistic", 10, "RMSprop", {"momentum": 0.5, "centered": True}, 0.01),
        ("logistic", 10, "Adagrad", {}, 0.1),
        ("logistic", 10, "Adadelta", {}, 1.0),
        ("logistic", 10, "Ftrl", {}, 0.1),
        ("logistic", 10, "Lion", {}, 0.001),
    ],
)
def test_a_group_equals_the_eager_reference_loop_and_clients_one_by_one(model, classes, optimizer, args, rate):
    text = ",".join(f"{key}={value}" for key, value in args.items())
    local = LocalTraining(8, epochs=2, optimizer=optimizer.lower(), optimizer_args=text)
    own, data = trainer(model, SHAPE, classes, local), [client(n, classes) for n in SIZES]
    assert own.stacked is not None
    built = build_model(model, SHAPE, classes, seed=0)  # whose weights every reference begins with setting
    for seed, (examples, result) in enumerate(zip(data, together(own, data, rate), strict=True)):
        batches = epochs_of_batches(len(examples), 8, 2, seed=seed)
        made = getattr(keras.optimizers, optimizer)(learning_rate=rate, **args)
        expected, loss = reference_train(built, made, weights_of(own), examples, batches, NO_SEEDS)
        alone = one_by_one(own).train(weights_of(own), examples, rate, seed)
        assert difference(result, weights_of(own)) > 1e-4
        assert difference(result, expected) <= 1e-5
        assert difference(result, alone.weights) <= 1e-5
        assert result.loss == pytest.approx(loss, abs=1e-5)
        assert result.accuracy == alone.accuracy
        assert (result.num_examples, result.steps) == (len(examples), len(batches))


@pytest.mark.parametrize(
    ("model", "batch_size", "optimizer"),
    [("logistic", 8, "sgd"), (USER + "tiny", 5, "adam"), (USER + "tiny", 32, "nadam")],
)
def test_a_client_gets_the_same_bits_in_any_place_beside_any_others(model, batch_size, optimizer):
    own = trainer(model, SHAPE, 10, LocalTraining(batch_size, epochs=2, optimizer=optimizer))
    data, generator = [client(n) for n in SIZES], np.random.default_rng(0)
    alone = [own.train(weights_of(own), examples, 0.1, seed) for seed, examples in enumerate(data)]
    for _ in range(40):
        chosen = generator.choice(len(data), generator.integers(1, 2 * GROUP + 2)).tolist()
        for place, result in zip(chosen, together(own, [data[p] for p in chosen], seeds=chosen), strict=True):
            assert_same(result, alone[place])


def test_every_call_trains_on_its_own_arguments():
    own, plain = (trainer("logistic", SHAPE, 10, LocalTraining(8)) for _ in range(2))
    for call in range(60):
        data = [client(n, seed=100 * call) for n in SIZES[: 1 + call % len(SIZES)]]
        start, rate = [weight + np.float32(0.01 * call) for weight in weights_of(own)], 0.01 + 0.01 * call
        results = own.train_together(start, data, rate, range(len(data)), [1.0] * len(data))
        for seed, (examples, result) in enumerate(zip(data, results, strict=True)):
            assert difference(result, one_by_one(plain).train(start, examples, rate, seed).weights) <= 1e-5


def test_results_stay_as_they_are_and_cannot_be_written():
    own = trainer("logistic", SHAPE, 10, LocalTraining(8))
    results = together(own, [client(n) for n in SIZES])
    copies = [[weight.copy() for weight in result.weights] for result in results]
    together(own, [client(n, seed=1) for n in SIZES])
    for result, copy in zip(results, copies, strict=True):
        assert difference(result, copy) == 0
    with pytest.raises(ValueError, match="read-only"):
        results[0].weights[0][:] = 0


def test_trainings_of_different_lengths_in_several_calls_give_the_same_bits(monkeypatch):
    own, data = (
        trainer(USER + "tiny", SHAPE, 10, LocalTraining(4, epochs=2, optimizer="adam")),
        [client(n) for n in SIZES],
    )
    expected = together(own, data)
    own.stacked.program.cache_clear()
    monkeypatch.setattr("tasks.together.MAX_STEPS", 3)
    try:
        for result, other in zip(together(own, data), expected, strict=True):
            assert difference(result, other.weights) <= 1e-6
            assert (result.loss, result.steps) == (pytest.approx(other.loss, abs=1e-6), other.steps)
    finally:
        own.stacked.program.cache_clear()


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30])
def test_a_client_that_diverges_leaves_the_others_as_they_are(bad):
    own, data = (
        trainer(USER + "tiny", SHAPE, 10, LocalTraining(8, epochs=2, optimizer="adam")),
        [client(n) for n in SIZES],
    )
    expected = together(own, data)
    spoilt = [
        Examples(examples.x * np.float32(bad), examples.y) if k in (2, 4) else examples
        for k, examples in enumerate(data)
    ]
    for k, (result, other) in enumerate(zip(together(own, spoilt), expected, strict=True)):
        if k not in (2, 4):
            assert_same(result, other)
    for result, other in zip(together(own, data[:3]), expected, strict=False):  # nor is anything of it left
        assert_same(result, other)


def test_streams_shares_and_sizes_may_be_mixed():
    own, data = trainer("logistic", SHAPE, 10, LocalTraining(32)), [client(n) for n in (70, 6, 8, 9, 33)]
    mixed = [
        data[0],
        MemoryStream(data[1]),
        data[2],
        MemoryStream(data[3]),
        data[4],
    ]  # batches of up to 8 and of up to 32
    shares = [0.4, 1.0, 0.5, 1.0, 1.0]
    results = own.train_together(weights_of(own), mixed, 0.1, range(5), shares)
    assert [result.steps for result in results] == [1, 1, 1, 1, 2]
    assert [result.num_examples for result in results] == [70, 6, 8, 9, 33]
    for seed, (examples, share, result) in enumerate(zip(data, shares, results, strict=True)):
        assert_same(result, own.train(weights_of(own), examples, 0.1, seed, share))


@pytest.mark.parametrize("model", ["logistic", "mlp-dropout"])
def test_who_does_not_fit_is_named_for_all(model):
    own, data = trainer(model, SHAPE, 10, LocalTraining(8)), [client(n) for n in (5, 6)]
    for wrong, sentence in ((client(0), "without training examples"), (client(9, classes=90), "Labels out of range")):
        with pytest.raises(TaskError, match=sentence):
            together(own, [*data, wrong])
    with pytest.raises(TaskError, match="ended before the 50 that it announced"):
        together(own, [*data, MemoryStream(client(5), announced=50)])
    with pytest.raises(TaskError, match="share=0"):
        own.train_together(weights_of(own), data, 0.1, [0, 1], [1.0, 0])
    assert own.train_together(weights_of(own), [], 0.1, [], []) == []


def test_other_models_train_one_by_one_and_wide_batches_too():
    for model, batch_size in (("mlp-dropout", 8), (USER + "normed", 8), ("logistic", 40)):
        own = trainer(model, SHAPE, 10, LocalTraining(batch_size, optimizer="rmsprop", optimizer_args="rho=0.8"))
        data = [client(n) for n in (40, 60)]
        for seed, (examples, result) in enumerate(zip(data, together(own, data), strict=True)):
            assert_same(result, one_by_one(own).train(weights_of(own), examples, 0.1, seed))
        assert own.stacked is None or own.stacked.program.cache_info().currsize == 0


def test_groups_are_of_one_width_and_the_longest_first():
    jobs = [Job(None, steps, width, NO_SEEDS) for steps, width in [(1, 8), (9, 8), (5, 32)] + [(4, 8)] * GROUP]
    assert list(groups(jobs)) == [[1, *range(3, 3 + GROUP - 1)], [2 + GROUP, 0], [2]]


layers = keras.layers


class Mine(layers.Dense):
    """A user's layer."""


@pytest.mark.parametrize(
    ("optimizer", "args", "expected"),
    [
        ("sgd", "", True),
        ("adam", "clipvalue=1.0", True),
        ("sgd", "clipnorm=1.0", False),
        ("sgd", "global_clipnorm=1.0", False),
        ("adam", "use_ema=true", False),
        ("adam", "gradient_accumulation_steps=2", False),
        ("lamb", "", False),
        ("muon", "", False),
        ("adafactor", "", False),
        ("schedulefreeadamw", "", False),
    ],
)
def test_optimizers_that_mix_numbers_do_not_take_groups(optimizer, args, expected):
    assert trains_stacked(build_model("logistic", SHAPE, 10, 0), make_optimizer(optimizer, args)) is expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (lambda: build_model("logistic", (8, 8, 1), 10, 0), True),
        (lambda: build_model("logistic", (28, 28, 1), 10, 0), False),
        (lambda: build_model("mlp", (8, 8, 1), 10, 0), False),
        (lambda: build_model("mlp-dropout", SHAPE, 10, 0), False),
        (lambda: build_model(USER + "tiny", SHAPE, 10, 0), True),
        (lambda: build_model(USER + "normed", SHAPE, 10, 0), False),
        (lambda: build_model(USER + "subclassed", SHAPE, 10, 0), False),
        (lambda: build_model(USER + "shared", SHAPE, 10, 0), True),
        (lambda: keras.Sequential([keras.Input((4,)), Mine(3)]), False),
        (lambda: keras.Sequential([keras.Input((4,)), layers.Dense(3, kernel_constraint="max_norm")]), False),
        (
            lambda: keras.Sequential([keras.Input((4,)), layers.Dense(3, kernel_regularizer="orthogonal_regularizer")]),
            False,
        ),
    ],
)
def test_tiny_dense_models_take_groups(model, expected, monkeypatch):
    assert trains_stacked(model(), make_optimizer("sgd")) is expected
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind])
    assert not trains_stacked(model(), make_optimizer("sgd"))


FRESH = """
import numpy as np
from tasks.data import Examples
from tasks.local_training import LocalTraining
from tasks.training import trainer, use_one_thread

use_one_thread()
own = trainer("logistic", (6,), 3, LocalTraining(8))
generator = np.random.default_rng(0)
for call in range(300):
    data = []
    for n in generator.integers(1, 9, 1 + call % 9):  # one step each
        data.append(Examples(generator.normal(size=(n, 6)).astype("f4"), generator.integers(0, 3, n).astype("i4")))
    kernel, bias = (generator.normal(size=shape).astype("f4") for shape in ((6, 3), (3,)))
    kernel.flags.writeable = bias.flags.writeable = call % 2 == 0
    results = own.train_together([kernel, bias], data, 0.1, range(len(data)), [1.0] * len(data))
    for examples, result in zip(data, results, strict=True):
        logits = examples.x @ kernel + bias
        softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        error = (softmax - np.eye(3)[examples.y]) / len(examples)
        assert np.abs(result.weights[0] - (kernel - 0.1 * examples.x.T @ error)).max() < 1e-5, call
        assert np.abs(result.weights[1] - (bias - 0.1 * error.sum(0))).max() < 1e-5, call
        assert abs(result.loss + np.log(softmax[np.arange(len(examples)), examples.y]).mean()) < 1e-5, call
print("all their own")
"""


def test_from_the_first_call_of_a_process_on_every_step_is_the_closed_form():
    done = subprocess.run([sys.executable, "-c", FRESH], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "all their own"


def test_no_more_clients_together_than_memory_for_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logistic regression on 8x8 digits has 650 parameters of four bytes."""
    local = LocalTraining(batch_size=10, epochs=1)
    most = []
    for waiting in (32 * 2600, 3 * 2600, 2599, 0):
        monkeypatch.setattr("tasks.training.WAITING_BYTES", waiting)
        most.append(trainer("logistic", (8, 8, 1), 10, local).most_together)
    assert most == [32, 3, 1, 1]
