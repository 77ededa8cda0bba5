"""Adaptive clipping: the clipping norm follows a quantile of the clients' norms, which is learnt privately too.

Andrew, Thakkar, McMahan, Ramaswamy: "Differentially Private Learning with Adaptive Clipping", 2021, algorithm 1: each
client says whether its update was at most as long as the round's norm C, one bit, and

    b = (sum of (bit - 1/2) + N(0, sigma_b^2)) / n + 1/2,    C <- C exp(-rate (b - quantile)),

b cut to what a share can be, n being the expected number of clients, sigma_b = n / 20 as the paper recommends. The bits
cost privacy: the noise on the sum of updates grows from z C to z_v C with z_v = (z^-2 - (2 sigma_b)^-2)^-1/2, so that
both releases together are one Gaussian mechanism of noise multiplier z (theorem 1), which accountants take. A bit moves
its sum by 1/2: hence the 2.

A client clips before its update leaves, so that it has to tell the bit itself, as the metric "within-clipping-norm".
Who lies moves b by 1/n, as its own bit could have; any other number counts as a bit too. For clients of other apps,
which send their updates unclipped, the server finds the bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from strategies.aggregators import Fold
from strategies.errors import StrategyError
from strategies.options import Options, integer, number
from strategies.privacy.clipping import NORM, Clipping, within
from strategies.privacy.dp_fedavg import ClippedSum, common
from strategies.updates import FloatVector, State

BIT_DEVIATION = 1 / 20  # sigma_b of the sum of bits, per expected client


@dataclass(frozen=True)
class AdaptiveDPFedAvg(ClippedSum):
    """DP-FedAvg whose clipping norm begins at ``clipping_norm`` and tracks the ``quantile`` of the norms.

    ``noise_multiplier`` (z) is that of all that a round releases; ``rate`` is the step of log C.
    """

    quantile: float = 0.5
    rate: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.quantile <= 1:
            raise StrategyError(f"The key 'adaptive-clipping-quantile' is {self.quantile}, but must be from 0 to 1.")
        if not 0 < self.rate < math.inf:
            raise StrategyError(f"The key 'adaptive-clipping-rate' is {self.rate}, but must be a number above 0.")
        if self.noise_multiplier >= 2 * self.accounted_clients * BIT_DEVIATION:
            key = "noise-cohort-size" if self.noise_cohort_size else "clients-per-round"
            raise StrategyError(
                f"The key 'noise-multiplier' is {self.noise_multiplier:g}, but with adaptive clipping and '{key}' "
                f"{self.accounted_clients} it must be below {self.accounted_clients / 10:g}, a tenth of them: else the "
                "noise on the count of clipped updates is too little, however much the updates get. "
                f"Raise '{key}', or lower 'noise-multiplier'."
            )

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read the keys of `ClippedSum` and those that begin with 'adaptive-clipping-'."""
        return cls(
            *common(options),
            number(options, "adaptive-clipping-quantile", 0.5),
            number(options, "adaptive-clipping-rate", 0.2),
            noise_cohort_size=integer(options, "noise-cohort-size", 0),
        )

    @property
    def bit_deviation(self) -> float:
        """The standard deviation of the noise on the sum of bits; 0 where there is no noise at all.

        It is sigma_b, also beside the noise of N clients: theirs is N / 20, which n / N of is n / 20 again.
        """
        return self.expected_clients * BIT_DEVIATION if self.noise_multiplier else 0.0

    @property
    def update_noise_multiplier(self) -> float:
        """z_v, the noise multiplier of the sum of updates alone."""
        if self.noise_multiplier == 0:
            return 0.0
        accounted = self.accounted_clients * BIT_DEVIATION
        return float((self.noise_multiplier**-2 - (2 * accounted) ** -2) ** -0.5)

    def init(self, size: int) -> State:
        """Return the first norm."""
        return {NORM: np.array(self.clipping_norm)}

    def config(self, state: State) -> dict[str, float]:
        """Return the norm of this round."""
        return Clipping(float(state[NORM].item()), count_within=True).to_config()

    def told(self, state: State) -> dict[str, float]:
        """Return the norm of this round, z, and the noise on the mean."""
        return self.noise_told(float(state[NORM].item()), self.update_noise_multiplier)

    def finish(
        self, round: int, fold: Fold, metrics: Sequence[Mapping[str, float]], state: State, noise: np.random.Generator
    ) -> tuple[FloatVector, State]:
        """Return the noised sum, divided by the expected number of clients, and the next norm."""
        norm = float(state[NORM].item())
        delta = self.released(fold, norm, self.update_noise_multiplier, noise)
        bits = math.fsum(within(of_one) - 0.5 for of_one in metrics)
        share = (bits + self.bit_deviation * noise.standard_normal()) / self.expected_clients + 0.5
        share = min(1.0, max(0.0, share))  # what noise, or a cohort above the expected, has made impossible
        return delta, {NORM: np.array(norm * math.exp(-self.rate * (share - self.quantile)))}
