"""The ledger of a run: every release so far, what they cost together, and whether the budget allows the next one.

A ledger is a value: `after` returns another one. It can be told in two arrays, so that a checkpoint can keep it and a
run that resumes goes on accounting where it stopped. RDP costs an addition after every round; PLD, the tighter one,
some hundredths of a second (benchmarks/privacy_accounting.py).

A round that was skipped counts as a release: it is never known what of it was seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from strategies.errors import StrategyError
from strategies.privacy.accounting import (
    ORDERS,
    SAMPLINGS,
    Epsilons,
    Release,
    Renyi,
    adjacency_of,
    epsilons,
    nothing,
    rdp_epsilon,
    renyi,
)
from strategies.updates import State

RELEASES, COST = "privacy-releases", "privacy-cost"
"""Names of the arrays: float64 [different releases, (sampling, rate, z, rounds)], and float64 [orders]."""


@dataclass(frozen=True, eq=False)
class Ledger:
    """The releases of a run, how many of each, and their cost by RDP, float64 [orders]."""

    releases: Mapping[Release, int] = field(default_factory=dict)
    cost: Renyi = field(default_factory=nothing)

    @classmethod
    def of(cls, state: State) -> Ledger:
        """Read a ledger from the arrays that `state` gave; an empty one where there are none.

        Raises StrategyError where they cannot be: then a run must not go on as if nothing had been released.
        """
        if RELEASES not in state and COST not in state:
            return cls()
        try:
            rows = np.asarray(state[RELEASES], dtype=np.float64).reshape(-1, 4)
            cost = np.array(state[COST], dtype=np.float64).reshape(len(ORDERS))
            releases = {Release(SAMPLINGS[int(kind)], rate, noise): int(n) for kind, rate, noise, n in rows.tolist()}
        except (KeyError, IndexError, ValueError) as error:
            raise StrategyError(
                f"The ledger of a checkpoint cannot be read ({error}): the budget is unknown."
            ) from None
        return cls(releases, cost)

    def state(self) -> State:
        """Return the ledger as arrays."""
        rows = [
            (SAMPLINGS.index(release.sampling), release.rate, release.noise_multiplier, count)
            for release, count in self.releases.items()
        ]
        return {RELEASES: np.array(rows, dtype=np.float64).reshape(-1, 4), COST: self.cost}

    @property
    def rounds(self) -> int:
        """How many releases there were, each of a round or, with cyclic selection, of a pass."""
        return sum(self.releases.values())

    def after(self, release: Release, rounds: int = 1) -> Ledger:
        """Return the ledger with so many more of this release; StrategyError where it cannot stand with the others."""
        releases = {**self.releases, release: self.releases.get(release, 0) + rounds}
        adjacency_of(releases)
        return Ledger(releases, self.cost + rounds * renyi(release))

    def epsilon(self, delta: float) -> float:
        """Return epsilon by RDP: in a millisecond, and so after every round."""
        return rdp_epsilon(self.cost, delta)

    def epsilons(self, delta: float) -> Epsilons:
        """Return epsilon by both accountants; PLD takes tenths of a second for each release it meets first."""
        return epsilons(self.releases, delta)

    def would_exceed(self, release: Release, epsilon: float, delta: float) -> bool:
        """Say whether this release would take more than the budget, by the tighter accountant."""
        then = self.after(release)
        return then.epsilon(delta) > epsilon and then.epsilons(delta).tightest > epsilon

    def check(self, release: Release, epsilon: float, delta: float) -> None:
        """Raise StrategyError where not even one such release is left, as when a run resumes whose budget is spent."""
        if self.would_exceed(release, epsilon, delta):
            spent, then = (ledger.epsilons(delta).tightest for ledger in (self, self.after(release)))
            raise StrategyError(
                f"The privacy budget is spent: after {self.rounds} releases epsilon is {spent:.4g} at delta {delta:g}, "
                f"and one more would make it {then:.6g}, above 'budget-epsilon' {epsilon:g}. Raise 'budget-epsilon', "
                "or, for a new run, 'noise-multiplier'."
            )
