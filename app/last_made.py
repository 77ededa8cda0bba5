"""A value that is made of a run's config, for which every client of every message asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Made = TypeVar("Made")


class LastMade(Generic[Made]):
    """Calls a function, and again only for arguments that are not equal to the last ones.

    Configs are dictionaries of some hundred keys. To compare two that hold the same objects takes 3 us; to hash them,
    as `functools.lru_cache` would, 20. What is changed in a dictionary after the call counts as another argument.
    """

    def __init__(self, make: Callable[..., Made]) -> None:
        self._make = make
        self._last: tuple[tuple[object, ...], Made] | None = None

    def __call__(self, *arguments: Any) -> Made:
        """Return what the function makes of these arguments."""
        last = self._last
        if last is not None and last[0] == arguments:
            return last[1]
        made = self._make(*arguments)
        self._last = tuple(dict(given) if isinstance(given, dict) else given for given in arguments), made
        return made
