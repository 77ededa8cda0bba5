import math

import numpy as np
import pytest
import tensorflow as tf

from tasks.models import build_model
from tasks.objective import Objective, Terms, objective_for

USER = "tests.tasks.user_models:"


def logistic_loss(logit: float, label: int) -> float:
    return math.log1p(math.exp(-logit if label else logit))


def test_binary_from_logits_against_the_closed_form():
    objective = Objective("binary")
    logits, y = [2.0, -1.0, 0.5, -3.0], [1, 1, 0, 0]
    outputs = tf.constant(logits)[:, None]
    expected = [logistic_loss(z, label) for z, label in zip(logits, y, strict=True)]
    np.testing.assert_allclose(objective.losses(tf.constant(y), outputs), expected, rtol=1e-6)
    np.testing.assert_array_equal(objective.hits(tf.constant(y), outputs), [1, 0, 0, 1])


def test_binary_from_probabilities():
    objective = Objective("binary", from_logits=False)
    outputs = tf.constant([[0.9], [0.4]])
    np.testing.assert_allclose(
        objective.losses(tf.constant([1, 0]), outputs), [-math.log(0.9), -math.log(0.6)], rtol=1e-6
    )
    np.testing.assert_array_equal(objective.hits(tf.constant([1, 1]), outputs), [1, 0])


@pytest.mark.parametrize("from_logits", [True, False])
def test_categorical_against_the_closed_form(from_logits):
    objective = Objective("categorical", from_logits)
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], np.float32)
    outputs = tf.constant(np.log(probabilities) + 5 if from_logits else probabilities)
    y = tf.constant([0, 1])
    np.testing.assert_allclose(objective.losses(y, outputs), [-math.log(0.7), -math.log(0.3)], rtol=1e-5)
    np.testing.assert_array_equal(objective.hits(y, outputs), [1, 0])


def test_two_logits_and_their_difference_are_the_same_problem():
    logits = tf.constant([[0.3, -0.8], [1.0, 2.5]])
    y = tf.constant([0, 1])
    two = Objective("categorical")
    one = Objective("binary")
    difference = logits[:, 1:] - logits[:, :1]
    np.testing.assert_allclose(two.losses(y, logits), one.losses(y, difference), rtol=1e-6)
    np.testing.assert_array_equal(two.hits(y, logits), one.hits(y, difference))


def test_losses_and_hits_are_float32_per_example():
    for kind, width in (("binary", 1), ("categorical", 4)):
        outputs = tf.zeros((6, width), tf.float16)
        y = tf.zeros(6, tf.int32)
        objective = Objective(kind)
        assert objective.losses(y, outputs).dtype == objective.hits(y, outputs).dtype == tf.float32
        assert objective.losses(y, outputs).shape == objective.hits(y, outputs).shape == (6,)


def test_value_is_the_mean_of_the_losses():
    assert float(Objective("binary").value(tf.constant([1.0, 2.0, 6.0]))) == 3.0


def test_value_leaves_out_what_is_masked():
    mask = tf.constant([1.0, 1.0, 0.0])
    assert float(Objective("categorical").value(tf.constant([1.0, 2.0, 6.0]), mask)) == 1.5


WEIGHTS = [tf.constant([[1.0, 2.0]]), tf.constant([3.0])]
START = [tf.constant([[0.0, 4.0]]), tf.constant([1.0])]
CORRECTION = [tf.constant([[0.5, -1.0]]), tf.constant([2.0])]


def test_the_proximal_term_is_half_of_mu_times_the_squared_distance():
    (value,) = Terms([tf.constant(0.5), *START]).values(WEIGHTS)
    assert float(value) == 0.25 * (1 + 4 + 4)


def test_the_gradients_are_the_pull_to_the_start_and_the_correction_itself():
    terms, weights = Terms([tf.constant(0.5), *START], CORRECTION), [tf.Variable(weight) for weight in WEIGHTS]
    with tf.GradientTape() as tape:
        value = tf.add_n(terms.values(weights))
    kernel, bias = tape.gradient(value, weights)
    np.testing.assert_array_equal(kernel, [[0.5 * 1 + 0.5, 0.5 * -2 - 1.0]])
    np.testing.assert_array_equal(bias, [0.5 * 2 + 2.0])


def test_a_group_is_pulled_to_one_start_and_a_part_that_is_empty_is_no_term():
    group = [tf.stack([weight, 2 * weight]) for weight in WEIGHTS]
    (value,) = Terms([tf.constant(2.0), *START]).values(group)
    assert float(value) == 9 + (4 + 0 + 25)
    (product,) = Terms((), CORRECTION).values(WEIGHTS)
    assert float(product) == 0.5 - 2 + 6
    assert Terms().values(WEIGHTS) == Terms().tensors == []


def test_objectives_are_values():
    assert Objective("binary") == Objective("binary", True)
    assert len({Objective("binary"), Objective("categorical"), Objective("binary")}) == 2


@pytest.mark.parametrize(
    ("name", "num_classes", "num_outputs", "expected"),
    [
        ("mlp", 10, 10, Objective("categorical")),
        ("mlp", 2, 2, Objective("categorical")),
        ("logistic", 2, 1, Objective("binary")),
        ("logistic", 3, 3, Objective("categorical")),
        (USER + "softmax", 3, 3, Objective("categorical", from_logits=False)),
        (USER + "sigmoid", 2, 1, Objective("binary", from_logits=False)),
        (USER + "batch_norm", 3, 3, Objective("categorical")),
    ],
)
def test_objective_follows_from_the_model(name, num_classes, num_outputs, expected):
    assert objective_for(build_model(name, (4, 4), num_classes, 0), num_outputs) == expected


def test_outputs_of_subclassed_models_are_logits():
    model = build_model(USER + "subclassed", (4,), 3, 0)
    model(np.zeros((1, 4), np.float32))
    assert objective_for(model, 3) == Objective("categorical", from_logits=True)
