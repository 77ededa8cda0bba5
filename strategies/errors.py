"""Errors of the strategies: one sentence for the person or the client that caused it."""

from __future__ import annotations

from typing import Literal


class StrategyError(ValueError):
    """Something a user chose cannot work; the message says what was given, what is allowed and which key to change."""


class LayoutError(StrategyError):
    """Arrays that do not fit what was agreed on, most often sent by another process: a reply to reject and count.

    ``reason`` is the value of the `strategies.admission.Reason` under which the rejection is counted.
    """

    def __init__(
        self, reason: Literal["malformed", "shape", "dtype", "weight", "zeroed", "no-reference"], message: str
    ) -> None:
        super().__init__(message)
        self.reason = reason
