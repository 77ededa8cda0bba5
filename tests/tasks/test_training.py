import math
import subprocess
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest

from tasks.data import Examples
from tasks.errors import TaskError
from tasks.local_training import LocalTraining
from tasks.models import build_model
from tasks.training import trainer
from tests.tasks.reference_loop import epochs_of_batches, loss_function, reference_train
from tests.tasks.streams import MemoryStream

USER = "tests.tasks.user_models:"
SHAPE = (8, 8, 1)
REPOSITORY = Path(__file__).resolve().parents[2]


def examples(n: int, shape: tuple[int, ...] = SHAPE, classes: int = 10, seed: int = 0) -> Examples:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, *shape)).astype(np.float32)
    return Examples(x, generator.integers(0, classes, n).astype(np.int32))


def start_weights(model: str, shape: tuple[int, ...] = SHAPE, classes: int = 10) -> list[np.ndarray]:
    built = build_model(model, shape, classes, seed=42)
    built(np.zeros((1, *shape), np.float32))
    return built.get_weights()


def difference(one: list[np.ndarray], two: list[np.ndarray]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(one, two, strict=True))


def assert_same(one: list[np.ndarray], two: list[np.ndarray]) -> None:
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("model", "classes", "optimizer", "args", "rate"),
    [
        ("mlp", 10, keras.optimizers.SGD, {}, 0.1),
        ("mlp", 10, keras.optimizers.SGD, {"momentum": 0.9, "nesterov": True}, 0.05),
        ("mlp-dropout", 10, keras.optimizers.SGD, {}, 0.1),
        ("cnn-small", 10, keras.optimizers.Adam, {}, 0.001),
        ("cnn-cifar", 10, keras.optimizers.SGD, {"momentum": 0.5}, 0.05),
        ("logistic", 2, keras.optimizers.SGD, {"clipnorm": 0.1}, 0.1),
        ("logistic", 10, keras.optimizers.SGD, {"use_ema": True, "ema_momentum": 0.8}, 0.1),
        ("logistic", 10, keras.optimizers.Adam, {"gradient_accumulation_steps": 2}, 0.01),
        (USER + "batch_norm", 10, keras.optimizers.SGD, {"momentum": 0.9}, 0.05),
        (USER + "batch_norm", 10, keras.optimizers.Nadam, {}, 0.01),
        (USER + "softmax", 10, keras.optimizers.SGD, {}, 0.1),
        (USER + "sigmoid", 2, keras.optimizers.AdamW, {"weight_decay": 0.01}, 0.01),
    ],
)
def test_equals_the_eager_reference_loop(model, classes, optimizer, args, rate):
    data = examples(33, classes=classes)  # batches of 8: every epoch ends with a batch of one
    weights = start_weights(model, classes=classes)
    text = ",".join(f"{key}={value}" for key, value in args.items())
    local = LocalTraining(batch_size=8, epochs=2, optimizer=optimizer.__name__.lower(), optimizer_args=text)
    own = trainer(model, SHAPE, classes, local)
    result = own.train(weights, data, rate, seed=7)
    expected, loss = reference_train(
        build_model(model, SHAPE, classes, seed=0),
        optimizer(learning_rate=rate, **args),
        weights,
        data,
        epochs_of_batches(33, 8, 2, seed=7),
        own.compiled.seeds(7),
    )
    assert difference(result.weights, weights) > 1e-3
    assert difference(result.weights, expected) <= 1e-5
    assert result.loss == pytest.approx(loss, abs=1e-5)
    assert (result.num_examples, result.steps) == (33, 10)


@pytest.mark.parametrize(
    "name",
    [
        "Adadelta",
        "Adafactor",
        "Adagrad",
        "Adam",
        "AdamW",
        "Adamax",
        "Ftrl",
        "Lamb",
        "Lion",
        "Muon",
        "Nadam",
        "RMSprop",
        "SGD",
        "ScheduleFreeAdamW",
    ],
)
def test_every_keras_optimizer_starts_afresh_and_equals_the_reference(name):
    data, weights = examples(20, (5,), 3), start_weights("mlp", (5,), 3)
    own = trainer("mlp", (5,), 3, LocalTraining(batch_size=8, optimizer=name.lower()))
    optimizer = getattr(keras.optimizers, name)(learning_rate=0.01)
    own.train([w + 1 for w in weights], examples(40, (5,), 3, seed=9), 0.5, seed=1)  # moves the optimizer's state
    result = own.train(weights, data, 0.01, seed=3)
    model = build_model("mlp", (5,), 3, seed=0)
    model.set_weights(weights)  # before the optimizer is built: ScheduleFreeAdamW copies them
    expected, _ = reference_train(
        model, optimizer, weights, data, epochs_of_batches(20, 8, 1, seed=3), np.zeros((0, 2), np.int64)
    )
    assert difference(result.weights, expected) <= 1e-5


