"""What the numbers of server optimizers may be; each check names the run-config key."""

from __future__ import annotations

import math

from strategies.errors import StrategyError


def require_above_zero(key: str, value: float) -> None:
    """Raise StrategyError unless the value is finite and above 0: a learning rate, an epsilon."""
    if not 0 < value < math.inf:
        raise StrategyError(f"The key '{key}' is {value}, but must be a finite number above 0.")


def require_decay(key: str, value: float) -> None:
    """Raise StrategyError unless the value is from 0 and below 1: what is left of a moment after a step."""
    if not 0 <= value < 1:
        raise StrategyError(f"The key '{key}' is {value}, but must be a number from 0 and below 1.")
