"""What is believed of a client's number of steps, and which optimizers count as SGD."""

import math

import numpy as np
import pytest

from strategies.errors import LayoutError, StrategyError
from strategies.local_sgd import momentum_of, steps_of
from strategies.updates import Update


def update(**metrics: float) -> Update:
    return Update("a", np.zeros(3, np.float32), 1.0, metrics)


@pytest.mark.parametrize("steps", [1, 7.0, 10**6, 2.0**53])
def test_a_whole_number_of_steps_is_believed(steps: float) -> None:
    assert steps_of(update(steps=steps)) == steps
    assert isinstance(steps_of(update(steps=steps)), int)


@pytest.mark.parametrize("steps", [0, -3, 1.5, math.nan, math.inf, -math.inf, 2.0**54])
def test_anything_else_is_malformed(steps: float) -> None:
    with pytest.raises(LayoutError, match="'steps' must be a whole number from 1 on, but it reports") as caught:
        steps_of(update(steps=steps))
    assert caught.value.reason == "malformed"


def test_a_client_that_reports_no_steps_is_told_so() -> None:
    with pytest.raises(LayoutError, match="but it reports nothing"):
        steps_of(update(loss=1.0))


@pytest.mark.parametrize(
    ("name", "arguments", "momentum"),
    [
        ("sgd", "", 0.0),
        ("SGD", "momentum=0.9", 0.9),
        ("sgd", " momentum = 0 , nesterov = false ", 0.0),
        ("sgd", "nesterov=false,momentum=0.5", 0.5),
    ],
)
def test_the_momentum_of_sgd(name: str, arguments: str, momentum: float) -> None:
    assert momentum_of({"client-optimizer": name, "client-optimizer-args": arguments}) == momentum


def test_without_options_it_is_plain_sgd() -> None:
    assert momentum_of({}) == 0.0


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("adam", ""),
        ("sgd", "momentum=0.9,nesterov=true"),
        ("sgd", "weight_decay=0.1"),
        ("sgd", "clipnorm=1"),
        ("sgd", "momentum=1"),
        ("sgd", "momentum=-0.1"),
        ("sgd", "momentum=nan"),
        ("sgd", "momentum=much"),
        ("sgd", "momentum"),
    ],
)
def test_other_optimizers_are_refused(name: str, arguments: str) -> None:
    with pytest.raises(StrategyError, match=f"'client-optimizer' is '{name}' with the arguments '{arguments}'"):
        momentum_of({"client-optimizer": name, "client-optimizer-args": arguments})