@pytest.mark.parametrize("model", ["mlp", "cnn-cifar", USER + "batch_norm", USER + "subclassed"])
@pytest.mark.parametrize("optimizer", ["adam", "schedulefreeadamw"])
def test_a_client_trains_the_same_alone_and_after_another(model, optimizer):
    own = trainer(model, SHAPE, 10, LocalTraining(batch_size=8, optimizer=optimizer))
    weights, data = start_weights(model), examples(21, seed=2)
    alone = own.train(weights, data, 0.01, seed=5)
    own.train([w + 0.5 for w in weights], examples(50, seed=3), 0.3, seed=6)
    own.evaluate([w - 0.5 for w in weights], examples(50, seed=3))
    after = own.train(weights, data, 0.01, seed=5)
    assert_same(alone.weights, after.weights)
    assert (alone.loss, alone.accuracy) == (after.loss, after.accuracy)


@pytest.mark.parametrize(
    ("model", "batch_size", "n"),
    [("mlp", 8, 1), ("mlp", 40, 9), ("mlp", 40, 10), ("mlp", 40, 11), ("mlp", 500, 33), (USER + "batch_norm", 40, 9)],
)
def test_short_batches_weigh_their_own_examples_alone(model, batch_size, n):
    data, weights = examples(n), start_weights(model)
    own = trainer(model, SHAPE, 10, LocalTraining(batch_size, epochs=3, optimizer="adam"))
    result = own.train(weights, data, 0.01, seed=7)
    expected, loss = reference_train(
        build_model(model, SHAPE, 10, seed=0),
        keras.optimizers.Adam(0.01),
        weights,
        data,
        epochs_of_batches(n, batch_size, 3, seed=7),
        own.compiled.seeds(7),
    )
    assert difference(result.weights, expected) <= 1e-5
    assert result.loss == pytest.approx(loss, abs=1e-5)
    hits = result.accuracy * 3 * n
    assert 0 <= hits <= 3 * n
    assert hits == pytest.approx(round(hits), abs=1e-9)


@pytest.mark.parametrize(("model", "args"), [("mlp", "momentum=0.9"), ("mlp-dropout", "use_ema=true")])
def test_a_long_training_in_several_calls_equals_the_reference(model, args, monkeypatch):
    monkeypatch.setattr("tasks.compiled.MAX_STEPS", 3)
    data, weights = examples(30), start_weights(model)
    own = trainer(model, SHAPE, 10, LocalTraining(4, epochs=2, optimizer="sgd", optimizer_args=args + ",nesterov=true"))
    own.compiled.program.cache_clear()
    for steps in (16, 2):  # and a short one after it is none of its
        share = steps / 16
        result = own.train(weights, data, 0.1, seed=7, share=share)
        keywords = {"momentum": 0.9} if "momentum" in args else {"use_ema": True}
        expected, loss = reference_train(
            build_model(model, SHAPE, 10, seed=0),
            keras.optimizers.SGD(0.1, nesterov=True, **keywords),
            weights,
            data,
            epochs_of_batches(30, 4, 2, seed=7)[:steps],
            own.compiled.seeds(7),
        )
        assert result.steps == steps
        assert difference(result.weights, expected) <= 1e-5
        assert result.loss == pytest.approx(loss, abs=1e-5)
    own.compiled.program.cache_clear()


def test_a_client_gets_the_same_bits_whatever_sizes_were_trained_before():
    data, weights = {n: examples(n, seed=n) for n in (3, 9, 41, 100)}, start_weights("mlp")
    results = []
    for order in ((3, 9, 41, 100), (100, 41, 9, 3), (41, 3, 100, 9)):
        own = trainer("mlp", SHAPE, 10, LocalTraining(40, optimizer="adam"))
        own.compiled.program.cache_clear()
        results.append({n: own.train(weights, data[n], 0.01, seed=n) for n in order})
    for other in results[1:]:
        for n in data:
            assert_same(results[0][n].weights, other[n].weights)
            assert results[0][n].loss == other[n].loss
    assert own.compiled.program.cache_info().currsize == 2  # for batches of 10 and of 40


