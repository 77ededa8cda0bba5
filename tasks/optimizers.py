"""Client optimizers by name: any Keras optimizer, with its arguments as a string and its first state restorable."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tasks.errors import TaskError, did_you_mean

_NOT_ARGUMENTS = {"learning_rate", "name", "kwargs"}


def _catalogue() -> dict[str, type[keras.optimizers.Optimizer]]:
    """Every Keras optimizer that can be made without further objects, by lower-case name."""
    found = {}
    for name, value in vars(keras.optimizers).items():
        if not (isinstance(value, type) and issubclass(value, keras.optimizers.Optimizer)):
            continue
        parameters = inspect.signature(value).parameters.values()
        if all(p.default is not p.empty or p.kind is p.VAR_KEYWORD for p in parameters):
            found[name.lower()] = value
    return found


def make_optimizer(name: str, args: str = "") -> keras.optimizers.Optimizer:
    """Make the optimizer, e.g. ``make_optimizer("sgd", "momentum=0.9,nesterov=true")``, with learning rate 0.

    Names are Keras class names in any case. The learning rate is no argument: it is assigned for each client. Raises
    `TaskError` for unknown names and for arguments that the optimizer does not take.
    """
    catalogue = _catalogue()
    if name.lower() not in catalogue:
        raise TaskError(
            f"client-optimizer={name!r} is not known{did_you_mean(name, catalogue)}: use one of {_list(catalogue)}."
        )
    cls = catalogue[name.lower()]
    arguments = _parse(name, args, inspect.signature(cls).parameters)
    try:
        optimizer = cls(learning_rate=0.0, **arguments)
        _try_out(cls(learning_rate=0.0, **arguments))
    except Exception as error:  # Keras raises all kinds of exceptions for wrong values, some only in the first step
        raise TaskError(
            f"client-optimizer-args={args!r}: Keras refuses this for {name!r} ({type(error).__name__}: {error})."
        ) from error
    return optimizer


def _parse(name: str, args: str, parameters: Any) -> dict[str, Any]:
    """Turn "key=value,key=value" into arguments, with the types that the optimizer's defaults have."""
    known = {key: p.default for key, p in parameters.items() if key not in _NOT_ARGUMENTS}
    parsed: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in args.split(","))):
        key, equals, text = (part.strip() for part in item.partition("="))
        if not equals:
            raise TaskError(f"client-optimizer-args={args!r}: {item!r} is not of the form key=value.")
        if key == "learning_rate":
            raise TaskError(f"client-optimizer-args={args!r}: set the learning rate with learning-rate.")
        if key not in known:
            raise TaskError(
                f"client-optimizer-args={args!r}: {name!r} has no argument {key!r}{did_you_mean(key, known)}; "
                f"it takes {_list(known)}."
            )
        if key in parsed:
            raise TaskError(f"client-optimizer-args={args!r}: {key!r} is given twice; give it once.")
        parsed[key] = _value(f"client-optimizer-args={args!r}: {key}", text, known[key])
    return parsed


def _value(where: str, text: str, default: Any) -> Any:
    """Read one value: true/false where the default is a bool, else a finite number, "none", or true/false."""
    words = {"true": True, "false": False, "none": None}
    lower = text.lower()
    if isinstance(default, bool):
        if lower not in ("true", "false"):
            raise TaskError(f"{where} must be true or false, not {text!r}.")
        return words[lower]
    if default is None and lower in words:
        return words[lower]
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise TaskError(f"{where} must be a number, not {text!r}.")
    return int(text) if text.lstrip("+-").isdigit() and not isinstance(default, float) else number


def _try_out(optimizer: keras.optimizers.Optimizer) -> None:
    """Take one step with a matrix and a vector, so that a wrong value shows now and not in the compiled training."""
    variables = [keras.Variable(np.ones((2, 2), np.float32)), keras.Variable(np.ones(2, np.float32))]
    optimizer.apply([tf.ones((2, 2)), tf.ones(2)], variables)
    optimizer.finalize_variable_values(variables)


def _list(names: Any) -> str:
    return ", ".join(sorted(names))


class FirstState:
    """The state of an optimizer before its first step, to be restored inside a compiled function.

    Not all zeros: Nadam starts a product at 1, Adagrad and Ftrl their accumulators at 0.1, and ScheduleFreeAdamW with
    a copy of the weights. To tell copies from constants, the optimizer is built while every trainable weight holds a
    marker of its own; the weights are overwritten, so whoever calls this must assign them afterwards.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer, trainable: Sequence[keras.Variable]) -> None:
        markers = [1e6 + index for index in range(len(trainable))]  # exact in float32, and nobody's initial value
        for variable, marker in zip(trainable, markers, strict=True):
            variable.assign(np.full(variable.shape, marker))
        optimizer.build(list(trainable))
        self._constants: list[tuple[keras.Variable, np.ndarray]] = []
        self._copies: list[tuple[keras.Variable, keras.Variable]] = []
        for variable in optimizer.variables:
            value = np.asarray(variable)
            marker = float(value.flat[0]) if value.size else math.nan
            if marker in markers:
                self._copies.append((variable, trainable[markers.index(marker)]))
            else:
                self._constants.append((variable, value))

    def restore(self) -> None:
        """Assign the first state; the trainable weights must already hold their starting values."""
        for variable, value in self._constants:
            uniform = value.size > 0 and bool(np.all(value == value.flat[0]))
            variable.assign(tf.fill(value.shape, tf.constant(value.flat[0], value.dtype)) if uniform else value)
        for variable, source in self._copies:
            variable.assign(tf.identity(source.value))
