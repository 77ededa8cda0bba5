import inspect

import keras
import numpy as np
import pytest

from tasks.errors import TaskError
from tasks.optimizers import FirstState, make_optimizer


def variables() -> list[keras.Variable]:
    return [keras.Variable(np.full((3, 2), 0.5, np.float32)), keras.Variable(np.zeros(2, np.float32))]


def test_any_keras_optimizer_by_name_in_any_case():
    made = {type(make_optimizer(name)).__name__ for name in ("sgd", "SGD", "Adam", "rmsprop", "NADAM", "lamb")}
    assert made == {"SGD", "Adam", "RMSprop", "Nadam", "Lamb"}


def test_every_class_of_keras_is_there_unless_it_wraps_another():
    for name, value in vars(keras.optimizers).items():
        if inspect.isclass(value) and issubclass(value, keras.optimizers.Optimizer):
            if name in ("Optimizer", "LossScaleOptimizer", "MultiOptimizer"):
                with pytest.raises(TaskError, match="is not known"):
                    make_optimizer(name)
            else:
                assert isinstance(make_optimizer(name), value)


def test_arguments_get_the_types_of_the_defaults():
    sgd = make_optimizer("sgd", " momentum = 0.9 , nesterov=TRUE,clipnorm=1")
    assert (sgd.momentum, sgd.nesterov, sgd.clipnorm) == (0.9, True, 1)
    adam = make_optimizer("adam", "epsilon=1e-3,amsgrad=false,gradient_accumulation_steps=4,weight_decay=none")
    assert (adam.epsilon, adam.amsgrad, adam.gradient_accumulation_steps, adam.weight_decay) == (1e-3, False, 4, None)
    assert make_optimizer("muon", "ns_steps=3").ns_steps == 3
    assert make_optimizer("sgd", "momentum=0").momentum == 0.0


@pytest.mark.parametrize(
    ("name", "args", "sentence"),
    [
        ("adm", "", r"client-optimizer='adm' is not known \(did you mean 'adam'\?\): use one of adadelta, "),
        ("sgd", "momentm=0.9", r"'sgd' has no argument 'momentm' \(did you mean 'momentum'\?\); it takes clipnorm, "),
        ("sgd", "momentum", "'momentum' is not of the form key=value"),
        ("sgd", "momentum=much", "momentum must be a number, not 'much'"),
        ("sgd", "momentum=nan", "momentum must be a number"),
        ("sgd", "nesterov=3", "nesterov must be true or false, not '3'"),
        ("sgd", "learning_rate=0.1", "set the learning rate with learning-rate"),
        ("sgd", "momentum=0.1,momentum=0.2", "'momentum' is given twice"),
        ("sgd", "momentum=1.5", "Keras refuses this for 'sgd'"),
        ("adam", "clipnorm=1,clipvalue=1", "Keras refuses this for 'adam'"),
        ("muon", "exclude_layers=true", "Keras refuses this for 'muon'"),
    ],
)
def test_wrong_names_and_arguments_are_refused(name, args, sentence):
    with pytest.raises(TaskError, match=sentence):
        make_optimizer(name, args)


@pytest.mark.parametrize("name", ["adagrad", "ftrl", "nadam", "schedulefreeadamw", "adam"])
def test_first_state_is_that_of_an_optimizer_just_built(name):
    optimizer, trainable = make_optimizer(name, "use_ema=true"), variables()
    first = FirstState(optimizer, trainable)
    start = variables()
    fresh = make_optimizer(name, "use_ema=true")
    fresh.build(start)

    def restore() -> None:
        for variable, value in zip(trainable, start, strict=True):
            variable.assign(value)
        first.restore()

    restore()
    gradients = [np.ones((3, 2), np.float32), np.ones(2, np.float32)]
    optimizer.learning_rate = 0.1
    optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], trainable)
    optimizer.learning_rate = 0.0
    restore()
    assert len(optimizer.variables) == len(fresh.variables)
    for one, two in zip(optimizer.variables, fresh.variables, strict=True):
        np.testing.assert_array_equal(one, two)