@pytest.mark.parametrize("model", ["logistic", "mlp", USER + "normed", "cnn-small"])
def test_every_client_of_a_round_trains_on_its_own_data(model):
    own, weights = trainer(model, SHAPE, 10, LocalTraining(8)), start_weights(model)
    for weight in weights:
        weight.flags.writeable = False
    for seed, n in enumerate((20, 5, 33, 20)):
        data = examples(n, seed=seed)
        expected, loss = reference_train(
            build_model(model, SHAPE, 10, seed=0),
            keras.optimizers.SGD(0.1),
            weights,
            data,
            epochs_of_batches(n, 8, 1, seed=seed),
            np.zeros((0, 2), np.int64),
        )
        result = own.train(weights, data, 0.1, seed)
        assert difference(result.weights, expected) <= 1e-5
        assert result.loss == pytest.approx(loss, abs=1e-5)


def test_weights_changed_in_place_are_seen_and_read_only_ones_give_the_same():
    own, data = trainer("mlp", SHAPE, 10, LocalTraining(batch_size=8)), examples(21)
    weights = start_weights("mlp")
    first = own.train(weights, data, 0.1, seed=5)
    for weight in weights:
        weight += 0.1
    moved = own.train(weights, data, 0.1, seed=5)
    assert difference(first.weights, moved.weights) > 1e-2
    for weight in weights:
        weight.flags.writeable = False
    for _ in range(2):
        assert_same(own.train(weights, data, 0.1, seed=5).weights, moved.weights)
        assert own.evaluate(weights, data) == own.evaluate([w.copy() for w in weights], data)


