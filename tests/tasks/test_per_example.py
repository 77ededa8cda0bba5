"""Sums of clipped gradients against a loop over single examples, and against TensorFlow Privacy's query."""

from __future__ import annotations

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import TaskError
from tasks.models import build_model
from tasks.objective import objective_for
from tasks.per_example import ClippedSums

USER, HERE = "tests.tasks.user_models:", "tests.tasks.private_models:"
SHAPE, CLASSES = (8, 8, 1), 10
BY_LAYERS = ["logistic", "mlp", "cnn-small", HERE + "strided", USER + "tiny", USER + "softmax"]
ONE_BY_ONE = [
    USER + "normed",
    HERE + "shared",
    USER + "subclassed",
    HERE + "embedded",
    HERE + "separable",
    HERE + "frozen",
]


def built(name: str) -> keras.Model:
    model = build_model(name, SHAPE, CLASSES, seed=3)
    model(np.zeros((1, *SHAPE), np.float32))
    return model


def sums_of(model: keras.Model, clip: float, microbatches: int = 0) -> ClippedSums:
    return ClippedSums(model, SHAPE, objective_for(model, CLASSES), clip, microbatches)


def compiled(own: ClippedSums) -> tf.types.experimental.GenericFunction:
    x, y = tf.TensorSpec((None, *SHAPE), tf.float32), tf.TensorSpec((None,), tf.int32)
    return tf.function(lambda x, y, counts: own(x, y, counts)[0], [x, y, tf.TensorSpec((None,), tf.bool)])


def batch(rows: int, seed: int = 0, size: float = 1.0) -> tuple[tf.Tensor, tf.Tensor]:
    generator = np.random.default_rng(seed)
    x = size * generator.normal(size=(rows, *SHAPE))
    return tf.constant(x, tf.float32), tf.constant(generator.integers(0, CLASSES, rows), tf.int32)


def loss_of(model: keras.Model) -> keras.losses.Loss:
    probabilities = getattr(model.layers[-1], "activation", None) is keras.activations.softmax
    return keras.losses.SparseCategoricalCrossentropy(from_logits=not probabilities)


def gradients_of(model: keras.Model, x: tf.Tensor, y: tf.Tensor) -> list[np.ndarray]:
    """Gradients of Keras's own mean loss; all models but one put out logits."""
    variables = [variable.value for variable in model.trainable_variables]
    with tf.GradientTape() as tape:
        loss = loss_of(model)(y[:, None], model(x, training=True))
    gradients = tape.gradient(loss, variables, unconnected_gradients="zero")
    return [np.asarray(tf.convert_to_tensor(gradient), np.float64) for gradient in gradients]


def clipped(gradients: list[np.ndarray], clip: float) -> list[np.ndarray]:
    norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
    return [gradient * min(1.0, clip / max(norm, 1e-30)) for gradient in gradients]


def looped(model: keras.Model, x: tf.Tensor, y: tf.Tensor, clip: float) -> list[np.ndarray]:
    """The plain way: an example after the other."""
    each = [clipped(gradients_of(model, x[i : i + 1], y[i : i + 1]), clip) for i in range(len(y))]
    return [sum(parts) for parts in zip(*each, strict=True)]


def norm_of(arrays: list) -> float:
    return float(np.sqrt(sum((np.asarray(array, np.float64) ** 2).sum() for array in arrays)))


def assert_close(one: list, two: list, within: float = 1e-5) -> None:
    largest = max(1.0, max(float(np.abs(array).max()) for array in two))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=within * largest, rtol=0)


@pytest.mark.parametrize("name", BY_LAYERS + ONE_BY_ONE)
def test_the_sums_are_those_of_a_loop_over_single_examples(name):
    model, (x, y) = built(name), batch(5)
    norms = [norm_of(gradients_of(model, x[i : i + 1], y[i : i + 1])) for i in range(5)]
    clip = float(np.median(norms))  # some are clipped, some are not
    own = sums_of(model, clip)
    assert own.by_layers == (name in BY_LAYERS)
    sums, losses, hits = own(x, y, tf.fill([5], True))
    assert_close(sums, looped(model, x, y, clip))
    assert norm_of(sums) > 1e-3
    outputs = model(x)
    assert float(tf.reduce_mean(losses)) == pytest.approx(float(loss_of(model)(y[:, None], outputs)), abs=1e-5)
    np.testing.assert_array_equal(hits, tf.argmax(outputs, 1, tf.int32) == y)


@pytest.mark.parametrize("name", ["mlp", "cnn-small", USER + "normed"])
def test_rows_that_are_no_examples_count_as_nothing(name):
    model, (x, y) = built(name), batch(6)
    counts = np.array([True, False, True, True, False, False])
    sums, *_ = sums_of(model, 0.5)(x, y, tf.constant(counts))
    assert_close(sums, looped(model, x[counts], y[counts], 0.5))
    nobody, *_ = sums_of(model, 0.5)(x, y, tf.fill([6], False))
    assert norm_of(nobody) == 0


