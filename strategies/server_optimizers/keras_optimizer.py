"""Any Keras optimizer on the server: the negative of the delta is its gradient.

Reddi et al., "Adaptive Federated Optimization", 2021, algorithm 1 with any SERVEROPT. What a Keras optimizer remembers
lives in variables of its own; here a fresh one is made for every step, gets them from the state and gives them back, so
that the step is pure and can be checkpointed. Its Adam is not `FedAdam`: it corrects a bias, and begins with v = 0.

The only module here that knows Keras, which it imports when it is used.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from strategies.errors import StrategyError
from strategies.guarantees import Guarantees
from strategies.options import Options, number, text
from strategies.server_optimizers.bounds import require_above_zero
from strategies.updates import FloatVector, State

PREFIX = "keras:"
NAMES = ("adadelta", "adagrad", "adam", "adamax", "adamw", "lion", "nadam", "rmsprop", "sgd")
LEFT_OUT = ("adafactor", "ftrl", "lamb", "muon", "schedulefreeadamw")
"""Adafactor, Lamb and Muon look at layers, of which one flat vector has none; Ftrl forgets the weights that it begins
with; ScheduleFreeAdamW trains other weights than it evaluates.
"""


@dataclass(frozen=True)
class KerasOptimizer:
    """The Keras optimizer of this name, one of `NAMES`, with arguments as in ``"beta_1=0.9,amsgrad=true"``."""

    name: str
    args: str = ""
    learning_rate: float = 1.0

    def __post_init__(self) -> None:
        require_above_zero("server-learning-rate", self.learning_rate)
        if self.name not in NAMES:
            raise StrategyError(
                f"The key 'server-optimizer' is '{PREFIX}{self.name}', but after '{PREFIX}' must stand one of "
                f"{list(NAMES)}."
            )
        try:
            self.step(np.zeros(1, np.float32), np.ones(1, np.float32), self.init(1))
        except StrategyError:
            raise
        except Exception as error:  # Keras raises all kinds for wrong values, some only in the first step
            raise StrategyError(
                f"The key 'server-optimizer-args' is '{self.args}', but Keras refuses this for '{self.name}': {error}"
            ) from error

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read the keys 'server-optimizer', 'server-optimizer-args' and 'server-learning-rate'."""
        return cls(
            text(options, "server-optimizer", "").removeprefix(PREFIX),
            text(options, "server-optimizer-args", ""),
            number(options, "server-learning-rate", 1.0),
        )

    @property
    def guarantees(self) -> Guarantees:
        """Nothing: it works with any delta."""
        return Guarantees()

    def init(self, size: int) -> State:
        """Return the optimizer's variables before the first step: "slot-0", "slot-1", ... in its own order."""
        return _slots(*self._built(np.zeros(size, np.float32)))

    def step(self, weights: FloatVector, delta: FloatVector, state: State) -> tuple[FloatVector, State]:
        """Apply the negative of the delta as gradient; on the CPU, where the same step has the same bits everywhere."""
        with _keras().device("cpu"):
            optimizer, variable = self._built(weights)
            for name, slot in _named(optimizer).items():
                slot.assign(state[name])
            optimizer.apply([_keras().ops.convert_to_tensor(-delta)], [variable])
            return _array(variable), _slots(optimizer, variable)

    def _built(self, weights: FloatVector) -> tuple[Any, Any]:
        """Return a new optimizer and the variable that it steps."""
        with _keras().device("cpu"):
            variable = _keras().Variable(weights, dtype="float32", name="weights")
            settings = {"learning_rate": self.learning_rate, **self._arguments}
            optimizer = _keras().optimizers.get({"class_name": self.name, "config": settings})
            optimizer.build([variable])
            return optimizer, variable

    @cached_property
    def _arguments(self) -> dict[str, Any]:
        """Read the arguments as lines of TOML, which has numbers, booleans and quoted text."""
        try:
            arguments = tomllib.loads(self.args.replace(",", "\n"))
        except tomllib.TOMLDecodeError:
            arguments = {"": math.nan}
        if any(isinstance(value, float) and not math.isfinite(value) for value in arguments.values()):
            raise StrategyError(
                f"The key 'server-optimizer-args' is '{self.args}', but must be NAME=VALUE pairs with commas between "
                'them, as in "momentum=0.9,nesterov=true".'
            )
        if "learning_rate" in arguments:
            raise StrategyError(
                f"The key 'server-optimizer-args' is '{self.args}': set the learning rate with 'server-learning-rate'."
            )
        return arguments


def _keras() -> Any:
    try:
        import keras
    except ImportError as error:
        raise StrategyError(
            f"A 'server-optimizer' that begins with '{PREFIX}' needs the package keras, which is not installed."
        ) from error
    return keras


def _named(optimizer: Any) -> dict[str, Any]:
    """Return the variables by names that do not depend on what else Keras has made; the rate is not of the state."""
    slots = [variable for variable in optimizer.variables if variable is not optimizer.learning_rate]
    return {f"slot-{index}": variable for index, variable in enumerate(slots)}


def _slots(optimizer: Any, variable: Any) -> State:
    return {name: _array(slot) for name, slot in _named(optimizer).items()}


def _array(variable: Any) -> np.ndarray[Any, Any]:
    return np.array(_keras().ops.convert_to_numpy(variable.value))
