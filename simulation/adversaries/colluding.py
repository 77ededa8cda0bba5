"""Attacks that need to know the others: the colluders estimate what honest clients send by their own honest updates.

The papers let attackers know every client's update, or those of the attackers alone (ALIE, section 3); here it is the
latter throughout. All colluders of a round send the same vector, computed in float64 in the order of their ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from simulation.adversaries.attack import Knowledge
from strategies.updates import Update

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ALittleIsEnough:
    """ALIE: mean - z * standard deviation, in each coordinate.

    Baruch, Baruch and Goldberg, "A Little Is Enough: Circumventing Defenses For Distributed Learning", 2019, algorithm
    3: with the largest z at which enough honest updates lie farther out than the forged one (`hidden_deviation`).
    ``z`` 0 = by that formula, which allows little while attackers are few. The deviation of a single one is 0.
    """

    z: float = 0.0

    def forge(self, known: Knowledge) -> Update:
        """Return the colluders' mean, moved by z of their standard deviations."""
        updates = known.colluders()
        z = self.z or hidden_deviation(known.cohort, known.attackers)
        mean = mean_of(updates)
        return _sent(known, mean - z * deviation_of(updates, mean))


@dataclass(frozen=True)
class InnerProduct:
    """IPM: ``-epsilon`` times the mean of the honest updates.

    Xie, Koyejo and Gupta, "Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product Manipulation", 2020,
    section 4: so that the inner product of the aggregate and the true mean turns negative. A small epsilon hides among
    updates that differ, a large one turns the mean.
    """

    epsilon: float = 0.5

    def forge(self, known: Knowledge) -> Update:
        """Return ``-epsilon`` times the colluders' mean."""
        return _sent(known, -self.epsilon * mean_of(known.colluders()))


@dataclass(frozen=True)
class Collusion:
    """A sign flip that all attackers agree on: the same vector from each, the mean of their honest updates flipped.

    Identical updates are each other's nearest, which is what rules by distance (Krum, Bulyan) take for agreement. The
    formula is that of `InnerProduct`, the factor as large as that of the sign flip that each makes alone.
    """

    scale: float = 4.0

    def forge(self, known: Knowledge) -> Update:
        """Return ``-scale`` times the colluders' mean."""
        return _sent(known, -self.scale * mean_of(known.colluders()))


def hidden_deviation(cohort: int, attackers: int) -> float:
    """Return ALIE's z for n clients of which m attack: the largest with Phi(z) < (n - m - s) / (n - m), at least 0.

    s = floor(n / 2 + 1) - m are the honest clients that the attackers need for a majority; at least one is needed
    here, where attackers are a majority themselves. Some quote the formula as (n - s) / n, which hides less well.
    """
    honest = cohort - attackers
    needed = max(1, cohort // 2 + 1 - attackers)
    if honest - needed <= 0:
        return 0.0
    return max(0.0, NormalDist().inv_cdf((honest - needed) / honest))


def mean_of(updates: Sequence[Update]) -> Vector:
    """Return the mean delta, each client the same."""
    total = np.zeros(len(updates[0].delta))
    for update in updates:
        total += update.delta
    return total / len(updates)


def deviation_of(updates: Sequence[Update], mean: Vector) -> Vector:
    """Return the standard deviation of each coordinate over these updates, which are all there are (divisor n)."""
    squares = np.zeros_like(mean)
    for update in updates:
        squares += np.square(update.delta - mean)
    return np.sqrt(squares / len(updates))


def _sent(known: Knowledge, delta: Vector) -> Update:
    return replace(known.own(), delta=delta.astype(np.float32))
