"""FedProx's proximal term and SCAFFOLD's correction in local training: NumPy by hand, closed forms, an eager loop."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.compiled import CompiledModel
from tasks.data import Examples
from tasks.errors import TaskError
from tasks.local_training import LocalTraining
from tasks.models import build_model
from tasks.objective import Objective
from tasks.optimizers import make_optimizer
from tasks.training import Trainer, TrainResult, trainer
from tests.tasks.reference_loop import epochs_of_batches, reference_train
from tests.tasks.streams import MemoryStream

USER = "tests.tasks.user_models:"
SHAPE = (4, 4, 1)
Arrays = list[np.ndarray]


def client(n: int, classes: int = 10, seed: int = 0) -> Examples:
    generator = np.random.default_rng((n, seed))
    x = generator.normal(size=(n, *SHAPE)).astype(np.float32)
    return Examples(x, generator.integers(0, classes, n).astype(np.int32))


def arrays_like(own: Trainer, seed: int, scale: float = 0.3) -> Arrays:
    """Numbers of the weights' shapes, read-only as what comes in a message: their tensors are kept between calls."""
    generator = np.random.default_rng(seed)
    arrays = [generator.normal(0, scale, weight.shape).astype(np.float32) for weight in own.compiled.model.weights]
    for array in arrays:
        array.flags.writeable = False
    return arrays


def start_weights(model: str, classes: int = 10) -> Arrays:
    """Weights that also BatchNormalization's moving variances can begin from."""
    return build_model(model, SHAPE, classes, seed=42).get_weights()


def difference(one: Sequence[np.ndarray], two: Sequence[np.ndarray]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(one, two, strict=True))


