"""A running estimate of a quantile of the clients' norms, one geometric step a round.

Andrew, Thakkar, McMahan, Ramaswamy: "Differentially Private Learning with Adaptive Clipping", 2021, algorithm 1 without
the noise: C <- C exp(-rate (b - quantile)), where b is the share of norms that are at most C. The estimate rises while
fewer norms lie below it than should, whatever their scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class QuantileEstimate:
    """How an estimate moves."""

    quantile: float
    rate: float

    def next(self, norms: NormCount) -> float:
        """Return the estimate after a round; the same where no norm was counted."""
        if norms.counted == 0:
            return norms.estimate
        return norms.estimate * math.exp(-self.rate * (norms.below / norms.counted - self.quantile))


@dataclass
class NormCount:
    """How many norms of a round are at most the estimate: counts, so that the order does not matter."""

    estimate: float
    counted: int = field(default=0, init=False)
    below: int = field(default=0, init=False)

    def add(self, norm: float) -> None:
        """Count a norm."""
        self.counted += 1
        self.below += norm <= self.estimate
