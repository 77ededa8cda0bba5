"""Options: the keys of a run config as the parts of a strategy read them, each for itself."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TypeVar

from strategies.errors import StrategyError

Option = str | int | float | bool
Options = Mapping[str, Option]
Named = TypeVar("Named")


def integer(options: Options, key: str, default: int) -> int:
    """Return an option that must be a whole number."""
    value = options.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise StrategyError(f"The key '{key}' is {value!r}, but must be a whole number.")
    return value


def number(options: Options, key: str, default: float) -> float:
    """Return an option that must be a number; a whole one will do."""
    value = options.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise StrategyError(f"The key '{key}' is {value!r}, but must be a number.")
    return float(value)


def text(options: Options, key: str, default: str) -> str:
    """Return an option that must be a string."""
    value = options.get(key, default)
    if not isinstance(value, str):
        raise StrategyError(f"The key '{key}' is {value!r}, but must be a string.")
    return value


def flag(options: Options, key: str, default: bool) -> bool:
    """Return an option that must be true or false."""
    value = options.get(key, default)
    if not isinstance(value, bool):
        raise StrategyError(f"The key '{key}' is {value!r}, but must be true or false.")
    return value


def known(key: str, name: str, named: Mapping[str, Named]) -> Named:
    """Return what a name stands for; raises StrategyError with the names that are near it."""
    if name not in named:
        close = difflib.get_close_matches(name.lower(), named, n=1)
        hint = f": did you mean '{close[0]}'?" if close else "."
        raise StrategyError(f"The key '{key}' is '{name}', but must be one of {sorted(named)}{hint}")
    return named[name]


BY_SIZE = ("weighted", "power-of-choice")


def weighting(options: Options, auto: str) -> str:
    """Return what a client's update weighs; ``auto`` is what the part's paper has.

    Where clients are drawn by their size already, as the key 'selection' may say, they then count the same, so that
    large ones do not count twice (Cho et al., "Towards Understanding Biased Client Selection in Federated Learning",
    2022, equation 2); and under differential privacy, where none may count for more.
    """
    chosen = text(options, "weighting", "auto")
    if chosen != "auto":
        return chosen
    private = text(options, "privacy", "") not in ("", "none")
    return "uniform" if private or text(options, "selection", "") in BY_SIZE else auto