def assert_same(one: TrainResult, two: TrainResult) -> None:
    for a, b in zip(one.weights, two.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (one.loss, one.accuracy, one.steps) == (two.loss, two.accuracy, two.steps)


# By hand: softmax regression, float64.


def gradient_by_hand(weights: Arrays, data: Examples) -> Arrays:
    kernel, bias = weights
    x = data.x.reshape(len(data), -1).astype(np.float64)
    exponentials = np.exp(x @ kernel + bias)
    error = (exponentials / exponentials.sum(1, keepdims=True) - np.eye(10)[data.y]) / len(data)
    return [x.T @ error, error.sum(0)]


def by_hand(
    start: Arrays, data: Examples, rate: float, batches: list[np.ndarray], mu: float, correction: Sequence[np.ndarray]
) -> Arrays:
    """Gradient steps on loss + mu/2 ||w - start||^2, with the correction added to each gradient."""
    weights = [array.astype(np.float64) for array in start]
    for batch in batches:
        gradients = gradient_by_hand(weights, Examples(data.x[batch], data.y[batch]))
        added = correction or [0.0, 0.0]
        parts = zip(weights, gradients, start, added, strict=True)
        weights = [w - rate * (gradient + mu * (w - begun) + c) for w, gradient, begun, c in parts]
    return weights


def plain_graph(local: LocalTraining, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """The trainer of softmax regression as where XLA does not compile it."""
    monkeypatch.setattr("tasks.compiled.trains_with_xla", lambda model: False)
    optimizer = make_optimizer(local.optimizer, local.optimizer_args)
    model = build_model("logistic", SHAPE, 10, seed=0)
    return Trainer(CompiledModel(model, SHAPE, optimizer, Objective("categorical")), None, None, local, 10)


WAYS = ["group", "XLA", "plain graph"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[LocalTraining], Trainer]:
    """How a trainer of softmax regression comes to be that trains in one of our ways."""

    def make(local: LocalTraining) -> Trainer:
        if request.param == "plain graph":
            return plain_graph(local, monkeypatch)
        own = trainer("logistic", SHAPE, 10, local)
        assert own.stacked is not None and own.compiled.with_xla
        return own if request.param == "group" else replace(own, stacked=None)

    return make


@pytest.mark.parametrize(("mu", "corrected"), [(0.7, False), (0.0, True), (0.7, True), (0.0, False)])
def test_softmax_regression_is_that_of_numpy(way, mu, corrected):
    own, data = way(LocalTraining(8, epochs=2)), client(33)  # batches of 8, and of one at the end of each epoch
    start = arrays_like(own, seed=3)
    correction = arrays_like(own, seed=4, scale=0.1) if corrected else []
    result = own.train(start, data, 0.2, 7, mu=mu, correction=correction)
    expected = by_hand(start, data, 0.2, epochs_of_batches(33, 8, 2, seed=7), mu, correction)
    assert difference(result.weights, expected) <= 1e-6
    if mu or corrected:
        assert difference(result.weights, own.train(start, data, 0.2, 7).weights) > 1e-2


def test_partial_work_a_scaled_loss_and_several_calls_are_those_of_numpy_too(way, monkeypatch):
    monkeypatch.setattr("tasks.compiled.MAX_STEPS", 3)
    monkeypatch.setattr("tasks.together.MAX_STEPS", 3)
    own, data = way(LocalTraining(8, epochs=2, optimizer_args="loss_scale_factor=8")), client(40)
    start, correction = arrays_like(own, seed=3), arrays_like(own, seed=4, scale=0.1)
    for added in ([], correction, []):
        result = own.train(start, data, 0.2, 7, share=0.75, mu=0.7, correction=added)
        batches = epochs_of_batches(40, 8, 2, seed=7)[:7]
        assert result.steps == 7
        assert difference(result.weights, by_hand(start, data, 0.2, batches, 0.7, added)) <= 1e-6


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40),
    st.floats(0, 3, width=32),
    st.floats(0, 1),
    st.floats(0.01, 0.3),
    st.integers(0, 2**31),
)
def test_any_mu_correction_rate_and_size_give_what_numpy_gives(n, mu, scale, rate, seed):
    own, data = trainer("logistic", SHAPE, 10, LocalTraining(8)), client(n, seed=seed)
    start, correction = arrays_like(own, seed), arrays_like(own, seed + 1, scale)
    batches = epochs_of_batches(n, 8, 1, seed=seed)
    for added in ([], correction):
        result = own.train(start, data, rate, seed, mu=mu, correction=added)
        assert difference(result.weights, by_hand(start, data, rate, batches, mu, added)) <= 2e-6


# Closed forms.


def test_long_training_ends_where_the_pull_back_is_minus_the_gradient(way):
    own, data = way(LocalTraining(40, steps=150)), client(40)
    start, correction = arrays_like(own, seed=3), arrays_like(own, seed=4, scale=0.1)
    for mu, added in ((0.5, []), (2.0, correction)):
        result = own.train(start, data, 0.3, 7, mu=mu, correction=added)
        gradient = gradient_by_hand(result.weights, data)
        parts = zip(start, gradient, added or [0.0, 0.0], strict=True)
        minimum = [begun - (own_gradient + c) / mu for begun, own_gradient, c in parts]
        assert difference(result.weights, minimum) <= 1e-5
        assert difference(result.weights, start) > 1e-2


def test_a_large_mu_holds_the_weights_however_long_the_training(way):
    own, data = way(LocalTraining(8, epochs=12)), client(40)
    start, rate, steepest = arrays_like(own, seed=3), 0.001, float(np.abs(client(40).x).max())
    result = own.train(start, data, rate, 7, mu=1 / rate)  # each step begins with a return to the start
    assert difference(result.weights, start) <= 1.001 * rate * steepest
    assert difference(own.train(start, data, rate, 7).weights, start) > 5 * difference(result.weights, start)


def test_a_correction_that_is_minus_the_gradient_keeps_the_weights(way):
    own, data = way(LocalTraining(40, steps=20)), client(40)
    start = arrays_like(own, seed=3)
    correction = [-gradient for gradient in gradient_by_hand(start, data)]
    assert difference(own.train(start, data, 0.3, 7, correction=correction).weights, start) <= 1e-6


