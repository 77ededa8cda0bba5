import random
import threading

import keras
import numpy as np
import pytest

from tasks.errors import TaskError
from tasks.models import MODEL_NAMES, build_model, check_fit

USER = "tests.tasks.user_models:"


@pytest.mark.parametrize(
    ("name", "input_shape", "num_classes", "parameters"),
    [
        ("mlp", (28, 28, 1), 10, 199_210),  # McMahan et al. 2017, section 3
        ("cnn", (28, 28, 1), 10, 1_663_370),  # McMahan et al. 2017, section 3
        ("logistic", (60,), 10, 610),  # FedProx's model on Synthetic: 60 -> 10
        ("logistic", (13,), 2, 14),  # FLamby's model on heart disease: 13 -> 1
        ("mlp-dropout", (28, 28, 1), 10, 784 * 128 + 128 + 128 * 10 + 10),
        ("cnn-small", (28, 28, 1), 10, 9 * 32 + 32 + 14 * 14 * 32 * 10 + 10),
        ("cnn-small", (8, 8, 1), 10, 9 * 32 + 32 + 4 * 4 * 32 * 10 + 10),
        ("cnn-cifar", (32, 32, 3), 10, 27 * 32 + 32 + 9 * 32 * 64 + 64 + 14 * 14 * 64 * 128 + 128 + 1290),
    ],
)
def test_parameter_counts(name, input_shape, num_classes, parameters):
    assert build_model(name, input_shape, num_classes, seed=0).count_params() == parameters


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_models_put_out_logits_from_float32_weights_with_unique_names(name):
    model = build_model(name, (8, 8, 1), 10, seed=3)
    assert check_fit(model, name, (8, 8, 1), 10) == 10
    assert {w.dtype for w in model.weights} == {"float32"}
    assert len({w.path for w in model.weights}) == len(model.weights)
    x = np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype(np.float32)
    assert model(x).shape == (5, 10)
    assert getattr(model.layers[-1].activation, "__name__", "") == "linear"


@pytest.mark.parametrize("name", [*MODEL_NAMES, USER + "batch_norm", USER + "numpy_initialised"])
def test_same_seed_same_names_and_bits_whatever_was_built_before(name):
    first = build_model(name, (8, 8, 1), 10, seed=5)
    keras.layers.Dense(3)  # moves Keras's counter of names in this thread
    random.random()
    again = build_model(name, (8, 8, 1), 10, seed=5)
    assert [w.path for w in first.weights] == [w.path for w in again.weights]
    for one, two in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("name", ["mlp", "cnn", USER + "batch_norm", USER + "numpy_initialised"])
def test_another_seed_gives_other_weights(name):
    one, two = (build_model(name, (8, 8, 1), 10, seed=s).get_weights()[0] for s in (1, 2))
    assert not np.array_equal(one, two)


def test_layers_of_one_model_start_differently():
    first, second = (build_model("mlp", (200,), 10, seed=1).get_weights()[i] for i in (0, 2))
    assert first.shape == second.shape
    assert not np.array_equal(first, second)


def test_building_leaves_the_global_generators_alone():
    random.seed(1)
    np.random.seed(1)
    expected = random.random(), np.random.random()
    random.seed(1)
    np.random.seed(1)
    build_model(USER + "numpy_initialised", (4,), 3, seed=9)
    build_model("mlp-dropout", (4,), 3, seed=9)
    assert (random.random(), np.random.random()) == expected


def test_building_works_in_any_thread():
    built = []
    thread = threading.Thread(target=lambda: built.append(build_model("cnn-small", (8, 8, 1), 10, 0)))
    thread.start()
    thread.join()
    assert built[0].count_params() == build_model("cnn-small", (8, 8, 1), 10, 0).count_params()


def test_grey_images_without_a_channel_axis():
    model = build_model("cnn", (28, 28), 10, seed=0)
    assert model.count_params() == 1_663_370
    assert check_fit(model, "cnn", (28, 28), 10) == 10


@pytest.mark.parametrize(
    ("name", "input_shape", "fitting"),
    [
        ("cnn", (13,), "logistic, mlp, mlp-dropout"),
        ("cnn", (3, 28, 1), "logistic, mlp, mlp-dropout, cnn-small"),
        ("cnn-cifar", (5, 5, 3), "logistic, mlp, mlp-dropout, cnn-small, cnn"),
        ("cnn", (2, 8, 8, 1), "logistic, mlp, mlp-dropout"),
    ],
)
def test_too_small_inputs_are_refused_with_the_models_that_fit(name, input_shape, fitting):
    with pytest.raises(TaskError, match="the data has inputs of shape") as caught:
        build_model(name, input_shape, 10, seed=0)
    assert f"one that fits ({fitting})" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "side"),
    [("cnn-small", 2), ("cnn", 4), ("cnn-cifar", 6)],
)
def test_the_smallest_images_allowed_do_work(name, side):
    assert check_fit(build_model(name, (side, side, 1), 4, seed=0), name, (side, side, 1), 4) == 4


def test_unknown_model_names_the_nearest():
    with pytest.raises(
        TaskError, match=r"model='cnn-smal' is not known \(did you mean 'cnn-small'\?\): use one of logi"
    ):
        build_model("cnn-smal", (8, 8, 1), 10, seed=0)


def test_one_class_is_refused():
    with pytest.raises(TaskError, match="at least 2"):
        build_model("mlp", (4,), 1, seed=0)


def test_user_function_is_called_with_shape_and_classes():
    model = build_model(USER + "batch_norm", (8, 8, 1), 7, seed=0)
    assert model.output_shape == (None, 7)
    assert [w.path.split("/", 1)[1] for w in model.weights][:2] == ["dense/kernel", "batch_normalization/gamma"]


@pytest.mark.parametrize(
    ("reference", "sentence", "cause"),
    [
        (USER + "broken", r"user_models:broken'.*ZeroDivisionError: no such thing", ZeroDivisionError),
        (USER + "not_a_model", r"must return a keras.Model, not a int", None),
        (USER + "not_a_function", r"has no function 'not_a_function'", None),
        (USER + "missing", r"has no function 'missing'", None),
        ("no_such_module:f", r"importing the module 'no_such_module' failed", ModuleNotFoundError),
    ],
)
def test_errors_of_user_functions_are_sentences_with_their_cause(reference, sentence, cause):
    with pytest.raises(TaskError, match=sentence) as caught:
        build_model(reference, (8, 8, 1), 10, seed=0)
    assert caught.value.__cause__ is None if cause is None else isinstance(caught.value.__cause__, cause)


@pytest.mark.parametrize(
    ("function", "input_shape", "sentence"),
    [
        ("images_only", (13,), r"different shapes: model='.*images_only' failed on inputs of shape \(13,\)"),
        ("three_outputs", (4,), r"puts out \(3,\) per example, and for labels of 10 classes it must be \(10,\)"),
        ("sigmoid", (4,), r"puts out \(1,\) per example"),
        ("nothing_to_train", (10,), r"no trainable weights"),
    ],
)
def test_models_that_do_not_fit_the_data_are_refused(function, input_shape, sentence):
    model = build_model(USER + function, input_shape, 10, seed=0)
    with pytest.raises(TaskError, match=sentence):
        check_fit(model, USER + function, input_shape, 10)


def test_a_subclassed_model_is_built_by_the_check():
    model = build_model(USER + "subclassed", (4, 4), 5, seed=0)
    assert check_fit(model, USER + "subclassed", (4, 4), 5) == 5
    assert len(model.weights) == 4
