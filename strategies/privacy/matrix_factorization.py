"""Banded matrix factorisation: noise of a round that takes back part of the noise of the rounds before.

Choquette-Choo et al., "(Amplified) Banded Matrix Factorization: A Unified Approach to Private Training", NeurIPS 2023.
The prefix sums are A x, A being the lower triangle of ones, and A = B C; what is released is
B (C x + z) = A (x + C^-1 z), z of independent noise: the noise of a round is w = C^-1 z. C has b bands, so that

    w_t = (z_t - c_1 w_(t-1) - ... - c_(b-1) w_(t-b+1)) / c_0

needs b - 1 vectors of memory. A client that takes part every P >= b rounds moves columns of C x that have no row in
common: each time costs what a sum does with noise smaller by the norm of a column, which is 1 here. (Denisov et al.,
"Improved Differential Privacy for SGD via Optimal Private Linear Operators on Adaptive Streams", 2022, theorem 2.1:
this holds for updates that depend on what was released before, too.)

C is a Toeplitz matrix with the coefficients of the square root of A, cut to b bands and scaled to columns of norm 1:
Kalinin and Lampert, "Banded Square Root Matrix Factorization for Differentially Private Model Training", NeurIPS 2024.
A numerical search over all banded Toeplitz matrices lowers the root mean square deviation of the prefix sums by 0.6 to
4.5 % (benchmarks/dp_ftrl.py), and has to know how many rounds there will be. That the paper amplifies by sampling
within a slot is left out: nothing here is sampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from strategies.errors import StrategyError
from strategies.privacy.correlated import ROUND, last_round
from strategies.updates import State


@dataclass(frozen=True)
class BandedNoise:
    """Noise of a factorisation with ``bands`` bands, 0 = ``rounds``, the length of a pass; in units of z's deviation.

    Its state is the noise of the last bands - 1 rounds, float64 [size] each, "noise-AGE", and the last round. 1 band is
    independent noise. Raises StrategyError where there are more bands than rounds in a pass.
    """

    rounds: int
    bands: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.bands <= self.rounds:
            raise StrategyError(
                f"The key 'mf-bands' is {self.bands}, but must be from 1 to the {self.rounds} rounds of a pass, or 0 "
                "for as many: more would let a client's rounds overlap. Lower it, or raise 'pass-rounds'."
            )

    @cached_property
    def column(self) -> npt.NDArray[np.float64]:
        """The coefficients c_0, c_1, ... of the bands, float64 [bands], of norm 1."""
        places = np.arange(1, self.bands or self.rounds)
        root = np.append(1.0, np.cumprod((2 * places - 1) / (2 * places)))  # (2k choose k) / 4^k
        return np.asarray(root / np.linalg.norm(root))

    @property
    def vectors(self) -> int:
        """One for each band but the first."""
        return len(self.column) - 1

    @property
    def sensitivity(self) -> float:
        """By how much a client's update of norm 1 moves C x in a pass, in the Euclidean norm."""
        return float(np.linalg.norm(self.column))

    def deviation(self, round: int) -> float:
        """Return the norm of a row of C^-1."""
        from scipy.signal import lfilter  # the slowest import of a node's process, which has no need of it

        one = np.zeros(round)
        one[0] = 1.0
        return float(np.linalg.norm(lfilter([1.0], self.column, one)))

    def next(
        self, round: int, size: int, state: State, noise: np.random.Generator
    ) -> tuple[npt.NDArray[np.float64], State]:
        """Return the noise of a round, float64 [size], and the state after it.

        That of rounds that were left out is drawn, too, and released with nothing: else a client's rounds would be
        nearer to each other than a pass is long.
        """
        first, *others = self.column
        past = [state[_name(age)] for age in range(1, len(self.column)) if _name(age) in state]
        for _ in range(last_round(state, round), round):
            newest = noise.standard_normal(size)
            for coefficient, earlier in zip(others, past, strict=False):  # fewer at the beginning
                newest -= coefficient * earlier
            newest /= first
            past = [newest, *past][: len(others)]
        return newest, {ROUND: np.array(round), **{_name(age): vector for age, vector in enumerate(past, start=1)}}


def _name(age: int) -> str:
    return f"noise-{age}"