# Any model and optimizer.


@pytest.mark.parametrize(
    ("model", "classes", "optimizer", "args", "rate"),
    [
        ("mlp", 10, keras.optimizers.SGD, {"momentum": 0.9, "nesterov": True}, 0.05),
        ("mlp", 10, keras.optimizers.Adam, {}, 0.001),
        ("mlp-dropout", 10, keras.optimizers.SGD, {}, 0.1),
        (USER + "batch_norm", 10, keras.optimizers.SGD, {"momentum": 0.9}, 0.05),
        (USER + "normed", 10, keras.optimizers.SGD, {"clipnorm": 0.1}, 0.1),
        (USER + "tiny", 10, keras.optimizers.Adam, {"amsgrad": True}, 0.01),
        (USER + "softmax", 10, keras.optimizers.RMSprop, {}, 0.01),
        (USER + "sigmoid", 2, keras.optimizers.AdamW, {"weight_decay": 0.01}, 0.01),
        ("logistic", 10, keras.optimizers.SGD, {"use_ema": True, "ema_momentum": 0.8}, 0.1),
        ("logistic", 10, keras.optimizers.Adam, {"gradient_accumulation_steps": 2}, 0.01),
    ],
)
def test_equals_the_eager_loop_with_the_terms_gradients(model, classes, optimizer, args, rate):
    text = ",".join(f"{key}={value}" for key, value in args.items())
    local = LocalTraining(8, epochs=2, optimizer=optimizer.__name__.lower(), optimizer_args=text)
    own, data, start = trainer(model, SHAPE, classes, local), client(33, classes), start_weights(model, classes)
    pulled_alone = [(0.5, [])] if own.stacked else []  # the groups' program, which takes no corrections
    for mu, correction in [(0.3, arrays_like(own, seed=4, scale=0.2)), *pulled_alone]:
        result = own.train(start, data, rate, 7, mu=mu, correction=correction)
        expected, loss = reference_train(
            build_model(model, SHAPE, classes, seed=0),
            optimizer(learning_rate=rate, **args),
            start,
            data,
            epochs_of_batches(33, 8, 2, seed=7),
            own.compiled.seeds(7),
            mu,
            correction,
        )
        assert difference(result.weights, start) > 1e-3
        assert difference(result.weights, expected) <= 1e-5
        assert result.loss == pytest.approx(loss, abs=1e-5)  # the data's alone


@pytest.mark.slow
def test_convolutions_equal_the_eager_loop_with_the_terms_gradients():
    test_equals_the_eager_loop_with_the_terms_gradients("cnn-small", 10, keras.optimizers.SGD, {}, 0.1)


def test_moving_averages_are_neither_pulled_nor_corrected():
    own, data, model = trainer(USER + "batch_norm", SHAPE, 10, LocalTraining(8)), client(33), USER + "batch_norm"
    start, correction = start_weights(model), arrays_like(own, seed=4, scale=0.1)
    trained = {id(variable) for variable in own.compiled.model.trainable_variables}
    moving = [place for place, weight in enumerate(own.compiled.model.weights) if id(weight) not in trained]
    assert len(moving) == 2
    expected = own.train(start, data, 0.1, 7, mu=0.5, correction=correction)
    for place in moving:
        correction[place] = np.full_like(correction[place], math.nan)
    assert_same(own.train(start, data, 0.1, 7, mu=0.5, correction=correction), expected)
    still, held = own.train(start, data, 0.0, 7), own.train(start, data, 0.0, 7, mu=1e6)
    for place in moving:
        np.testing.assert_array_equal(held.weights[place], still.weights[place])
        assert np.abs(held.weights[place] - start[place]).max() > 1e-3