@pytest.mark.parametrize("model", ["mlp", "mlp-dropout", "cnn-small"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_results_stay_as_they_are_while_other_clients_train(model, optimizer):
    own, weights = trainer(model, SHAPE, 10, LocalTraining(8, optimizer=optimizer)), start_weights(model)
    results, copies = [], []
    for seed in range(6):
        results.append(own.train(weights, examples(20, seed=seed), 0.1, seed).weights)
        copies.append([w.copy() for w in results[-1]])
        weights = results[-1]
    own.evaluate(weights, examples(20))
    for result, copy in zip(results, copies, strict=True):
        assert_same(result, copy)


@pytest.mark.parametrize(
    ("share", "steps"), [(1.0, 10), (0.999, 9), (0.5, 5), (0.55, 5), (0.1, 1), (0.01, 1), (1e-300, 1)]
)
@pytest.mark.parametrize("stream", [False, True])
def test_partial_work_is_the_first_steps(share, steps, stream):
    data, weights = examples(33), start_weights("mlp")
    partial = trainer("mlp", SHAPE, 10, LocalTraining(batch_size=8, epochs=2))
    result = partial.train(weights, MemoryStream(data) if stream else data, 0.1, seed=3, share=share)
    assert (result.steps, result.num_examples) == (steps, 33)
    expected = trainer("mlp", SHAPE, 10, LocalTraining(batch_size=8, steps=steps)).train(weights, data, 0.1, seed=3)
    assert_same(result.weights, expected.weights)
    assert result.loss == expected.loss


@pytest.mark.parametrize("share", [0, -0.5, 1.01, math.nan, math.inf])
def test_a_share_that_is_none_is_refused(share):
    own = trainer("mlp", SHAPE, 10, LocalTraining(batch_size=8))
    with pytest.raises(TaskError, match=r"share=.* is not allowed: it must be above 0, at most 1"):
        own.train(start_weights("mlp"), examples(9), 0.1, seed=0, share=share)


def test_diverged_training_is_reported_and_does_not_reach_the_next_client():
    own = trainer("mlp", SHAPE, 10, LocalTraining(batch_size=8, epochs=3, optimizer="adam"))
    weights, data = start_weights("mlp"), examples(21)
    before = own.train(weights, data, 0.01, seed=5)
    diverged = own.train(weights, data, math.inf, seed=5)
    assert not math.isfinite(diverged.loss)
    assert_same(own.train(weights, data, 0.01, seed=5).weights, before.weights)


def test_the_arguments_are_left_as_they_are():
    own = trainer("mlp", SHAPE, 10, LocalTraining(batch_size=8))
    weights, data = start_weights("mlp"), examples(21)
    copies, x, y = [w.copy() for w in weights], data.x.copy(), data.y.copy()
    first = own.train(weights, data, 0.1, seed=5)
    kept = [w.copy() for w in first.weights]
    own.train(first.weights, data, 0.1, seed=6)
    own.evaluate(weights, data)
    assert_same([*weights, data.x, data.y], [*copies, x, y])
    assert_same(first.weights, kept)
    with pytest.raises(ValueError, match="read-only"):
        first.weights[0][:] = 0  # it may be what TensorFlow still computes with


def test_seed_decides_order_and_dropout_masks():
    weights, data = start_weights("mlp-dropout"), examples(32)
    own = trainer("mlp-dropout", SHAPE, 10, LocalTraining(batch_size=32))
    one, two = (own.train(weights, data, 0.1, seed).weights for seed in (1, 2))  # one batch: only the masks differ
    assert difference(one, two) > 1e-4
    own = trainer("mlp", SHAPE, 10, LocalTraining(batch_size=4))
    one, two = (own.train(start_weights("mlp"), data, 0.1, seed).weights for seed in (1, 2))
    assert difference(one, two) > 1e-4


def test_seed_generators_of_one_model_get_different_states():
    states = trainer("cnn-cifar", SHAPE, 10, LocalTraining(batch_size=8)).compiled.seeds(2**62)
    assert states.shape == (2, 2)
    assert states[0, 0] != states[1, 0]


def test_clients_of_any_size_never_retrace():
    own = trainer("logistic", (3,), 4, LocalTraining(batch_size=7, epochs=2, optimizer="rmsprop"))
    weights = start_weights("logistic", (3,), 4)
    for n in (1, 2, 7, 8, 20, 501, 3):
        data = examples(n, (3,), 4, seed=n)
        for given in (data, MemoryStream(data)):
            own.train(weights, given, 0.01 * n, seed=n)
            own.evaluate(weights, given)
    other = trainer("logistic", (3,), 4, LocalTraining(batch_size=7, steps=5, optimizer="rmsprop"))
    other.train(weights, examples(10, (3,), 4), 0.1, seed=0)
    assert other.compiled is own.compiled
    assert other.stacked is own.stacked
    assert own.stacked.program.cache_info().currsize == 1


@pytest.mark.parametrize("local", [LocalTraining(batch_size=8, epochs=3), LocalTraining(batch_size=8, steps=7)])
def test_a_stream_in_the_same_order_gives_the_same_bits(local):
    weights, data = start_weights(USER + "batch_norm"), examples(21)
    own = trainer(USER + "batch_norm", SHAPE, 10, local)
    direct = own.train(weights, data, 0.1, seed=4)
    streamed = own.train(weights, MemoryStream(data), 0.1, seed=4)
    assert_same(direct.weights, streamed.weights)
    assert (direct.loss, direct.accuracy, direct.steps) == (streamed.loss, streamed.accuracy, streamed.steps)


@pytest.mark.parametrize("n", [1, 499, 500, 501, 1203])
def test_evaluation_is_the_mean_over_all_examples(n):
    weights, data = start_weights(USER + "batch_norm"), examples(n)
    own = trainer(USER + "batch_norm", SHAPE, 10, LocalTraining(batch_size=8))
    model = build_model(USER + "batch_norm", SHAPE, 10, seed=0)
    model.set_weights(weights)
    outputs = model(data.x, training=False)
    result = own.evaluate(weights, data)
    assert result.num_examples == n
    assert result.loss == pytest.approx(float(loss_function(model)(data.y[:, None], outputs)), rel=1e-5)
    assert result.accuracy == pytest.approx(np.mean(np.argmax(outputs, 1) == data.y))
    assert own.evaluate(weights, MemoryStream(data)) == result


def test_evaluation_of_nothing_is_not_a_number():
    own = trainer("mlp", SHAPE, 10, LocalTraining(batch_size=8))
    result = own.evaluate(start_weights("mlp"), examples(0))
    assert result.num_examples == 0
    assert math.isnan(result.loss) and math.isnan(result.accuracy)


def test_batch_statistics_travel_with_the_weights():
    weights = start_weights(USER + "batch_norm")
    own = trainer(USER + "batch_norm", SHAPE, 10, LocalTraining(batch_size=8))
    result = own.train(weights, examples(21), 0.1, seed=0)
    names = [w.path for w in own.compiled.model.weights]
    moving = next(i for i, name in enumerate(names) if name.endswith("moving_mean"))
    assert np.abs(result.weights[moving] - weights[moving]).max() > 1e-4


def test_loss_falls_and_accuracy_rises_when_training_goes_on():
    data = examples(40)
    own = trainer("mlp", SHAPE, 10, LocalTraining(batch_size=10, epochs=30))
    result = own.train(start_weights("mlp"), data, 0.1, seed=0)
    assert own.evaluate(result.weights, data).accuracy == 1.0
    assert own.evaluate(result.weights, data).loss < result.loss


def test_threads_may_share_a_trainer():
    own = trainer("mlp", SHAPE, 10, LocalTraining(batch_size=8))
    weights, data = start_weights("mlp"), examples(30)
    expected = [own.train(weights, data, 0.1, seed).weights for seed in range(6)]
    got: dict[int, list[np.ndarray]] = {}
    threads = [
        threading.Thread(target=lambda s=seed: got.update({s: own.train(weights, data, 0.1, s).weights}))
        for seed in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(6):
        assert_same(got[seed], expected[seed])


def test_data_and_weights_that_do_not_fit_are_refused():
    own = trainer("mlp", SHAPE, 10, LocalTraining(batch_size=8))
    weights, data = start_weights("mlp"), examples(9)
    with pytest.raises(TaskError, match="without training examples"):
        own.train(weights, examples(0), 0.1, seed=0)
    with pytest.raises(TaskError, match=r"the model takes inputs of shape \(8, 8, 1\), and .* have shape \(4,\)"):
        own.train(weights, examples(9, (4,)), 0.1, seed=0)
    with pytest.raises(TaskError, match=r"Labels out of range: the model has classes 0 to 9, .* from 0 to 10"):
        own.evaluate(weights, Examples(data.x, np.arange(2, 11, dtype=np.int32) % 11 * (np.arange(9) > 0)))
    with pytest.raises(TaskError, match="5 arrays came, and the model has 6"):
        own.train(weights[:5], data, 0.1, seed=0)
    with pytest.raises(TaskError, match="Weights and model of different shapes"):
        own.evaluate([weights[0][:1], *weights[1:]], data)


@pytest.mark.parametrize(
    ("stream", "sentence"),
    [
        (MemoryStream(examples(5), announced=50), "ended before the 50 that it announced"),
        (MemoryStream(examples(5, (4,))), "does not fit the model"),
        (MemoryStream(examples(50, classes=90)), "is corrupt, gone or does not fit the model"),
    ],
)
def test_streams_that_do_not_fit_are_refused(stream, sentence):
    own = trainer("mlp", SHAPE, 10, LocalTraining(batch_size=8))
    with pytest.raises(TaskError, match=sentence):
        own.train(start_weights("mlp"), stream, 0.1, seed=0)
    with pytest.raises(TaskError, match=sentence):
        own.evaluate(start_weights("mlp"), stream)


ONE_THREAD = """
import numpy as np
import tensorflow as tf
from tasks.data import Stream
from tasks.local_training import LocalTraining
from tasks.models import build_model
from tasks.training import trainer, use_one_thread

class Mapped(Stream):
    def __len__(self):
        return 40
    def batches(self, batch_size, *, seed, epochs):
        def example(i):
            return tf.fill((4,), tf.cast(i, tf.float32)), tf.cast(i % 3, tf.int32)
        numbers = tf.data.Dataset.range(40).repeat(epochs)
        return numbers.map(example, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size).prefetch(2)

def train_on_a_stream():
    weights = build_model("mlp", (4,), 3, 0).get_weights()
    assert trainer("mlp", (4,), 3, LocalTraining(batch_size=8)).train(weights, Mapped(), 0.1, 0).steps == 5

if {early}:
    assert use_one_thread() and use_one_thread()
    tf.ones(1) + 1
    assert use_one_thread()
    train_on_a_stream()
else:
    tf.ones(1) + 1
    assert not use_one_thread()
threads = tf.config.threading
print(threads.get_intra_op_parallelism_threads(), threads.get_inter_op_parallelism_threads())
"""


@pytest.mark.parametrize("early", [True, False])
def test_use_one_thread_works_before_tensorflow_starts_and_says_so_afterwards(early):
    done = subprocess.run(
        [sys.executable, "-c", ONE_THREAD.format(early=early)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if early:
        assert done.stdout.split() == ["1", "1"]
    else:
        assert "TensorFlow keeps its threads" in done.stderr
