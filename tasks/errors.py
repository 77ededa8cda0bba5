"""The error of everything a user can get wrong about data, models and training."""

from __future__ import annotations


class TaskError(ValueError):
    """One sentence for the user: what was given, what is allowed, which key or file to change."""
