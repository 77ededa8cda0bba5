"""What a server has to know of its clients' gradient steps: how many each did, and that they were those of SGD.

SCAFFOLD and FedNova divide an update by the steps that made it, which says something only where every step is a
gradient times the learning rate, with or without momentum.
"""

from __future__ import annotations

from strategies import wire
from strategies.errors import LayoutError, StrategyError
from strategies.options import Options, text
from strategies.updates import Update

MOST_STEPS = 2.0**53


def steps_of(update: Update) -> int:
    """Return how many gradient steps a client did, as it reports them.

    Raises LayoutError ("malformed") unless that is a whole number, at least 1.
    """
    steps = update.metrics.get(wire.STEPS)
    if steps is None or not 1 <= steps <= MOST_STEPS or steps != int(steps):
        given = "nothing" if steps is None else f"{steps:g}"
        raise LayoutError(
            "malformed",
            f"This strategy divides by a client's gradient steps, so its metric '{wire.STEPS}' must be a whole number "
            f"from 1 on, but it reports {given}.",
        )
    return int(steps)


def momentum_of(options: Options) -> float:
    """Return the momentum with which clients do SGD, 0 for plain SGD.

    Raises StrategyError where their optimizer is another one or has other arguments.
    """
    name, arguments = text(options, "client-optimizer", "sgd"), text(options, "client-optimizer-args", "")
    pairs = [item.partition("=") for item in arguments.replace(" ", "").split(",") if item]
    values = {key: value for key, _, value in pairs}
    momentum = _number(values.pop("momentum", "0"))
    if name.lower() != "sgd" or set(values.items()) - {("nesterov", "false")} or not 0 <= momentum < 1:
        raise StrategyError(
            f"The strategy counts gradient steps of SGD, but 'client-optimizer' is '{name}' with the arguments "
            f"'{arguments}': set it to 'sgd', and 'client-optimizer-args' to nothing or to a momentum below 1."
        )
    return momentum


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0
