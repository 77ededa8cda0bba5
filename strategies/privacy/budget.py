"""The budget of a run: each round is accounted as it is sampled before it begins, and none begins that would exceed it.

The release of a round is what its mechanism says, of its sampler and the clients that could be drawn in it (online, not
banned): so what is sampled is what is accounted. It is written down before anybody is asked, and stays so whatever
comes of the round: of one that crashed, or whose step was not finite, nobody knows what was seen. A round for which
nobody could be drawn asks nobody, and costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from strategies.composition import Composition
from strategies.errors import StrategyError
from strategies.updates import State


class BudgetSpentError(StrategyError):
    """The next round would cost more privacy than is left."""


@dataclass(frozen=True)
class Budget:
    """How large ``epsilon`` may become, 0 = as large as it likes, at this ``delta``."""

    epsilon: float = 0.0
    delta: float = 1e-5

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon < math.inf:
            raise StrategyError(f"The key 'budget-epsilon' is {self.epsilon}, but must be 0 (no limit) or more.")
        if not 0 < self.delta < 1:
            raise StrategyError(f"The key 'budget-delta' is {self.delta}, but must lie between 0 and 1.")


def account(round: int, composition: Composition, budget: Budget, ledger: State, clients: int) -> State:
    """Return the ledger (as arrays) with the round that is about to begin, for which so many clients could be drawn.

    It stays as it is where the mechanism says that the round releases nothing new. Raises BudgetSpentError where that
    would exceed the budget.
    """
    release = composition.privacy.release(round, composition.sampler, clients)
    if release is None:
        return ledger
    from strategies.privacy.ledger import Ledger

    before = Ledger.of(ledger)
    if budget.epsilon:
        try:
            before.check(release, budget.epsilon, budget.delta)
        except StrategyError as error:
            raise BudgetSpentError(str(error)) from None
    return before.after(release).state()


def spent(ledger: State, budget: Budget) -> Mapping[str, float] | None:
    """Return "epsilon" (infinite without noise) and "delta" of what a ledger holds; None of an empty one."""
    if not ledger:
        return None
    from strategies.privacy.ledger import Ledger

    return {"epsilon": Ledger.of(ledger).epsilon(budget.delta), "delta": budget.delta}
