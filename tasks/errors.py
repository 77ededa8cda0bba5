"""The error of everything a user can get wrong about data, models and training."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TaskError(ValueError):
    """One sentence for the user: what was given, what is allowed, which key or file to change."""


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that was probably meant, in whatever case it was written, or None."""
    return next(iter(difflib.get_close_matches(name.lower(), list(known), n=1)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the middle of a sentence, or nothing where no known name is close."""
    close = closest(name, known)
    return f" (did you mean {close!r}?)" if close else ""