def test_a_stream_of_the_same_batches_gives_the_same_bits():
    own, data = trainer("mlp", SHAPE, 10, LocalTraining(40)), client(33)
    start, correction = start_weights("mlp"), arrays_like(own, seed=4, scale=0.1)
    for keys in ({"mu": 0.5}, {"mu": 0.5, "correction": correction}):
        in_memory = own.train(start, data, 0.1, 7, **keys)
        assert difference(own.train(start, MemoryStream(data), 0.1, 7, **keys).weights, in_memory.weights) <= 1e-6


# What costs nothing where it is not asked for.


@pytest.mark.parametrize("model", ["logistic", "mlp", "mlp-dropout", USER + "batch_norm"])
def test_without_terms_the_plain_program_trains_and_knows_nothing_of_the_others(model):
    own, data, start = trainer(model, SHAPE, 10, LocalTraining(8)), client(33), start_weights(model)
    plain = own.train(start, data, 0.1, 7)
    programs = own.stacked.program if own.stacked else own.compiled.program
    before = programs.cache_info().currsize
    assert_same(own.train(start, data, 0.1, 7, mu=0.0, correction=[]), plain)
    assert programs.cache_info().currsize == before
    own.train(start, data, 0.1, 7, mu=0.5, correction=arrays_like(own, seed=4))
    own.train(start, data, 0.1, 7, mu=0.5)
    assert_same(own.train(start, data, 0.1, 7), plain)
    nothing = own.train(start, data, 0.1, 7, correction=[np.zeros_like(array) for array in start])
    assert difference(nothing.weights, plain.weights) <= 1e-6


# Groups.


def test_a_pulled_client_gets_the_same_bits_in_any_place_beside_any_others():
    own = trainer(USER + "tiny", SHAPE, 10, LocalTraining(8, epochs=2, optimizer="adam"))
    data, start = [client(n) for n in (20, 5, 33, 8, 1, 17, 40, 9, 26, 3, 12)], arrays_like(own, seed=3)
    alone = [own.train(start, examples, 0.01, seed, mu=0.5) for seed, examples in enumerate(data)]
    generator = np.random.default_rng(0)
    for _ in range(10):
        chosen = generator.choice(len(data), generator.integers(1, 18)).tolist()
        results = own.train_together(start, [data[k] for k in chosen], 0.01, chosen, [1.0] * len(chosen), 0.5)
        for place, result in zip(chosen, results, strict=True):
            assert_same(result, alone[place])


def test_corrected_clients_train_one_by_one_all_with_the_same_correction():
    own, data = trainer("logistic", SHAPE, 10, LocalTraining(8)), [client(n) for n in (20, 5, 33)]
    start, correction = start_weights("logistic"), arrays_like(own, seed=4, scale=0.1)
    single = replace(own, stacked=None)
    results = own.train_together(start, data, 0.1, [0, 1, 2], [1.0, 1.0, 0.5], 0.5, correction)
    for seed, (examples, share, result) in enumerate(zip(data, (1.0, 1.0, 0.5), results, strict=True)):
        assert_same(result, single.train(start, examples, 0.1, seed, share, 0.5, correction))


# What does not fit.


@pytest.mark.parametrize("mu", [-1.0, -1e-9, math.nan, math.inf, 1e39])
def test_a_mu_that_pushes_away_or_is_no_number_is_refused(mu):
    own = trainer("logistic", SHAPE, 10, LocalTraining(8))
    with pytest.raises(TaskError, match=r"proximal-mu=.* is not allowed: it must be at least 0, and finite"):
        own.train(start_weights("logistic"), client(9), 0.1, 0, mu=mu)


def test_a_correction_of_another_model_is_refused():
    own, start = trainer("logistic", SHAPE, 10, LocalTraining(8)), start_weights("logistic")
    for wrong in (start[:1], start[::-1], start_weights("mlp")):
        with pytest.raises(TaskError, match="Correction and model of different shapes"):
            own.train(start, client(9), 0.1, 0, correction=wrong)