@pytest.mark.parametrize("clip", [0.05, 1e6])
@pytest.mark.parametrize("name", ["mlp", "cnn-small", HERE + "strided", USER + "tiny", USER + "normed"])
def test_microbatches_are_clipped_as_the_sums_of_their_examples(name, clip):
    model, (x, y) = built(name), batch(12)
    counts = np.array([1, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0], bool)  # three examples, one, and none
    sums, *_ = sums_of(model, clip, 3)(x, y, tf.constant(counts), tf.constant(0.25))
    parts = [gradients_of(model, x[:3], y[:3]), gradients_of(model, x[4:5], y[4:5])]
    scaled = [[0.25 * n * gradient for gradient in part] for n, part in zip((3, 1), parts, strict=True)]
    expected = [sum(two) for two in zip(*(clipped(part, clip) for part in scaled), strict=True)]
    assert_close(sums, expected)


def test_the_sum_is_that_of_tensorflow_privacys_query(monkeypatch):
    monkeypatch.setattr(sys, "skip_tf_privacy_import", True, raising=False)  # the rest of it needs Keras 2
    from tensorflow_privacy.privacy.dp_query.gaussian_query import GaussianSumQuery

    model, (x, y) = built("mlp"), batch(7)
    query = GaussianSumQuery(l2_norm_clip=0.7, stddev=0.0)
    state = query.initial_global_state()
    total = [tf.zeros(variable.shape) for variable in model.trainable_variables]
    for i in range(7):
        record = [tf.constant(g, tf.float32) for g in gradients_of(model, x[i : i + 1], y[i : i + 1])]
        own = query.preprocess_record(query.derive_sample_params(state), record)
        total = query.accumulate_preprocessed_record(total, own)
    noised, *_ = query.get_noised_result(total, state)
    sums, *_ = sums_of(model, 0.7)(x, y, tf.fill([7], True))
    assert_close(sums, noised)


BOUNDED = {name: compiled(sums_of(built(name), 0.3)) for name in ("mlp", "cnn-small", USER + "normed")}


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(BOUNDED)),
    st.sampled_from([0.0, 1e-30, 1.0, 1e4, 1e18, 1e38, float("inf"), float("nan")]),
    st.integers(0, 9),
)
def test_no_example_moves_the_sum_by_more_than_the_clipping_norm(name, size, place):
    (x, y), counts = batch(4, seed=place), tf.fill([4], True)
    odd = np.array(x)
    odd[1].flat[place:] *= np.float32(size)
    with_it = BOUNDED[name](tf.constant(odd), y, counts)
    without = BOUNDED[name](tf.constant(odd), y, tf.constant([True, False, True, True]))
    moved = [np.asarray(a, np.float64) - b for a, b in zip(with_it, without, strict=True)]
    assert norm_of(moved) <= 0.3 * (1 + 1e-5)  # the sums themselves are rounded, as float32
    alone = BOUNDED[name](tf.constant(odd), y, tf.constant([False, True, False, False]))
    assert norm_of(alone) <= 0.3 * (1 + 1e-6)


@pytest.mark.parametrize(("name", "by_layers"), [(HERE + "dropout", True), (HERE + "dropout_and_norm", False)])
def test_every_example_has_a_dropout_mask_of_its_own(name, by_layers):
    model, x, y = built(name), tf.ones((2, *SHAPE)), tf.zeros(2, tf.int32)
    own = sums_of(model, 1e6)
    assert own.by_layers == by_layers
    seed = next(variable for variable in model.variables if variable.path.endswith("seed_generator_state"))
    one, other = [tf.constant([True, False]), tf.constant([False, True])]
    kernels = []
    for counts in (one, other):
        seed.assign([1, 0])
        kernels.append(np.abs(own(x + tf.range(64.0)[None, :, None, None][:, :8] * 0.1, y, counts)[0][-2]).sum(1) > 0)
    assert 10 < sum(kernels[0] != kernels[1]) < 54  # of 64 inputs: p < 1e-7 for fair coins
    assert [10 < kernel.sum() < 54 for kernel in kernels] == [True, True]


@pytest.mark.parametrize("name", [USER + "batch_norm", HERE + "spectral"])
def test_layers_that_keep_statistics_of_examples_are_refused(name):
    with pytest.raises(TaskError, match=r"keeps statistics of its examples.*GroupNormalization"):
        sums_of(built(name), 1.0)


def test_losses_of_the_examples_that_are_not_clipped_are_refused():
    with pytest.raises(TaskError, match="a loss of its own that depends on the examples"):
        sums_of(built(HERE + "activity"), 1.0)
