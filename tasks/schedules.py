"""The clients' learning rate over the rounds: warm-up, then decay. A pure function of the round's number."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tasks.errors import TaskError, did_you_mean

DECAYS = ("none", "exponential", "step", "cosine")


@dataclass(frozen=True)
class LearningRate:
    """A learning rate that rises for ``warmup_rounds`` rounds and then decays.

    During warm-up, round r (from 1) has base * r / (warmup_rounds + 1), so the first round after it is the first at
    full rate. From there, with t rounds gone by (0 in the first), rate = ``decay_rate``, period = ``decay_rounds``:

    - "none": base
    - "exponential": base * rate^(t / period)
    - "step": base * rate^floor(t / period)
    - "cosine": from base down to base * rate at t = period, along half a cosine wave, and level afterwards
    """

    base: float
    warmup_rounds: int = 0
    decay: str = "none"
    decay_rate: float = 1.0
    decay_rounds: int = 1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.base) and self.base > 0):
            raise TaskError(f"learning-rate={self.base} must be a finite number above 0.")
        if self.warmup_rounds < 0:
            raise TaskError(f"lr-warmup-rounds={self.warmup_rounds} must not be negative.")
        if self.decay not in DECAYS:
            hint = did_you_mean(self.decay, DECAYS)
            raise TaskError(f"lr-decay={self.decay!r} is not known{hint}: use one of {', '.join(DECAYS)}.")
        if not 0 <= self.decay_rate <= 1 or (self.decay_rate == 0 and self.decay != "cosine"):
            raise TaskError(f"lr-decay-rate={self.decay_rate} must lie in (0, 1]; only lr-decay=cosine may end at 0.")
        if self.decay_rounds < 1:
            raise TaskError(f"lr-decay-rounds={self.decay_rounds} must be at least 1.")

    def at(self, round_number: int) -> float:
        """Return the rate of a round; rounds count from 1."""
        if round_number <= self.warmup_rounds:
            return self.base * round_number / (self.warmup_rounds + 1)
        return self.base * self._factor(round_number - self.warmup_rounds - 1)

    def _factor(self, t: int) -> float:
        if self.decay == "exponential":
            return math.pow(self.decay_rate, t / self.decay_rounds)
        if self.decay == "step":
            return math.pow(self.decay_rate, t // self.decay_rounds)
        if self.decay == "cosine":
            wave = (1 + math.cos(math.pi * min(1.0, t / self.decay_rounds))) / 2
            return self.decay_rate + (1 - self.decay_rate) * wave
        return 1.0
