"""Noise that is correlated over rounds: what a mechanism asks of it, and the round that its state was left in."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from strategies.errors import StrategyError
from strategies.updates import State

ROUND = "round"


class CorrelatedNoise(Protocol):
    """Noise for the sums of rounds in passes of ``rounds`` rounds, of which a client takes part in one at most.

    It is told in units of the deviation of the independent noise that it is made of.
    """

    @property
    def rounds(self) -> int:
        """The length of a pass."""

    @property
    def vectors(self) -> int:
        """How many vectors of noise the state holds at most."""

    @property
    def sensitivity(self) -> float:
        """By how much a client's update of norm 1 moves, in a pass, all that gets independent noise."""

    def deviation(self, round: int) -> float:
        """Return the standard deviation of each number of a round's noise, where none was left out before."""

    def next(
        self, round: int, size: int, state: State, noise: np.random.Generator
    ) -> tuple[npt.NDArray[np.float64], State]:
        """Return the noise of a round, float64 [size], and the state after it; ``noise`` is all that is random in it.

        Rounds come in order, and some may be left out. Raises StrategyError for one that has had its noise.
        """


def last_round(state: State, round: int) -> int:
    """Return the round before ``round`` that got noise last, 0 where none did."""
    last = int(state[ROUND].item()) if state else 0
    if round <= last:
        raise StrategyError(f"Round {round} cannot get noise after round {last}, which has had it: rounds go forwards.")
    return last
